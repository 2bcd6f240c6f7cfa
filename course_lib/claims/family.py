"""Claims of lesson 06: by autograd, and from the results of `experiments/family.py`."""

from __future__ import annotations

from functools import partial
from statistics import fmean

import torch

from course_lib.claims.judging import (
    GOLD,
    HOLDS,
    TOKENS,
    Claim,
    Judgement,
    Part,
    contrast,
    in_gold,
    of_contrasts,
    of_parts,
)
from course_lib.claims.results import seeds
from course_lib.losses import kto_loss, simpo_loss

NAMES = {"dpo": "DPO", "kto": "KTO", "ipo": "IPO", "simpo": "SimPO"}


def regularisers(beta: float = 0.1, flipped: float = 0.3) -> Judgement:
    h = torch.tensor([50.0], dtype=torch.float64, requires_grad=True)
    thumbs, ref, length = torch.tensor([True, False]), torch.zeros(2, dtype=torch.float64), torch.tensor([20])
    losses = {
        "KTO": lambda h: kto_loss(torch.cat([h, -h]) / 2, ref, thumbs, 0.0, beta=beta),
        "SimPO": lambda h: simpo_loss(h / 2 - 30, -h / 2 - 30, length, length),
    }
    held = {}
    for name, loss in losses.items():
        for labels, share in (("certain labels", 0.0), (f"{flipped:.0%} flipped", flipped)):
            (slope,) = torch.autograd.grad((1 - share) * loss(h) + share * loss(-h), h)
            held[f"{name}, {labels}"] = slope.item() > 0
    return of_parts(
        {f"{case}: the loss pulls back": is_held for case, is_held in held.items()},
        f"the slope of the loss at a difference of log-ratios of {h.item():.0f} nats",
    )


TOGETHER = partial(contrast, claims=10)  # this experiment's contrasts: R2a 1, R2b 4, R3 5


def column(labels: str, method: str, figure: str = "gold_sampled") -> list[float]:
    return [run[labels][method][figure] for run in seeds("family")]


def lost(method: str, figure: str = "gold_sampled") -> list[float]:
    """Gold reward that flipped labels cost, a value a seed."""
    return [a - b for a, b in zip(column("clean", method, figure), column("noisy", method, figure), strict=True)]


def noise_order() -> Judgement:
    claimed = [("dpo", "kto"), ("dpo", "ipo"), ("dpo", "simpo"), ("kto", "ipo"), ("kto", "simpo")]
    parts = [
        in_gold(f"{NAMES[a]} loses more than {NAMES[b]}", partial(lost, a), partial(lost, b), TOGETHER)
        for a, b in claimed
    ]
    judged = of_contrasts(*parts)
    means = ", ".join(f"{NAMES[method]} {fmean(lost(method)):.2f}" for method in NAMES)
    return judged._replace(figure=f"gold reward lost to 30% flipped labels: {means}. {judged.figure}")


def longer(method: str) -> list[float]:
    """Tokens per reply that labels with a liking for length add, a value a seed; length-dpo against DPO's fair arm."""
    fair = "dpo" if method == "length-dpo" else method
    return [a - b for a, b in zip(column("long", method, "tokens"), column("clean", fair, "tokens"), strict=True)]


def grows(says: str, method: str, *, absent: bool = False) -> Part:
    tokens = longer(method)
    return Part(says, TOGETHER(tokens, [0.0] * len(tokens), margin=TOKENS), absent=absent)


def learns_length() -> Judgement:
    return of_contrasts(grows("DPO's replies grow where labels like length", "dpo"))


def normalisation_cures() -> Judgement:
    parts = []
    for method, name in (("simpo", "SimPO"), ("dpo-mean", "DPO on token means")):
        less = TOGETHER(longer("dpo"), longer(method), margin=TOKENS)
        parts += [Part(f"{name} grows less than DPO", less), grows(f"{name} does not grow", method, absent=True)]
    judged = of_contrasts(*parts)
    means = ", ".join(f"{name} {fmean(longer(name)):+.1f}" for name in ("dpo", "dpo-mean", "simpo", "length-dpo"))
    return judged._replace(figure=f"tokens per reply that such labels add: {means}. {judged.figure}")


def standing(labels: str) -> tuple[str, list[str], list[str]]:
    """The method with the highest mean gold reward on some labels, those that cannot be told from it, those behind.

    The best is chosen by the same runs, so this is a hint and no claim; the intervals allow for these comparisons.
    """
    scores = {method: column(labels, method) for method in seeds("family")[0][labels]}
    best = max(scores, key=lambda method: fmean(scores[method]))
    rest = [method for method in scores if method != best]
    behind = [m for m in rest if contrast(scores[best], scores[m], margin=GOLD, claims=len(rest)).verdict == HOLDS]
    return best, [method for method in rest if method not in behind], behind


CLAIMS = [
    Claim(
        "P4b",
        "P4, for KTO and SimPO: a saturating utility, a length-normalised margin regularise",
        "A",
        "the loss pulls a policy back whose difference of log-ratios is 50 nats, for certain labels and with 30% "
        "flipped",
        regularisers,
        ("06",),
    ),
    Claim(
        "R2a",
        "R2, first half: DPO learns that longer is better when the data leans that way",
        "A",
        "tokens per reply that such labels add to DPO's replies",
        learns_length,
        ("06",),
    ),
    Claim(
        "R2b",
        "R2, second half: length normalisation removes that",
        "A",
        "tokens per reply that such labels add, for SimPO and for DPO on token means, beside DPO's and beside none",
        normalisation_cures,
        ("06",),
    ),
    Claim(
        "R3",
        "R3, without PPO: noise hurts DPO much, KTO moderately, IPO and SimPO little",
        "A",
        "gold reward that flipped labels cost, in the five pairs of methods that the claim orders",
        noise_order,
        ("06",),
    ),
]
