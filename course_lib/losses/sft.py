"""Supervised fine-tuning: the negative log-likelihood of completion tokens."""

from __future__ import annotations

from torch import Tensor

from course_lib.losses.checks import check_mask, check_shapes, exact, reduce_tokens


def sft_loss(logps: Tensor, mask: Tensor, *, reduction: str = "mean") -> Tensor:
    """Negative log-likelihood of the completion tokens.

        L = - sum_bt mask[b,t] * logps[b,t] / sum_bt mask[b,t]

    The mean runs over all completion tokens of the batch, so a long completion weighs more than a short
    one. It equals `cross_entropy` with the labels of prompt and padding set to -100.

    Args:
        logps: (B, T) log-probabilities in nats, from `completion_logps`.
        mask: (B, T), true at completion tokens.
        reduction: "mean" over tokens, "sum" over tokens, or "none": (B, T), zero outside the mask.

    Returns:
        A scalar in nats (a token, for "mean"), or (B, T) for "none".

    Raises:
        ValueError: for different shapes, a sequence without completion token, or an unknown reduction.

    Source: Ouyang et al. 2022, Training language models to follow instructions, section 3.5.
    """
    check_shapes(logps=logps, mask=mask)
    (logps,) = exact(logps)
    return reduce_tokens(-logps, check_mask(mask), reduction)
