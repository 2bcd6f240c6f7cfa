"""Losses on preference pairs. All take log-probabilities of whole completions, in nats."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from course_lib.losses.checks import check_beta, check_shapes, reduce


def dpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Tensor:
    """Direct preference optimisation.

        h = (logp_pi(y_w) - logp_ref(y_w)) - (logp_pi(y_l) - logp_ref(y_l))
        L = - (1 - eps) * ln sigmoid(beta * h) - eps * ln sigmoid(-beta * h)

    with eps = `label_smoothing`; eps = 0 is DPO, eps > 0 is conservative DPO, which takes that share of
    the labels for wrong. At the start, where policy and reference are one, L = ln 2.

    Args:
        policy_chosen_logps: (B,) summed log-probabilities of the chosen responses under the policy.
        policy_rejected_logps: (B,) the same of the rejected responses.
        ref_chosen_logps: (B,) under the frozen reference.
        ref_rejected_logps: (B,) under the frozen reference.
        beta: strength of the pull towards the reference, above 0.
        label_smoothing: share of labels taken for wrong, from 0 to below 0.5.
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar in nats, or (B,) for "none".

    Raises:
        ValueError: for different shapes, an empty batch, beta or label_smoothing out of range, or an
            unknown reduction.

    Source: Rafailov et al. 2023, equation 7; label smoothing: Mitchell 2023, A note on DPO with noisy
    preferences, equation 3.
    """
    check_beta(beta)
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing is a share of wrong labels, from 0 to below 0.5; got {label_smoothing}")
    logits = beta * _log_ratio_difference(
        policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps
    )
    losses = -F.logsigmoid(logits)
    if label_smoothing:
        losses = (1 - label_smoothing) * losses - label_smoothing * F.logsigmoid(-logits)
    return reduce(losses, reduction)


def implicit_reward(policy_logps: Tensor, ref_logps: Tensor, *, beta: float = 0.1) -> Tensor:
    """The reward that a policy expresses by having moved away from its reference.

        r_hat(x, y) = beta * (logp_pi(y|x) - logp_ref(y|x))

    It equals the true reward up to beta * ln Z(x), which depends on the prompt alone and so cancels in
    every pair.

    Args:
        policy_logps: (B,) summed log-probabilities under the policy.
        ref_logps: (B,) under the reference.
        beta: strength of the pull towards the reference, above 0.

    Returns:
        Tensor (B,) in reward units.

    Raises:
        ValueError: for different shapes, an empty batch, or beta out of range.

    Source: Rafailov et al. 2023, equation 5.
    """
    check_beta(beta)
    check_shapes(policy_logps=policy_logps, ref_logps=ref_logps)
    return beta * (policy_logps - ref_logps)


def _log_ratio_difference(policy_chosen, policy_rejected, ref_chosen, ref_rejected) -> Tensor:
    """`h` of the formulas: the chosen response's log-ratio less the rejected one's, shape (B,)."""
    check_shapes(
        policy_chosen_logps=policy_chosen,
        policy_rejected_logps=policy_rejected,
        ref_chosen_logps=ref_chosen,
        ref_rejected_logps=ref_rejected,
    )
    return (policy_chosen - ref_chosen) - (policy_rejected - ref_rejected)
