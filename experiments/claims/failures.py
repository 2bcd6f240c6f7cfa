"""Claims of lesson 05, from results/dpo_failures.json."""

from __future__ import annotations

from statistics import fmean

from results_io import seeds, verdict

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
    more = less("few", "long", "repeats")
    outcome = verdict([g > 2 for g in growth] + more + less("long, ipo", "long", "kl"))
    repeats = [f"{fmean(column(arm, 'repeats')):.1%}" for arm in ("few", "long")]
    kl = [f"{fmean(column(arm, 'kl')):.1f}" for arm in ("long", "long, ipo")]
    return outcome, (
        f"eight epochs against one: {fmean(growth):.1f} times the margin; replies that repeat themselves "
        f"{repeats[0]} to {repeats[1]}; "
        f"KL {kl[0]} nats, IPO's {kl[1]}"
    )


def strict(outcomes: list[bool], weaker: list[bool]) -> str:
    """Holds where the claim shows in every seed; holds in part where only its weaker form does."""
    return "holds" if all(outcomes) else "holds in part" if all(weaker) else verdict(outcomes)


def gain_kept(arm: str) -> list[float]:
    """Share of the control arm's gain over SFT, a value a seed."""
    rows = zip(column(arm), column("good"), column("sft"), strict=True)
    return [(gold - sft) / (good - sft) for gold, good, sft in rows]


def beta_range() -> tuple[str, str]:
    arms = {0.01: "beta 0.01", 0.1: "beta 0.1", 1.0: "beta 1", 3.0: "beta 3"}
    collapse, little = less("beta 0.01", "sft"), [kept < 0.5 for kept in gain_kept("beta 1")]
    outcome = strict(collapse + little, less("beta 0.01") + less("beta 1"))
    shown = ", ".join(f"{beta:g} {fmean(gain_kept(arm)):.0%}" for beta, arm in arms.items())
    return outcome, f"both ends cost gold reward; of the gain at beta 0.3 other betas keep: {shown}"


def learning_rate() -> tuple[str, str]:
    return "holds in part" if all(less("rate 1e-2")) else verdict(less("rate 1e-2")), (
        f"the ratio carries over: ten times the good rate takes gold from {fmean(column('good')):.2f} to "
        f"{fmean(column('rate 1e-3')):.2f}, 100 times to {fmean(column('rate 1e-2')):.2f}, a tenth to "
        f"{fmean(column('rate 1e-5')):.2f}; the absolute rates do not"
    )


def wrong_reference() -> tuple[str, str]:
    lost = fmean(column("good")) - fmean(column("base as reference"))
    outcome = strict(less("base as reference", "sft"), less("base as reference"))
    kept = fmean(gain_kept("base as reference"))
    return (
        outcome,
        f"the base model as reference costs {lost:.2f} gold reward, and keeps {kept:.0%} of the gain over SFT",
    )


def own_reward() -> tuple[str, str]:
    runs = seeds("dpo_failures")
    grew = [margin(run, "long") > margin(run, "long, ipo") for run in runs]
    lost = less("long", "long, ipo")
    change = fmean(column("long")) - fmean(column("long, ipo"))
    return verdict([g and w for g, w in zip(grew, lost, strict=True)]), (
        f"eight epochs on the same pairs: DPO's margin passes IPO's in {sum(grew)} of {len(runs)} seeds, and its gold "
        f"reward is lower in {sum(lost)} ({change:+.2f} on average)"
    )


CLAIMS = [
    ("O1: DPO goes on pushing the margin, and samples turn repetitive; IPO's target tames it", explosion, LESSON),
    ("O3: beta below 0.01 collapses, above 0.5 learns little", beta_range, LESSON),
    ("O4: the useful learning rates", learning_rate, LESSON),
    ("O5: a reference that is not the starting policy breaks DPO", wrong_reference, LESSON),
    ("N2: DPO hacks its own implicit reward", own_reward, LESSON),
]
