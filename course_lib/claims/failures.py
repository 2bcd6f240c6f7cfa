"""Claims of lesson 05, from the results of `experiments/dpo_failures.py`."""

from __future__ import annotations

from statistics import fmean

from course_lib.claims.judging import HOLDS, IN_PART, OPEN, REFUTED, Claim, Judgement, over_seeds
from course_lib.claims.results import seeds
from course_lib.evaluation import paired_interval


def column(arm: str, figure: str = "gold") -> list[float]:
    return [run[arm][figure] for run in seeds("dpo_failures")]


def less(arm: str, than: str = "good", figure: str = "gold") -> list[bool]:
    return [a < b for a, b in zip(column(arm, figure), column(than, figure), strict=True)]


def margin(run: dict, arm: str) -> float:
    return run[arm]["curve"]["rewards/margins"][-1]


def explosion() -> Judgement:
    runs = seeds("dpo_failures")
    growth = [margin(run, "long") / margin(run, "few") for run in runs]
    tamed = less("long, ipo", "long", "kl")
    more = paired_interval(column("long", "repeats"), column("few", "repeats"))[1] > 0
    pushed = min(growth) > 2 and all(tamed)
    verdict = HOLDS if pushed and more else IN_PART if pushed else REFUTED
    repeats = [f"{fmean(column(arm, 'repeats')):.1%}" for arm in ("few", "long")]
    kl = [f"{fmean(column(arm, 'kl')):.1f}" for arm in ("long", "long, ipo")]
    return Judgement(
        verdict,
        f"eight epochs against one: {fmean(growth):.1f} times the margin; KL {kl[0]} nats, IPO's {kl[1]}; replies "
        f"that repeat themselves {repeats[0]} to {repeats[1]}, {'clearly more' if more else 'not clearly more'}",
    )


def gain_kept(arm: str) -> list[float]:
    """Share of the control arm's gain over SFT, a value a seed."""
    rows = zip(column(arm), column("good"), column("sft"), strict=True)
    return [(gold - sft) / (good - sft) for gold, good, sft in rows]


def beta_range() -> Judgement:
    arms = {0.01: "beta 0.01", 0.1: "beta 0.1", 1.0: "beta 1", 3.0: "beta 3"}
    collapse = all(less("beta 0.01", "sft"))
    little = [all(kept < 0.5 for kept in gain_kept(arm)) for arm in ("beta 1", "beta 3")]
    verdict = HOLDS if collapse and all(little) else IN_PART if collapse or any(little) else REFUTED
    shown = ", ".join(f"{beta:g} {fmean(gain_kept(arm)):.0%}" for beta, arm in arms.items())
    return Judgement(verdict, f"of the gain over SFT at beta 0.3 other betas keep: {shown}; none below 0.01 was run")


def learning_rate() -> Judgement:
    return Judgement(
        IN_PART if all(less("rate 1e-2")) else over_seeds(less("rate 1e-2")),
        f"the ratio carries over: ten times the good rate takes gold from {fmean(column('good')):.2f} to "
        f"{fmean(column('rate 1e-3')):.2f}, 100 times to {fmean(column('rate 1e-2')):.2f}, a tenth to "
        f"{fmean(column('rate 1e-5')):.2f}; the absolute rates do not",
    )


def wrong_reference() -> Judgement:
    lost, kept = fmean(column("good")) - fmean(column("base as reference")), gain_kept("base as reference")
    broken = all(less("base as reference", "sft"))
    return Judgement(
        HOLDS if broken else REFUTED if min(kept) > 0.5 else IN_PART,
        f"the base model as reference costs {lost:.2f} gold reward in the mean, and keeps {fmean(kept):.0%} of the "
        "gain over SFT",
    )


def own_reward() -> Judgement:
    runs = seeds("dpo_failures")
    grew = [margin(run, "long") > margin(run, "long, ipo") for run in runs]
    change, low, high = paired_interval(column("long"), column("long, ipo"))
    return Judgement(
        REFUTED if not any(grew) or low > 0 else HOLDS if all(grew) and high < 0 else OPEN,
        f"eight epochs on the same pairs: DPO's margin passes IPO's in {sum(grew)} of {len(runs)} seeds, and its gold "
        f"reward differs from IPO's by {change:+.2f} ({low:+.2f} to {high:+.2f})",
    )


CLAIMS = [
    Claim(
        "O1",
        "O1: DPO goes on pushing the margin, and samples turn repetitive; IPO's target tames it",
        "A",
        "in each seed eight epochs more than double the margin of one and IPO's KL stays below DPO's; and the interval "
        "of the difference in replies that repeat themselves lies above 0",
        explosion,
        ("05",),
    ),
    Claim(
        "O3",
        "O3: beta below 0.01 collapses, above 0.5 learns little",
        "A",
        "in each seed beta 0.01 falls below SFT, and betas 1 and 3 keep less than half of the gain at 0.3",
        beta_range,
        ("05",),
    ),
    Claim(
        "O4",
        "O4: the useful learning rates",
        "A",
        "the ratio to a good rate can carry over to a tiny model, the absolute rates cannot: at best in part, if 100 "
        "times the good rate has less gold reward in each seed",
        learning_rate,
        ("05",),
    ),
    Claim(
        "O5",
        "O5: a reference that is not the starting policy breaks DPO",
        "A",
        "holds if in each seed DPO against the base model falls below SFT; refuted if it keeps more than half of the "
        "gain in each",
        wrong_reference,
        ("05",),
    ),
    Claim(
        "N2",
        "N2: DPO hacks its own implicit reward",
        "A",
        "holds if in each seed eight epochs raise DPO's margin above IPO's and the interval of gold reward lies below "
        "0; refuted if in no seed, or if it lies above",
        own_reward,
        ("05",),
    ),
]
