"""Supervised fine-tuning: the negative log-likelihood of completion tokens."""

from __future__ import annotations

from torch import Tensor

from course_lib.losses.checks import check_reduction, check_shapes


def sft_loss(logps: Tensor, mask: Tensor, *, reduction: str = "mean") -> Tensor:
    """Negative log-likelihood of the completion tokens.

        L = - sum_bt mask[b,t] * logps[b,t] / sum_bt mask[b,t]

    The mean runs over all completion tokens of the batch, so a long completion weighs more than a short
    one. It equals `cross_entropy` with the labels of prompt and padding set to -100.

    Args:
        logps: (B, T) log-probabilities in nats, from `completion_logps`.
        mask: (B, T), true at completion tokens.
        reduction: "mean" over tokens, "sum" over tokens, or "none": one sum a sequence, shape (B,).

    Returns:
        A scalar in nats (a token, for "mean"), or (B,) for "none".

    Raises:
        ValueError: for different shapes, a sequence without completion token, or an unknown reduction.

    Source: Ouyang et al. 2022, Training language models to follow instructions, section 3.5.
    """
    check_reduction(reduction)
    check_shapes(logps=logps, mask=mask)
    mask = mask.bool()
    empty = (~mask.any(dim=-1)).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"sequences {empty} have no completion token; give each a completion")
    nll = -logps.masked_fill(~mask, 0.0).sum(dim=-1)
    if reduction == "none":
        return nll
    return nll.sum() / mask.sum() if reduction == "mean" else nll.sum()
