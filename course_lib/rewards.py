"""Reward functions: `(prompts, completions)` to a tensor (B,). Pocket World's true one is `world.gold_reward`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from course_lib.data import collate_completions, encode_completion
from course_lib.logprobs import device_of, evaluating, unwrapped
from course_lib.models import pad_id, refuse_unknown_ids, sequence_rewards

RewardFunction = Callable[[Sequence, Sequence], Tensor]


def learned_reward(model, tokenizer, *, batch_size: int = 256) -> RewardFunction:
    """A trained reward model as a reward function.

    Args:
        model: one of transformers for sequence classification with one label, with adapters or without. It is
            used in evaluation mode, whatever mode it is in.
        tokenizer: its tokenizer.
        batch_size: responses scored together, at least 1.

    Returns:
        A function of B prompts and B completions (both strings, or both chat messages) that gives their
        rewards, shape (B,), on the CPU.

    Raises:
        ValueError: for a batch size below 1 or a model with more labels than one; by the function: for prompts and
            completions of different number, tokens that the model does not have, or a model without a reward head.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is at least 1; got {batch_size}")
    if (labels := unwrapped(model).config.num_labels) != 1:
        raise ValueError(f"a reward model has one label; this one has {labels}. Load it with num_labels=1")

    @torch.inference_mode()
    def score(prompts: Sequence, completions: Sequence) -> Tensor:
        if len(prompts) != len(completions):
            raise ValueError(f"there are {len(prompts)} prompts but {len(completions)} completions")
        device, pad = device_of(model), pad_id(model, tokenizer)
        rows = [encode_completion(p, c, tokenizer) for p, c in zip(prompts, completions, strict=True)]
        refuse_unknown_ids(model, (token for row in rows for token in (*row.prompt_ids, *row.completion_ids)))
        order = sorted(range(len(rows)), key=lambda i: rows[i].length)
        rewards = torch.zeros(len(rows))
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            batch = collate_completions([rows[i] for i in indices], pad)
            inputs = batch["input_ids"].to(device), batch["attention_mask"].to(device)
            with evaluating(model):
                rewards[indices] = sequence_rewards(model, *inputs).cpu()
        return rewards

    return score


def ensemble_reward(
    members: Sequence[RewardFunction], *, combine: str = "mean", caution: float = 1.0
) -> RewardFunction:
    """Several reward functions as one.

        mean: the mean over members      minimum: the least      cautious: mean - caution * standard deviation

    Where members disagree, none of them has seen the like: the minimum and the cautious mean do not pay for it.

    Args:
        members: at least two reward functions.
        combine: "mean", "minimum" or "cautious".
        caution: weight of the disagreement in "cautious", at least 0.

    Raises:
        ValueError: for fewer than two members, or another way to combine.

    Source: Coste et al. 2024, Reward model ensembles help mitigate overoptimization.
    """
    members = list(members)
    if len(members) < 2:
        raise ValueError(f"an ensemble has at least two members; got {len(members)}")
    if combine not in ("mean", "minimum", "cautious"):
        raise ValueError(f"combine is 'mean', 'minimum' or 'cautious'; got {combine!r}")
    if caution < 0:
        raise ValueError(f"caution is at least 0; got {caution}")

    def score(prompts: Sequence, completions: Sequence) -> Tensor:
        scores = torch.stack([member(prompts, completions) for member in members])
        if combine == "minimum":
            return scores.min(dim=0).values
        mean = scores.mean(dim=0)
        return mean - caution * scores.std(dim=0) if combine == "cautious" else mean

    return score


def disagreement(members: Sequence[RewardFunction], prompts: Sequence, completions: Sequence) -> Tensor:
    """(B,) the standard deviation of the members' rewards for each completion."""
    return torch.stack([member(prompts, completions) for member in members]).std(dim=0)


def weighted_reward(parts: Mapping[str, tuple[float, RewardFunction]], *, per_word: float = 0.0) -> RewardFunction:
    """A weighted sum of rewards, less a price for each word.

        r = sum_i w_i * r_i - per_word * |words|

    Args:
        parts: name -> (weight, reward function); a negative weight punishes.
        per_word: what a word of the completion costs, at least 0.

    Returns:
        A reward function; its attribute `latest` holds the unweighted (B,) rewards of its last call by name.

    Raises:
        ValueError: if there are no parts, or `per_word` is below 0.
    """
    if not parts:
        raise ValueError("there are no rewards to add up; name at least one")
    if per_word < 0:
        raise ValueError(f"per_word is at least 0; got {per_word}")

    def score(prompts: Sequence, completions: Sequence) -> Tensor:
        score.latest = {name: function(prompts, completions) for name, (_, function) in parts.items()}
        score.latest["words"] = torch.tensor([float(len(_text(c).split())) for c in completions])
        total = -per_word * score.latest["words"]
        for name, (weight, _) in parts.items():
            total = total + weight * score.latest[name]
        return total

    score.latest = {}
    return score


def _text(completion) -> str:
    """The text of a completion, given as such or as chat messages."""
    return completion if isinstance(completion, str) else " ".join(message["content"] for message in completion)
