"""Several rewards as one: ensembles, and weighted sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from course_lib.rewards.learned import RewardFunction


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

    Returns:
        A reward function; its attribute `latest` holds the "disagreement" (B,) of its last call.

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
        score.latest = {"disagreement": scores.std(dim=0)}
        if combine == "minimum":
            return scores.min(dim=0).values
        mean = scores.mean(dim=0)
        return mean - caution * scores.std(dim=0) if combine == "cautious" else mean

    score.latest, score.models = {}, models_of(members)
    return score


def models_of(functions: Sequence[RewardFunction]) -> tuple:
    """The models that reward functions ask, where they tell of them."""
    return tuple(model for function in functions for model in getattr(function, "models", ()))


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
        ValueError: if there are no parts, one is called "words", or `per_word` is below 0.
    """
    if "words" in parts:
        raise ValueError("the name 'words' is taken by the count of words; call that reward something else")
    if not parts:
        raise ValueError("there are no rewards to add up; name at least one")
    if per_word < 0:
        raise ValueError(f"per_word is at least 0; got {per_word}")

    def score(prompts: Sequence, completions: Sequence) -> Tensor:
        score.latest = {name: function(prompts, completions) for name, (_, function) in parts.items()}
        score.latest["words"] = torch.tensor([float(len(text_of(c).split())) for c in completions])
        total = -per_word * score.latest["words"]
        for name, (weight, _) in parts.items():
            total = total + weight * score.latest[name]
        return total

    score.latest, score.models = {}, models_of([function for _, function in parts.values()])
    return score


def text_of(completion) -> str:
    """The text of a completion, given as such or as chat messages."""
    return completion if isinstance(completion, str) else " ".join(message["content"] for message in completion)
