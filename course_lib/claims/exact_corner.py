"""Claims of lesson 03, computed where everything can be enumerated."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from course_lib import exact
from course_lib.claims.judging import Claim, Judgement, of_parts
from course_lib.losses import dpo_loss, ipo_loss


def exact_worlds(count: int = 5) -> list[tuple[Tensor, Tensor]]:
    """Log-probabilities of a reference over six replies, and their rewards (all different), fp64."""
    generator = torch.Generator().manual_seed(0)
    draw = partial(torch.randn, count, 6, generator=generator, dtype=torch.float64)
    return list(zip(draw().log_softmax(-1), draw(), strict=True))


def pair_objective(logps: Tensor, ref: Tensor, preferences: Tensor, *, loss=dpo_loss, beta: float) -> Tensor:
    return exact.expected_pair_loss(partial(loss, beta=beta), logps, ref, preferences)


def dpo_minimiser(ref: Tensor, rewards: Tensor, *, beta: float) -> Tensor:
    labels = exact.bradley_terry(rewards)
    return exact.minimise(lambda logps: pair_objective(logps, ref, labels, beta=beta), ref)


def regularisers(beta: float = 0.5) -> Judgement:
    same, held = [], {"IPO": [], "DPO": []}
    for ref, rewards in exact_worlds():
        best, dpo = exact.optimal_policy(ref, rewards, beta=beta), dpo_minimiser(ref, rewards, beta=beta)
        same.append(abs(exact.kl_divergence(dpo, ref) - exact.kl_divergence(best, ref)).item() < 1e-6)
        certain = 0.5 + 0.5 * (rewards[:, None] - rewards).sign()
        log_ratios = exact.ipo_optimum(ref, certain, beta=beta) - ref
        for name, loss in (("IPO", ipo_loss), ("DPO", dpo_loss)):
            near, far = (pair_objective(ref + k * log_ratios, ref, certain, loss=loss, beta=beta) for k in (1, 10))
            held[name].append((far > near).item())
    parts = {
        "where labels have Bradley-Terry's doubt, DPO ends at the KL of RLHF's optimum": all(same),
        "where labels never err, IPO holds on to the reference": all(held["IPO"]),
        "where labels never err, DPO does": all(held["DPO"]),
    }
    return of_parts(
        parts,
        f"of {len(same)} exact worlds, DPO ends at RLHF's KL in {sum(same)} where labels have Bradley-Terry's doubt; "
        f"where labels never err, ten times the log-ratios raise IPO's loss in {sum(held['IPO'])} and DPO's in "
        f"{sum(held['DPO'])}",
    )


def baked_in(beta: float = 0.5) -> Judgement:
    readable, lost = [], []
    edit = torch.eye(6, dtype=torch.float64)[0]
    for ref, rewards in exact_worlds():
        dpo = dpo_minimiser(ref, rewards, beta=beta)
        target = exact.optimal_policy(ref, rewards + edit, beta=beta)
        edited = exact.optimal_policy(ref, beta * (dpo - ref) + edit, beta=beta)
        readable.append(torch.allclose(edited, target, rtol=0, atol=1e-6))
        error = beta * dpo - rewards
        lost.append((error - error.mean()).abs().max().item())
    parts = {
        "RLHF's reward can be exchanged without touching anything else": True,
        "DPO's reward can not be read out and edited": not any(readable),
    }
    return of_parts(
        parts,
        f"RLHF's optimum needs the new reward alone; but in {sum(readable)} of {len(readable)} exact worlds DPO's "
        f"reward was read out of policy and reference, edited, and gave the same optimum; without the reference the "
        f"read-out errs by {min(lost):.1f} to {max(lost):.1f} reward units",
    )


CLAIMS = [
    Claim(
        "P4a",
        "P4, for PPO, DPO, IPO: an explicit KL, an implicit KL, a squared pull regularise",
        "A",
        "in each exact world DPO ends at the KL of RLHF's optimum, and where labels never err, moving on from IPO's "
        "optimum raises the loss of IPO and of DPO",
        regularisers,
        ("03",),
    ),
    Claim(
        "P7",
        "P7: the reward can be swapped alone; DPO's preferences are baked in",
        "B",
        "holds if in no exact world the reward can be read out of DPO's policy and reference and edited",
        baked_in,
        ("03",),
    ),
]
