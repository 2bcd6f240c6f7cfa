"""Claims of lesson 05, from results/dpo_failures.json."""

from __future__ import annotations

from statistics import fmean

from results_io import seeds, verdict

from course_lib.evaluation import paired_interval

LESSON = "[05](notebooks/05_how_dpo_fails.ipynb)"


def column(arm: str, figure: str = "gold") -> list[float]:
    return [run[arm][figure] for run in seeds("dpo_failures")]


def less(arm: str, than: str = "good", figure: str = "gold") -> list[bool]:
    return [a < b for a, b in zip(column(arm, figure), column(than, figure), strict=True)]


def margin(run: dict, arm: str) -> float:
    return run[arm]["curve"]["rewards/margins"][-1]


def explosion() -> tuple[str, str]:
    runs = seeds("dpo_failures")
    growth = [margin(run, "long") / margin(run, "few") for run in runs]
    tamed = less("long, ipo", "long", "kl")
    more = paired_interval(column("long", "repeats"), column("few", "repeats"))[1] > 0
    pushed = min(growth) > 2 and all(tamed)
    outcome = "holds" if pushed and more else "holds in part" if pushed else "refuted"
    repeats = [f"{fmean(column(arm, 'repeats')):.1%}" for arm in ("few", "long")]
    kl = [f"{fmean(column(arm, 'kl')):.1f}" for arm in ("long", "long, ipo")]
    return outcome, (
        f"eight epochs against one: {fmean(growth):.1f} times the margin; KL {kl[0]} nats, IPO's {kl[1]}; replies "
        f"that repeat themselves {repeats[0]} to {repeats[1]}, {'clearly more' if more else 'not clearly more'}"
    )


def gain_kept(arm: str) -> list[float]:
    """Share of the control arm's gain over SFT, a value a seed."""
    rows = zip(column(arm), column("good"), column("sft"), strict=True)
    return [(gold - sft) / (good - sft) for gold, good, sft in rows]


def beta_range() -> tuple[str, str]:
    arms = {0.01: "beta 0.01", 0.1: "beta 0.1", 1.0: "beta 1", 3.0: "beta 3"}
    collapse = all(less("beta 0.01", "sft"))
    little = [all(kept < 0.5 for kept in gain_kept(arm)) for arm in ("beta 1", "beta 3")]
    outcome = "holds" if collapse and all(little) else "holds in part" if collapse or any(little) else "refuted"
    shown = ", ".join(f"{beta:g} {fmean(gain_kept(arm)):.0%}" for beta, arm in arms.items())
    return outcome, f"of the gain over SFT at beta 0.3 other betas keep: {shown}; none below 0.01 was run"


def learning_rate() -> tuple[str, str]:
    return "holds in part" if all(less("rate 1e-2")) else verdict(less("rate 1e-2")), (
        f"the ratio carries over: ten times the good rate takes gold from {fmean(column('good')):.2f} to "
        f"{fmean(column('rate 1e-3')):.2f}, 100 times to {fmean(column('rate 1e-2')):.2f}, a tenth to "
        f"{fmean(column('rate 1e-5')):.2f}; the absolute rates do not"
    )


def wrong_reference() -> tuple[str, str]:
    lost, kept = fmean(column("good")) - fmean(column("base as reference")), gain_kept("base as reference")
    broken = all(less("base as reference", "sft"))
    outcome = "holds" if broken else "refuted" if min(kept) > 0.5 else "holds in part"
    return outcome, (
        f"the base model as reference costs {lost:.2f} gold reward in the mean, and keeps {fmean(kept):.0%} of the "
        "gain over SFT"
    )


def own_reward() -> tuple[str, str]:
    runs = seeds("dpo_failures")
    grew = [margin(run, "long") > margin(run, "long, ipo") for run in runs]
    change, low, high = paired_interval(column("long"), column("long, ipo"))
    outcome = "refuted" if not any(grew) or low > 0 else "holds" if all(grew) and high < 0 else "open"
    return outcome, (
        f"eight epochs on the same pairs: DPO's margin passes IPO's in {sum(grew)} of {len(runs)} seeds, and its gold "
        f"reward differs from IPO's by {change:+.2f} ({low:+.2f} to {high:+.2f})"
    )


CLAIMS = [
    ("O1: DPO goes on pushing the margin, and samples turn repetitive; IPO's target tames it", explosion, LESSON),
    ("O3: beta below 0.01 collapses, above 0.5 learns little", beta_range, LESSON),
    ("O4: the useful learning rates", learning_rate, LESSON),
    ("O5: a reference that is not the starting policy breaks DPO", wrong_reference, LESSON),
    ("N2: DPO hacks its own implicit reward", own_reward, LESSON),
]
