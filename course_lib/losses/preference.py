"""Losses on preference pairs that measure the policy against a frozen reference.

All take the log-probabilities of whole completions in nats, and all are functions of one number a pair,
the difference of log-ratios

    h = (logp_pi(y_w) - logp_ref(y_w)) - (logp_pi(y_l) - logp_ref(y_l))
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from course_lib.losses.checks import (
    check_at_least_zero,
    check_beta,
    check_lengths,
    check_shapes,
    check_smoothing,
    exact,
    reduce,
)


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
    """Direct preference optimisation, and with label smoothing conservative DPO (cDPO).

        L = - (1 - eps) * ln sigmoid(beta * h) - eps * ln sigmoid(-beta * h)

    with eps = `label_smoothing`; eps = 0 is DPO, eps > 0 takes that share of the labels for wrong, and
    its minimum lies at beta * h = ln((1 - eps) / eps) instead of at infinity. At the start, where policy
    and reference are one, L = ln 2.

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
    check_smoothing(label_smoothing)
    logits = beta * _log_ratio_difference(
        policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps
    )
    losses = -F.logsigmoid(logits)
    if label_smoothing:
        losses = (1 - label_smoothing) * losses - label_smoothing * F.logsigmoid(-logits)
    return reduce(losses, reduction)


def robust_dpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float = 0.1,
    label_smoothing: float,
    reduction: str = "mean",
) -> Tensor:
    """Robust DPO: an unbiased estimate of DPO's loss on clean labels, computed from noisy ones.

        L = ( - (1 - eps) * ln sigmoid(beta * h) + eps * ln sigmoid(-beta * h) ) / (1 - 2 * eps)

    Averaged over labels that are flipped with probability eps = `label_smoothing`, it equals DPO's loss on
    the true labels. Unlike cDPO it has no minimum: it grows without bound below zero as h grows.

    Args:
        policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps: (B,) as in `dpo_loss`.
        beta: strength of the pull towards the reference, above 0.
        label_smoothing: the known share of flipped labels, from 0 to below 0.5.
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar in nats, or (B,) for "none".

    Raises:
        ValueError: as `dpo_loss`; at a half the labels hold no information and the estimate does not exist.

    Source: Chowdhury et al. 2024, Provably robust DPO, equation 12.
    """
    check_beta(beta)
    check_smoothing(label_smoothing)
    logits = beta * _log_ratio_difference(
        policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps
    )
    clean, flipped = -F.logsigmoid(logits), -F.logsigmoid(-logits)
    losses = ((1 - label_smoothing) * clean - label_smoothing * flipped) / (1 - 2 * label_smoothing)
    return reduce(losses, reduction)


def ipo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    *,
    beta: float = 0.1,
    reduction: str = "mean",
) -> Tensor:
    """Identity preference optimisation: pull the difference of log-ratios to a fixed target.

        L = (h - 1 / (2 * beta))^2

    The minimum lies at h = 1 / (2 beta), so the margin stays bounded even where all labels agree. Articles
    that print a minus sign in front describe a loss without a minimum.

    Sums or token means: the paper's equation takes log-probabilities of whole responses, that is sums. TRL
    (since 0.8) divides each response's log-ratio by its number of tokens before the difference, and says
    that the paper's experiments did so. The two need different beta: with means the target 1 / (2 beta) is a
    margin a token. This function takes either; pass what you mean.

    Args:
        policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps: (B,) as in
            `dpo_loss`, all four summed or all four averaged over tokens.
        beta: strength of the pull towards the reference (tau in the paper), above 0.
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar in squared nats, or (B,) for "none".

    Raises:
        ValueError: for different shapes, an empty batch, beta out of range, or an unknown reduction.

    Source: Azar et al. 2023, A general theoretical paradigm to understand learning from human
    preferences, equation 17.
    """
    check_beta(beta)
    h = _log_ratio_difference(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps)
    return reduce((h - 1 / (2 * beta)) ** 2, reduction)


def length_dpo_loss(
    policy_chosen_logps: Tensor,
    policy_rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    chosen_lengths: Tensor,
    rejected_lengths: Tensor,
    *,
    beta: float = 0.1,
    length_penalty: float = 0.01,
    reduction: str = "mean",
) -> Tensor:
    """Length-regularised DPO (R-DPO): DPO for the reward r(x, y) - alpha * |y|.

        L = - ln sigmoid(beta * h + alpha * (|y_w| - |y_l|))

    with alpha = `length_penalty`. What length already explains of a label, the policy need not: where the chosen
    response is longer, the margin starts larger and the gradient is smaller. The sign follows from putting
    the penalised reward into the closed-form optimum; with the other sign the term would reward length.

    Args:
        policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps: (B,) as in `dpo_loss`.
        chosen_lengths, rejected_lengths: (B,) completion tokens, EOS included, at least 1.
        beta: strength of the pull towards the reference, above 0.
        length_penalty: reward units that a token costs, at least 0; 0 is DPO.
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar in nats, or (B,) for "none".

    Raises:
        ValueError: as `dpo_loss`, and for a length below 1 or a negative penalty.

    Source: Park et al. 2024, Disentangling length from quality in DPO, equation 9.
    """
    check_beta(beta)
    check_at_least_zero(length_penalty=length_penalty)
    check_shapes(policy=policy_chosen_logps, chosen_lengths=chosen_lengths, rejected_lengths=rejected_lengths)
    check_lengths(chosen_lengths=chosen_lengths, rejected_lengths=rejected_lengths)
    h = _log_ratio_difference(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps)
    return reduce(-F.logsigmoid(beta * h + length_penalty * (chosen_lengths - rejected_lengths)), reduction)


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
    policy_logps, ref_logps = exact(policy_logps, ref_logps)
    return beta * (policy_logps - ref_logps)


def _log_ratio_difference(policy_chosen, policy_rejected, ref_chosen, ref_rejected) -> Tensor:
    """`h` of the formulas: the chosen response's log-ratio less the rejected one's, shape (B,)."""
    check_shapes(
        policy_chosen_logps=policy_chosen,
        policy_rejected_logps=policy_rejected,
        ref_chosen_logps=ref_chosen,
        ref_rejected_logps=ref_rejected,
    )
    policy_chosen, policy_rejected, ref_chosen, ref_rejected = exact(
        policy_chosen, policy_rejected, ref_chosen, ref_rejected
    )
    return (policy_chosen - ref_chosen) - (policy_rejected - ref_rejected)
