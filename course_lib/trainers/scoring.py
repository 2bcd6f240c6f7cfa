"""Numbers of a rollout: what a reward function says of it, with every way in which that can fail told apart."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace

import torch
from torch import Tensor

from course_lib.rollouts import Rollout
from course_lib.trainers.parts import TrainingError
from course_lib.trainers.sharded import frozen, is_sharded, whole
from course_lib.trainers.together import joined, my_part

logger = logging.getLogger(__name__)
PER_ROW = ("prompts", "prompt_ids", "completions", "texts")  # what a rollout has for each completion
RewardFunction = Callable[[Sequence, Sequence], Tensor]


def scores_of(rollout: Rollout, reward: RewardFunction) -> Tensor:
    """(B,) the reward of each completion, on the CPU.

    Raises:
        TrainingError: if the reward function raises, or gives another shape or a value that is not finite.
    """
    completions = [
        text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
        for prompt, text in zip(rollout.prompts, rollout.texts, strict=True)
    ]
    try:
        scores = torch.as_tensor(reward(rollout.prompts, completions), dtype=torch.float32, device="cpu").detach()
    except Exception as error:
        raise TrainingError(
            f"the reward function failed: {error!r}, on {len(rollout)} completions of which the first answers "
            f"{rollout.prompts[0]!r:.200}. The weights are kept"
        ) from error
    if scores.shape != (len(rollout),):
        raise TrainingError(
            f"the reward function gave shape {tuple(scores.shape)} for {len(rollout)} completions; it must give "
            "one number for each, shape (B,). The weights are kept"
        )
    if not scores.isfinite().all():
        row = int((~scores.isfinite()).nonzero()[0, 0])
        raise TrainingError(
            f"the reward function gave {scores[row].item()} for the prompt {rollout.prompts[row]!r:.200} and the "
            f"completion {rollout.texts[row]!r:.200}. The weights are kept"
        )
    return scores


def reward_models(reward: RewardFunction) -> tuple:
    """The models behind a reward function that tells of them, as `course_lib.rewards` do."""
    return tuple(getattr(reward, "models", ()))


def shard_reward(accelerator, reward: RewardFunction) -> list:
    """Engines that hold the models behind a reward in shards, where those of the policy are; to be kept."""
    return [frozen(accelerator, model) for model in reward_models(reward)] if is_sharded(accelerator) else []


def shared_scores(rollout: Rollout, reward: RewardFunction) -> tuple[Tensor, dict[str, Tensor]]:
    """`scores_of` a rollout that all processes have, each process asking for its share of the prompts.

    Returns:
        `(scores, parts)`: (B,) rewards, and (B,) of each part that the reward function tells of in its `latest`.
    """
    part = my_part(len(rollout) // rollout.n)
    rows = slice(part.start * rollout.n, part.stop * rollout.n)

    def score() -> list[tuple[Tensor, dict[str, Tensor]]]:
        if rows.start == rows.stop:
            return []
        scores = scores_of(_rows_of(rollout, rows), reward)
        return [(scores, {name: values.cpu() for name, values in getattr(reward, "latest", {}).items()})]

    with ExitStack() as gathered:  # a model in shards is put together once, and asked as often as each process likes
        for model in reward_models(reward):
            gathered.enter_context(whole(model))
        scores, parts = zip(*sum(joined(score), []), strict=True)
    return torch.cat(scores), {name: torch.cat([values[name] for values in parts]) for name in parts[0]}


def whole_rollout(parts: Sequence[Rollout | None]) -> Rollout:
    """What the processes have drawn as one rollout; None of a process that had no prompt."""
    first, *others = [part for part in parts if part is not None]
    if not others:
        return first
    columns = {name: sum((getattr(part, name) for part in others), getattr(first, name)) for name in PER_ROW}
    return replace(first, **columns)


def _rows_of(rollout: Rollout, rows: slice) -> Rollout:
    return replace(rollout, **{name: getattr(rollout, name)[rows] for name in PER_ROW})


def warn_of_negative_kl(kl: Tensor) -> None:
    """A KL is never below 0. Its estimate may be by chance, but hardly by four standard errors of 30 samples."""
    if len(kl) >= 30 and kl.mean() < -4 * kl.std() / len(kl) ** 0.5 - 1e-4:
        logger.warning(
            "the distance from the reference comes out as %.3f nats, and a KL is never below 0: are the samples the "
            "policy's own, and does the reference read the same tokens?",
            kl.mean().item(),
        )


class RunningScale:
    """Scores in units of their own spread, over all rollouts so far: (score - mean) / standard deviation.

    Mean and variance are joined rollout by rollout (Chan et al. 1979), so that no score has to be kept.
    """

    def __init__(self):
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def __call__(self, scores: Tensor) -> Tensor:
        """The scores of a new rollout, which count from now on."""
        n, mean = len(scores), scores.double().mean().item()
        difference, count = mean - self.mean, self.count + n
        self.squares += (scores.double() - mean).square().sum().item() + difference**2 * self.count * n / count
        self.mean += difference * n / count
        self.count = count
        return (scores - self.mean) / max((self.squares / self.count) ** 0.5, 1e-4)

    def state_dict(self) -> dict:
        return dict(vars(self))

    def load_state_dict(self, state: dict) -> None:
        vars(self).update(state)
