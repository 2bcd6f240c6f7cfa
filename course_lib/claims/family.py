"""Claims of lesson 06: by autograd, and from the results of `experiments/family.py`."""

from __future__ import annotations

from statistics import fmean

import torch

from course_lib.claims.judging import HOLDS, IN_PART, OPEN, REFUTED, Claim, Judgement, by_interval, of_parts
from course_lib.claims.results import seeds
from course_lib.evaluation import paired_interval
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
    back = [case for case, is_held in held.items() if is_held]
    return Judgement(
        of_parts(held.values()),
        f"a policy whose difference of log-ratios is {h.item():.0f} nats is pulled back in {len(back)} of {len(held)} "
        f"cases: {'; '.join(back) or 'none'}",
    )


def column(labels: str, method: str, figure: str = "gold") -> list[float]:
    return [run[labels][method][figure] for run in seeds("family")]


def lost(method: str) -> list[float]:
    """Gold reward that flipped labels cost, a value a seed."""
    return [a - b for a, b in zip(column("clean", method), column("noisy", method), strict=True)]


def noise_order() -> Judgement:
    claimed = [("dpo", "kto"), ("dpo", "ipo"), ("dpo", "simpo"), ("kto", "ipo"), ("kto", "simpo")]
    level = 1 - 0.05 / len(claimed)
    found = [paired_interval(lost(more), lost(less), confidence=level) for more, less in claimed]
    seen, turned = sum(low > 0 for _, low, _ in found), sum(high < 0 for _, _, high in found)
    means = ", ".join(f"{NAMES[m]} {fmean(lost(m)):.2f}" for m in ("dpo", "kto", "ipo", "simpo"))
    return Judgement(
        HOLDS if seen == len(found) else IN_PART if seen else REFUTED if turned else OPEN,
        f"gold reward lost to 30% flipped labels: {means}; of the {len(found)} orderings that this claims, "
        f"{len(seeds('family'))} seeds show {seen}, and {turned} the other way round; so few show large ones only",
    )


def longer(method: str) -> list[float]:
    """Tokens a reply that labels with a liking for length add, a value a seed; length-dpo against DPO's fair arm."""
    fair = "dpo" if method == "length-dpo" else method
    return [a - b for a, b in zip(column("long", method, "tokens"), column("clean", fair, "tokens"), strict=True)]


def grows(method: str) -> tuple[float, float, float]:
    """The mean of `longer`, and its confidence interval."""
    return paired_interval(longer(method), [0.0] * len(longer(method)))


def learns_length() -> Judgement:
    mean, low, high = grows("dpo")
    figure = f"labels that like length change DPO's replies by {mean:+.1f} tokens ({low:+.1f} to {high:+.1f})"
    return Judgement(by_interval(low, high), figure)


def normalisation_cures() -> Judgement:
    normalised = ("simpo", "dpo-mean")
    still_grows = [grows(method)[1] > 0 for method in normalised]
    grows_less = [paired_interval(longer("dpo"), longer(method))[1] > 0 for method in normalised]
    cured = [less and not grows for less, grows in zip(grows_less, still_grows, strict=True)]
    methods = ("simpo", "dpo", "dpo-mean", "ipo", "kto", "length-dpo")
    means = {method: f"{fmean(longer(method)):+.1f}" for method in methods}
    return Judgement(
        HOLDS if all(cured) else IN_PART if any(cured) else REFUTED if all(still_grows) else OPEN,
        f"tokens a reply under the same labels: SimPO {means['simpo']}, DPO {means['dpo']}; SimPO differs in more than "
        f"normalisation, and its nearest control, DPO on token means at ten times the beta, gives {means['dpo-mean']} "
        f"(KL {fmean(column('long', 'dpo-mean', 'kl')):.1f}, DPO's {fmean(column('long', 'dpo', 'kl')):.1f} nats); "
        f"IPO {means['ipo']}, KTO {means['kto']}, DPO with a length penalty {means['length-dpo']}",
    )


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
        "the interval over seeds of the tokens that such labels add to DPO's replies lies above 0",
        learns_length,
        ("06",),
    ),
    Claim(
        "R2b",
        "R2, second half: length normalisation removes that",
        "A",
        "SimPO, and DPO on token means, grow clearly less than DPO, and not clearly at all; refuted if both clearly "
        "grow",
        normalisation_cures,
        ("06",),
    ),
    Claim(
        "R3",
        "R3, without PPO: noise hurts DPO much, KTO moderately, IPO and SimPO little",
        "A",
        "the intervals of all five differences of losses, at 95% together, lie above 0",
        noise_order,
        ("06",),
    ),
]
