"""On-policy RL on sampled completions: shaped rewards, advantages, clipped losses, KL estimates."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from course_lib.losses.checks import (
    check_at_least_zero,
    check_clip_range,
    check_mask,
    check_shapes,
    exact,
    reduce,
    reduce_tokens,
)

KL_ESTIMATORS = ("k1", "k2", "k3")


def kl_estimate(policy_logps: Tensor, ref_logps: Tensor, *, estimator: str = "k1") -> Tensor:
    """KL(policy || reference), estimated at samples of the policy, element by element.

        d = ln pi - ln ref
        k1 = d                   unbiased, may be negative
        k2 = d^2 / 2             biased, never negative
        k3 = exp(-d) - 1 + d     unbiased, never negative

    Args:
        policy_logps: log-probabilities of sampled tokens or sequences under the policy, any shape.
        ref_logps: under the reference, the same shape.
        estimator: "k1", "k2" or "k3".

    Returns:
        Estimates in nats, of that shape. k3 overflows to infinity below d = -88 (fp32).

    Raises:
        ValueError: for different shapes or an unknown estimator.

    Source: Schulman 2020, Approximating KL divergence.
    """
    if estimator not in KL_ESTIMATORS:
        raise ValueError(f"estimator is one of {', '.join(KL_ESTIMATORS)}; got {estimator!r}")
    check_shapes(policy_logps=policy_logps, ref_logps=ref_logps)
    policy_logps, ref_logps = exact(policy_logps, ref_logps)
    difference = policy_logps - ref_logps
    if estimator == "k1":
        return difference
    return difference**2 / 2 if estimator == "k2" else torch.expm1(-difference) + difference


def kl_shaped_rewards(
    scores: Tensor,
    policy_logps: Tensor,
    ref_logps: Tensor,
    mask: Tensor,
    *,
    kl_coefficient: float = 0.05,
    estimator: str = "k1",
) -> Tensor:
    """Per-token rewards: a KL penalty at every token, the sequence's score at its last completion token.

        r_t = - kl_coefficient * k_t + [t is last] * score,       k1_t = ln pi(y_t) - ln ref(y_t)

    Args:
        scores: (B,) reward of each completion.
        policy_logps: (B, T) log-probabilities of the sampled tokens under the policy that sampled them.
        ref_logps: (B, T) under the reference.
        mask: (B, T), true at completion tokens.
        kl_coefficient: price of a nat, at least 0.
        estimator: of the KL, as in `kl_estimate`. Only k1 keeps the objective that of RLHF: it sums to the log-ratio.

    Returns:
        Tensor (B, T) in reward units, detached, zero outside the mask.

    Raises:
        ValueError: for shapes that do not match, a completion without token, or a negative coefficient.

    Source: Ouyang et al. 2022, equation 2; Stiennon et al. 2020, section 3.4.
    """
    check_at_least_zero(kl_coefficient=kl_coefficient)
    check_shapes(policy_logps=policy_logps, ref_logps=ref_logps, mask=mask)
    check_shapes(scores=scores, sequences=mask[:, 0])
    mask = check_mask(mask)
    scores, policy_logps, ref_logps = exact(scores.detach(), policy_logps.detach(), ref_logps.detach())
    inside = [t.masked_fill(~mask, 0.0) for t in (policy_logps, ref_logps)]
    rewards = -kl_coefficient * kl_estimate(*inside, estimator=estimator)
    last = mask.shape[1] - 1 - mask.flip(1).int().argmax(dim=1)
    return rewards.scatter_add(1, last.unsqueeze(1), scores.unsqueeze(1).to(rewards.dtype))


def generalized_advantage_estimate(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float = 1.0, lam: float = 0.95
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation over completion tokens.

        delta_t = r_t + gamma * V_{t+1} - V_t            V = 0 after the last completion token
        A_t = delta_t + gamma * lam * A_{t+1},           returns_t = A_t + V_t

    Tokens outside the mask are skipped: the token after one is the next token of the mask.

    Args:
        rewards: (B, T) from `kl_shaped_rewards`.
        values: (B, T) the critic's value before each token, in reward units.
        mask: (B, T), true at completion tokens.
        gamma: discount, in [0, 1].
        lam: trade of bias (0) against variance (1), in [0, 1].

    Returns:
        `(advantages, returns)`, both (B, T), detached, zero outside the mask.

    Raises:
        ValueError: for different shapes, or gamma or lam outside [0, 1].

    Source: Schulman et al. 2016, equation 16.
    """
    if not (0 <= gamma <= 1 and 0 <= lam <= 1):
        raise ValueError(f"gamma and lam lie between 0 and 1; got {gamma} and {lam}")
    check_shapes(rewards=rewards, values=values, mask=mask)
    mask = check_mask(mask)
    rewards, values = exact(rewards.detach(), values.detach())
    advantages = torch.zeros_like(values)
    next_value = next_advantage = torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        advantage = delta + gamma * lam * next_advantage
        next_value = torch.where(mask[:, t], values[:, t], next_value)
        next_advantage = torch.where(mask[:, t], advantage, next_advantage)
        advantages[:, t] = advantage
    advantages = advantages.masked_fill(~mask, 0.0)
    return advantages, (advantages + values).masked_fill(~mask, 0.0)


def whiten(values: Tensor, mask: Tensor, *, shift_mean: bool = True) -> Tensor:
    """Values scaled to unit variance over the mask, and to mean zero unless told otherwise.

        (v - mean) / sqrt(var + 1e-8)     (+ mean, if not shift_mean)

    Args:
        values: (B, T).
        mask: (B, T), true where values count.
        shift_mean: move the mean to zero (advantages) or keep it (rewards).

    Returns:
        Tensor (B, T), zero outside the mask. The variance has Bessel's correction; one value alone becomes 0.

    Raises:
        ValueError: for different shapes or an empty mask.

    Source: Ziegler et al. 2019, released code.
    """
    check_shapes(values=values, mask=mask)
    (values,), mask = exact(values), mask.bool()
    if not mask.any():
        raise ValueError("the mask is empty, so there is no mean; give it at least one value")
    mean = values[mask].mean()
    centred = values - mean
    centred = centred - centred[mask].mean()  # once more: the mean of large equal values rounds
    variance = (centred[mask] ** 2).sum() / max(1, int(mask.sum()) - 1)
    whitened = centred * torch.rsqrt(variance + 1e-8)
    return (whitened if shift_mean else whitened + mean).masked_fill(~mask, 0.0)


def ppo_policy_loss(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_range: float = 0.2,
    reduction: str = "mean",
) -> Tensor:
    """PPO's clipped surrogate.

        rho_t = exp(logps_t - old_logps_t)
        L_t = - min( rho_t * A_t, clip(rho_t, 1 - eps, 1 + eps) * A_t )

    Args:
        logps: (B, T) log-probabilities of the sampled tokens under the policy.
        old_logps: (B, T) under the policy that sampled them.
        advantages: (B, T), usually whitened.
        mask: (B, T), true at completion tokens.
        clip_range: eps, above 0 and below 1.
        reduction: "mean" over all tokens of the batch, "sum", or "none": (B, T), zero outside the mask.

    Returns:
        A scalar in units of the advantages, or (B, T) for "none".

    Raises:
        ValueError: for different shapes, a completion without token, clip_range out of range, or an unknown
            reduction.

    Source: Schulman et al. 2017, equation 7.
    """
    check_shapes(logps=logps, old_logps=old_logps, advantages=advantages, mask=mask)
    mask = check_mask(mask)
    return reduce_tokens(clipped_surrogate(logps, old_logps, advantages, mask, clip_range, clip_range), mask, reduction)


def ppo_value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    *,
    clip_range: float = 0.2,
    reduction: str = "mean",
) -> Tensor:
    """PPO's clipped value loss.

        V_clip = old + clip(V - old, -eps, eps)
        L_t = max( (V - R)^2, (V_clip - R)^2 ) / 2

    Args:
        values: (B, T) of the critic.
        old_values: (B, T) of the critic at the time of the rollout.
        returns: (B, T) from `generalized_advantage_estimate`.
        mask: (B, T), true at completion tokens.
        clip_range: eps in reward units, above 0; infinity leaves values free.
        reduction: "mean" over all tokens of the batch, "sum", or "none": (B, T), zero outside the mask.

    Returns:
        A scalar in squared reward units, or (B, T) for "none".

    Raises:
        ValueError: as `ppo_policy_loss`; for a clip_range that is not above 0.

    Source: Ziegler et al. 2019, released code; Schulman et al. 2017 has it unclipped (equation 9).
    """
    if not clip_range > 0:
        raise ValueError(f"clip_range is how far a value may move, in reward units, above 0; got {clip_range}")
    check_shapes(values=values, old_values=old_values, returns=returns, mask=mask)
    mask = check_mask(mask)
    values, old_values, returns = (t.masked_fill(~mask, 0.0) for t in exact(values, old_values, returns))
    clipped = old_values + (values - old_values).clamp(-clip_range, clip_range)
    losses = torch.maximum((values - returns) ** 2, (clipped - returns) ** 2) / 2
    return reduce_tokens(losses, mask, reduction)


def rloo_advantages(scores: Tensor) -> Tensor:
    """REINFORCE leave-one-out: each sample's score less the mean of the others of its prompt.

        A_i = s_i - mean_{j != i} s_j

    Args:
        scores: (prompts, group) rewards of several samples a prompt, at least two.

    Returns:
        Tensor (prompts, group), detached.

    Raises:
        ValueError: for other shapes, or groups of one.

    Source: Ahmadian et al. 2024, Back to basics, section 3.2; Kool et al. 2019.
    """
    centred = _centred_groups(scores)
    size = scores.shape[1]
    return centred * (size / (size - 1))


def grpo_advantages(scores: Tensor, *, scale: bool = True) -> Tensor:
    """Group-relative advantages.

        A_i = (s_i - mean s) / (std s + 1e-4)          without the division where not `scale`

    The standard deviation has Bessel's correction. `scale=False` is the "Dr. GRPO" form: it does not favour
    the prompts on which all samples are about equally good.

    Args:
        scores: (prompts, group) rewards of several samples a prompt, at least two.
        scale: divide by the group's standard deviation.

    Returns:
        Tensor (prompts, group), detached.

    Raises:
        ValueError: for other shapes, or groups of one.

    Source: Shao et al. 2024, DeepSeekMath, section 4.1.2; Liu et al. 2025, Understanding R1-Zero-like training.
    """
    centred = _centred_groups(scores)
    return centred / (centred.std(dim=1, keepdim=True) + 1e-4) if scale else centred


def grpo_loss(
    logps: Tensor,
    old_logps: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    ref_logps: Tensor | None = None,
    beta: float = 0.0,
    clip_range: float = 0.2,
    clip_range_high: float | None = None,
    normalise: str | float = "completion",
    kl_estimator: str = "k3",
    reduction: str = "mean",
) -> Tensor:
    """Group-relative policy optimisation: PPO's surrogate with one advantage a sequence, and the KL inside the loss.

        l_t = - min(rho_t * A_b, clip(rho_t, 1 - eps, 1 + eps) * A_b) + beta * k_t

        "completion":  L = mean_b( mean_t l_t )          the paper's; a token of a long answer counts less
        "token":       L = sum_b sum_t l_t / tokens      DAPO's
        a number n:    L = mean_b( sum_t l_t / n )       Dr. GRPO's, with n the most tokens that are drawn

    Args:
        logps: (B, T) log-probabilities of the sampled tokens under the policy.
        old_logps: (B, T) under the policy that sampled them.
        advantages: (B,), one a sequence, or (B, T).
        mask: (B, T), true at completion tokens.
        ref_logps: (B, T) under the reference; needed for beta above 0.
        beta: weight of the KL estimate, at least 0.
        clip_range: eps, above 0 and below 1.
        clip_range_high: how far a ratio above 1 counts (DAPO: 0.28); by default as far as one below.
        normalise: "completion", "token", or a number above 0.
        kl_estimator: "k3" or "k2"; see `kl_estimate`.
        reduction: "mean" as above, "sum" over sequences of what is divided for each ("token" divides nothing), or
            "none": (B,).

    Returns:
        A scalar, or (B,) for "none".

    Raises:
        ValueError: for shapes that do not match, a completion without token, beta above 0 without reference, a
            setting out of range, or an unknown reduction.

    Sources: Shao et al. 2024, DeepSeekMath, equations 3 and 4; Yu et al. 2025, DAPO, equation 8; Liu et al. 2025,
    Understanding R1-zero-like training, section 3.
    """
    check_at_least_zero(beta=beta)
    number = isinstance(normalise, int | float) and not isinstance(normalise, bool) and 0 < normalise < math.inf
    if normalise not in ("completion", "token") and not number:
        raise ValueError(f"normalise is 'completion', 'token' or a number above 0; got {normalise!r}")
    if kl_estimator not in ("k2", "k3"):
        raise ValueError(f"in the loss k1 pulls nowhere: kl_estimator is 'k2' or 'k3'; got {kl_estimator!r}")
    check_shapes(logps=logps, old_logps=old_logps, mask=mask)
    if advantages.dim() == 1:
        check_shapes(advantages=advantages, sequences=logps[:, 0])
        advantages = advantages.unsqueeze(1).expand_as(logps)
    check_shapes(logps=logps, advantages=advantages, ref_logps=logps if ref_logps is None else ref_logps)
    (logps,), mask = exact(logps), check_mask(mask)
    high = clip_range if clip_range_high is None else clip_range_high
    losses = clipped_surrogate(logps, old_logps, advantages, mask, clip_range, high)
    if beta:
        if ref_logps is None:
            raise ValueError("beta above 0 asks for a KL term; pass ref_logps, or beta=0")
        inside = [t.masked_fill(~mask, 0.0) for t in (logps, ref_logps)]
        losses = losses + beta * kl_estimate(*inside, estimator=kl_estimator)
    if normalise == "token":
        return reduce_tokens(losses, mask, reduction) if reduction == "mean" else reduce(losses.sum(dim=1), reduction)
    return reduce(losses.sum(dim=1) / (mask.sum(dim=1) if normalise == "completion" else normalise), reduction)


def clipped_surrogate(logps, old_logps, advantages, mask, clip_range: float, clip_range_high: float) -> Tensor:
    """- min(rho * A, clip(rho, 1 - clip_range, 1 + clip_range_high) * A), (B, T), zero outside the mask.

    For A >= 0 only the upper bound can bind, for A < 0 only the lower. Clamping the logarithm before `exp`
    keeps an overflowing ratio from meeting a zero gradient, which is NaN; so does the mask.
    """
    check_clip_range(clip_range)
    if not 0 < clip_range_high < math.inf:
        raise ValueError(f"clip_range_high is how far a ratio above 1 counts, above 0; got {clip_range_high}")
    logps, old_logps, advantages = exact(logps, old_logps.detach(), advantages.detach())
    log_ratio = (logps - old_logps).masked_fill(~mask, 0.0)
    upper, lower = log_ratio.clamp(max=math.log1p(clip_range_high)), log_ratio.clamp(min=math.log1p(-clip_range))
    losses = -advantages * torch.where(advantages >= 0, upper, lower).exp()
    return losses.masked_fill(~mask, 0.0)


def _centred_groups(scores: Tensor) -> Tensor:
    """Scores less the mean of their prompt; centred twice, because the mean of large equal scores rounds."""
    if scores.dim() != 2 or scores.shape[1] < 2:
        raise ValueError(f"scores are (prompts, group) with at least two samples a prompt; got {tuple(scores.shape)}")
    (scores,) = exact(scores.detach())
    centred = scores - scores.mean(dim=1, keepdim=True)
    return centred - centred.mean(dim=1, keepdim=True)
