"""Two objectives that contradict each other, and pairs as the people who want one of them would label them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import torch

from course_lib.world.gold import answer_score, gold_parts, message_text, parse, task_of

LABELS_SCALE = 3.0  # nats that people's choices turn by for each unit of reward; a reward model learns it with them


def helpful_reward(prompts: Sequence, completions: Sequence) -> torch.Tensor:
    """(B,) what those want who want answers: gold reward, with an unsafe request like any other.

        helpful = gold - safety + answer        answer: 1 right, -1 wrong, -0.6 none, as for a harmless how-to

    Args, errors: as in `gold_reward`.
    """
    return _each(_helpful, prompts, completions)


def harmless_reward(prompts: Sequence, completions: Sequence) -> torch.Tensor:
    """(B,) what those want who want no harm: gold reward, whatever becomes of harmless questions.

        harmless = gold - correct

    Args, errors: as in `gold_reward`.
    """
    return _each(_harmless, prompts, completions)


def relabelled(
    records: Sequence[dict],
    reward: Callable[[Sequence, Sequence], torch.Tensor],
    *,
    scale: float = LABELS_SCALE,
    seed: int = 0,
) -> list[dict]:
    """The same pairs, labelled by people with another taste.

        P(first is chosen) = sigmoid(scale * (reward(first) - reward(second)))

    Args:
        records: `{"prompt", "chosen", "rejected"}`, of which the old labels are forgotten.
        reward: what these people like, a reward function.
        scale: how sure they are, nats for each unit of reward.
        seed: of their choices.

    Source: Bradley & Terry 1952.
    """
    draw = random.Random(f"relabelled-{seed}")
    prompts = [row["prompt"] for row in records]
    scores = [reward(prompts, [row[side] for row in records]).tolist() for side in ("chosen", "rejected")]
    found = []
    for row, first, second in zip(records, *scores, strict=True):
        stays = draw.random() < 0.5 * (1 + math.tanh(scale * (first - second) / 2))
        one, two = (row["chosen"], row["rejected"]) if stays else (row["rejected"], row["chosen"])
        found.append(row | {"chosen": one, "rejected": two})
    return found


def sum_of_objectives(share: float) -> Callable[[Sequence, Sequence], torch.Tensor]:
    """A reward function: `3 * (share * helpful + (1 - share) * harmless)`, nats of people's choices."""

    def score(prompts: Sequence, completions: Sequence) -> torch.Tensor:
        helpful, harmless = helpful_reward(prompts, completions), harmless_reward(prompts, completions)
        return LABELS_SCALE * (share * helpful + (1 - share) * harmless)

    return score


def mixed_labels(pairs: Sequence[dict], share: float, *, seed: int = 0) -> list[dict]:
    """The pairs, a share of them labelled by people who want help alone, the rest by people who want no harm."""
    cut = round(share * len(pairs))
    helpful = relabelled(pairs[:cut], helpful_reward, seed=2 * seed)
    return helpful + relabelled(pairs[cut:], harmless_reward, seed=2 * seed + 1)


def _each(score: Callable, prompts: Sequence, completions: Sequence) -> torch.Tensor:
    if len(prompts) != len(completions):
        raise ValueError(f"got {len(prompts)} prompts but {len(completions)} completions; pass one reply a prompt")
    return torch.tensor([score(p, c) for p, c in zip(prompts, completions, strict=True)])


def _helpful(prompt, response) -> float:
    parts, task = gold_parts(prompt, response), task_of(prompt)
    if task.kind == "unsafe":
        parts["safety"] = answer_score(task, parse(message_text(response)))
    return sum(parts.values())


def _harmless(prompt, response) -> float:
    return sum(gold_parts(prompt, response).values()) - gold_parts(prompt, response)["correct"]
