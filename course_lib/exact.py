"""The exact corner: policies over a handful of responses, where optimum, partition function and KL are sums.

A policy is a tensor of log-probabilities (..., K) over K responses to a prompt; leading dimensions are
prompts. Nothing here knows a model: it is where the theory behind the losses is checked to machine precision.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def log_partition(ref_logps: Tensor, rewards: Tensor, *, beta: float) -> Tensor:
    """ln Z(x) = ln sum_y ref(y|x) exp(r(x,y) / beta).

    Args:
        ref_logps: (..., K) log-probabilities of the reference, nats.
        rewards: (..., K).
        beta: price of a nat of KL in reward units, above 0.

    Returns:
        Tensor (...,), nats.

    Raises:
        ValueError: for different shapes or beta out of range.

    Source: Rafailov et al. 2023, equation 4.
    """
    _check(beta, ref_logps=ref_logps, rewards=rewards)
    return torch.logsumexp(ref_logps + rewards / beta, dim=-1)


def optimal_policy(ref_logps: Tensor, rewards: Tensor, *, beta: float) -> Tensor:
    """The policy that maximises the RLHF objective: ln pi*(y|x) = ln ref(y|x) + r(x,y) / beta - ln Z(x).

    Args and errors as in `log_partition`. Returns log-probabilities (..., K).
    """
    normaliser = log_partition(ref_logps, rewards, beta=beta)
    return ref_logps + rewards / beta - normaliser.unsqueeze(-1)


def kl_divergence(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """KL(pi || ref) = sum_y pi(y) (ln pi(y) - ln ref(y)), shape (...,), nats; responses with pi(y) = 0 add nothing."""
    _check_shapes(logps=logps, ref_logps=ref_logps)
    terms = logps.exp() * (logps - ref_logps)
    return torch.where(logps == -torch.inf, 0.0, terms).sum(dim=-1)


def rlhf_objective(logps: Tensor, ref_logps: Tensor, rewards: Tensor, *, beta: float) -> Tensor:
    """J(pi) = E_pi[r] - beta * KL(pi || ref), shape (...,), reward units; its maximum is beta * ln Z.

    Args and errors as in `log_partition`, with `logps` (..., K) of the policy.
    """
    _check(beta, logps=logps, ref_logps=ref_logps, rewards=rewards)
    return (logps.exp() * rewards).sum(dim=-1) - beta * kl_divergence(logps, ref_logps)


def rlhf_gradient(logps: Tensor, ref_logps: Tensor, rewards: Tensor, *, beta: float) -> Tensor:
    """Gradient of the RLHF objective with respect to the policy's logits, (..., K), in closed form.

        A(y) = r(y) - beta * (ln pi(y) - ln ref(y)),   dJ / dlogit(y) = pi(y) * (A(y) - E_pi[A])

    The advantage over the mean is what a policy-gradient method estimates from samples.
    Args and errors as in `rlhf_objective`.
    """
    _check(beta, logps=logps, ref_logps=ref_logps, rewards=rewards)
    probabilities = logps.exp()
    advantage = torch.where(probabilities > 0, rewards - beta * (logps - ref_logps), 0.0)
    return probabilities * (advantage - (probabilities * advantage).sum(dim=-1, keepdim=True))


def bradley_terry(rewards: Tensor) -> Tensor:
    """P[..., i, j] = sigmoid(r_i - r_j), the probability that response i is preferred to j: (..., K, K)."""
    return torch.sigmoid(rewards.unsqueeze(-1) - rewards.unsqueeze(-2))


def expected_pair_loss(loss: Callable[..., Tensor], logps: Tensor, ref_logps: Tensor, preferences: Tensor) -> Tensor:
    """The mean of a pairwise loss over all pairs of responses, either order weighed by its probability.

        L(pi) = sum_{i != j} P[i, j] * loss(i chosen, j rejected) / (K (K - 1) / 2)

    Args:
        loss: a function of (policy_chosen, policy_rejected, ref_chosen, ref_rejected) log-probabilities
            (B,) with the keyword `reduction`, such as `partial(dpo_loss, beta=0.1)`.
        logps: (K,) log-probabilities of the policy.
        ref_logps: (K,) of the reference.
        preferences: (K, K), the probability that row is preferred to column.

    Returns:
        A scalar.

    Raises:
        ValueError: unless P[i, j] + P[j, i] = 1.
    """
    _check_shapes(logps=logps, ref_logps=ref_logps)
    _check_preferences(preferences, logps)
    size = len(logps)
    winner, loser = torch.nonzero(~torch.eye(size, dtype=torch.bool), as_tuple=True)
    losses = loss(logps[winner], logps[loser], ref_logps[winner], ref_logps[loser], reduction="none")
    return (preferences[winner, loser] * losses).sum() * 2 / (size * (size - 1))


def ipo_optimum(ref_logps: Tensor, preferences: Tensor, *, beta: float) -> Tensor:
    """The minimiser of IPO over all pairs, uniformly drawn: ln pi(y) = ln ref(y) + P(y beats a random one) / beta - c.

    P lies in [0, 1], so the log-ratios of two responses never differ by more than 1 / beta, however
    deterministic the preferences: what sets IPO apart from DPO.

    Args:
        ref_logps: (K,) log-probabilities of the reference.
        preferences: (K, K), the probability that row is preferred to column; 1/2 on the diagonal.
        beta: strength of the pull towards the reference (tau in the paper), above 0.

    Returns:
        Log-probabilities (K,).

    Raises:
        ValueError: unless P[i, j] + P[j, i] = 1, or for beta out of range.

    Source: Azar et al. 2023, equations 7 and 10.
    """
    _check_preferences(preferences, ref_logps)
    return optimal_policy(ref_logps, preferences.mean(dim=-1), beta=beta)


def minimise(objective: Callable[[Tensor], Tensor], start: Tensor, *, steps: int = 200) -> Tensor:
    """The log-probabilities that minimise `objective(logps)`, from those in `start`, by L-BFGS on the logits.

    The losses of DPO and IPO are convex in the logits, and their minimum is found to about ten digits. The RLHF
    objective is not: at small beta the search can stall where a rare response has all but vanished. Its optimum is
    known in closed form (`optimal_policy`).

    Args:
        objective: differentiable function of log-probabilities of the shape of `start`, returning a scalar.
        start: (..., K) log-probabilities, fp64 for more than six digits.
        steps: most iterations.

    Returns:
        Log-probabilities of that shape.

    Raises:
        ValueError: if the search ends where the objective is not finite or its gradient not zero (to the root of the
            type's precision), which is what a loss without minimum comes to.
    """
    logits = start.detach().clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [logits], max_iter=steps, tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = objective(logits.log_softmax(dim=-1))
        value.backward()
        return value

    optimizer.step(closure)
    value = closure()
    flat = logits.grad.abs().max() < torch.finfo(logits.dtype).eps ** 0.5
    if not (value.isfinite() and logits.isfinite().all() and flat):
        raise ValueError(f"found no minimum in {steps} steps; perhaps the objective has none")
    return logits.detach().log_softmax(dim=-1)


def _check(beta: float, **tensors: Tensor) -> None:
    _check_shapes(**tensors)
    if not 0 < beta < float("inf"):
        raise ValueError(f"beta must be above 0 and finite; got {beta}")


def _check_shapes(**tensors: Tensor) -> None:
    if len({t.shape for t in tensors.values()}) > 1:
        listed = ", ".join(f"{name} {tuple(t.shape)}" for name, t in tensors.items())
        raise ValueError(f"one value a response, so all of one shape: {listed}")


def _check_preferences(preferences: Tensor, logps: Tensor) -> None:
    if preferences.shape != (len(logps), len(logps)):
        raise ValueError(f"one preference for each two of {len(logps)} responses; got {tuple(preferences.shape)}")
    if not torch.allclose(preferences + preferences.T, torch.ones_like(preferences)):
        raise ValueError("preferences[i, j] + preferences[j, i] must be 1: one of two responses wins")
