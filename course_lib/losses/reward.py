"""Reward modelling: the likelihood of observed preferences under Bradley-Terry."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from course_lib.losses.checks import check_at_least_zero, check_shapes, exact, reduce


def bradley_terry_loss(
    chosen_rewards: Tensor,
    rejected_rewards: Tensor,
    *,
    margin: Tensor | None = None,
    center_coefficient: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """Negative log-likelihood of the labels under Bradley-Terry.

        L = - ln sigmoid(r_w - r_l - margin) + center_coefficient * (r_w + r_l)^2

    Only differences of rewards are identified; the second term fixes their free constant near zero.

    Args:
        chosen_rewards: (B,) rewards of the preferred responses.
        rejected_rewards: (B,) rewards of the others.
        margin: (B,), how much better each chosen response was judged, in reward units (Llama 2, equation 2).
        center_coefficient: weight of the centring term (Eisenstein et al. 2023, section 3.1), at least 0.
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar in nats, or (B,) for "none"; ln 2 where both rewards are equal.

    Raises:
        ValueError: for different shapes, an empty batch, a negative coefficient, or an unknown reduction.

    Source: Ouyang et al. 2022, equation 1.
    """
    check_shapes(chosen_rewards=chosen_rewards, rejected_rewards=rejected_rewards)
    check_at_least_zero(center_coefficient=center_coefficient)
    chosen_rewards, rejected_rewards = exact(chosen_rewards, rejected_rewards)
    difference = chosen_rewards - rejected_rewards
    if margin is not None:
        check_shapes(chosen_rewards=chosen_rewards, margin=margin)
        difference = difference - margin
    losses = -F.logsigmoid(difference)
    if center_coefficient:
        losses = losses + center_coefficient * (chosen_rewards + rejected_rewards) ** 2
    return reduce(losses, reduction)
