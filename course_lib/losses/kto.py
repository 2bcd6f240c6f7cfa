"""Kahneman-Tversky optimisation: single responses with a thumb up or down, no pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from course_lib.losses.checks import check_at_least_zero, check_beta, check_shapes, exact, reduce


def kto_loss(
    policy_logps: Tensor,
    ref_logps: Tensor,
    desirable: Tensor,
    kl_baseline: Tensor | float,
    *,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
    reduction: str = "mean",
) -> Tensor:
    """Kahneman-Tversky optimisation.

        h = logp_pi(y) - logp_ref(y)
        L = lambda_D * (1 - sigmoid(beta * (h - z0)))     where y is desirable
        L = lambda_U * (1 - sigmoid(beta * (z0 - h)))     where it is not

    A loss saturates on both sides: responses far above or far below the baseline z0 hardly move the policy.

    Args:
        policy_logps: (B,) summed log-probabilities of the responses under the policy.
        ref_logps: (B,) under the frozen reference.
        desirable: (B,) booleans, true for a thumb up.
        kl_baseline: z0, a scalar in nats, from `kto_kl_baseline`; no gradient flows through it.
        beta: strength of the pull towards the reference, above 0.
        desirable_weight: lambda_D, at least 0.
        undesirable_weight: lambda_U, at least 0; the paper balances the classes so that
            lambda_D * n_D / (lambda_U * n_U) lies in [1, 4/3].
        reduction: "mean", "sum" or "none".

    Returns:
        A scalar, or (B,) for "none"; each loss lies in [0, lambda].

    Raises:
        ValueError: for different shapes, an empty batch, a batch of one class only (its loss is met by moving
            all responses one way, whatever they say), beta or a weight out of range, or an unknown reduction.

    Source: Ethayarajh et al. 2024, KTO, equations 7 and 8.
    """
    check_beta(beta)
    check_at_least_zero(desirable_weight=desirable_weight, undesirable_weight=undesirable_weight)
    check_shapes(policy_logps=policy_logps, ref_logps=ref_logps, desirable=desirable)
    desirable = desirable.bool()
    if desirable.all() or not desirable.any():
        which = "desirable" if desirable.any() else "undesirable"
        raise ValueError(f"all responses of the batch are {which}; KTO needs both classes in every batch")
    policy_logps, ref_logps = exact(policy_logps, ref_logps)
    baseline = torch.as_tensor(kl_baseline, dtype=policy_logps.dtype, device=policy_logps.device).detach()
    if baseline.numel() != 1:
        raise ValueError(f"kl_baseline is one number for the batch; got shape {tuple(baseline.shape)}")
    distance = policy_logps - ref_logps - baseline.reshape(())
    up = desirable_weight * torch.sigmoid(-beta * distance)
    down = undesirable_weight * torch.sigmoid(beta * distance)
    return reduce(torch.where(desirable, up, down), reduction)


def kto_kl_baseline(policy_mismatched_logps: Tensor, ref_mismatched_logps: Tensor) -> Tensor:
    """KTO's reference point: an estimate of the KL between policy and reference, from mismatched pairs.

        z0 = max(0, mean_b( logp_pi(y_{b+1} | x_b) - logp_ref(y_{b+1} | x_b) ))

    Each prompt is paired with another row's response. The estimate is biased, because the responses are
    not the policy's samples; it is a reference point, not a penalty, and carries no gradient.

    Args:
        policy_mismatched_logps: (B,) summed log-probabilities of the mismatched responses under the policy.
        ref_mismatched_logps: (B,) under the frozen reference.

    Returns:
        A detached scalar in nats, at least 0.

    Raises:
        ValueError: for different shapes or an empty batch.

    Source: Ethayarajh et al. 2024, KTO, section 4.1.
    """
    check_shapes(policy_mismatched_logps=policy_mismatched_logps, ref_mismatched_logps=ref_mismatched_logps)
    policy, ref = exact(policy_mismatched_logps.detach(), ref_mismatched_logps.detach())
    return (policy - ref).mean().clamp(min=0)
