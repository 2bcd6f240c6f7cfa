"""Claims of lessons 01 and 04, from results/pocket_world.json."""

from __future__ import annotations

from statistics import fmean

from results_io import seeds, verdict


def pipeline_stages() -> tuple[str, str]:
    return "holds", "by construction: SFT, then pairs, and no reward model in between"


def off_policy() -> tuple[str, str]:
    runs = [run["misconceptions_right"] for run in seeds("pocket_world")]
    gain = {where: [run[where]["dpo"] - run[where]["sft"] for run in runs] for where in ("seen", "unseen")}
    more = [a > b for a, b in zip(gain["seen"], gain["unseen"], strict=True)]
    none = [b <= 0.02 for b in gain["unseen"]]
    outcome = "holds" if all(more) and all(none) else "holds in part" if any(more) else "refuted"
    return outcome, (
        f"misconceptions mended: {fmean(gain['seen']):+.2f} of those that the pairs mention, "
        f"{fmean(gain['unseen']):+.2f} of the others"
    )


def displacement() -> tuple[str, str]:
    ratios = [run["dpo"]["held_out"]["log_ratio_chosen"] for run in seeds("pocket_world")]
    return verdict([r < 0 for r in ratios]), f"mean log-ratio of held-out chosen replies {fmean(ratios):+.1f} nats"


def sft_first() -> tuple[str, str]:
    runs = seeds("pocket_world")
    gold = {arm: [run[arm]["gold"]["0.0"] for run in runs] for arm in ("dpo_from_base", "sft", "dpo")}
    outcome = verdict([a < b for a, b in zip(gold["dpo_from_base"], gold["sft"], strict=True)])
    means = {arm: f"{fmean(values):.2f}" for arm, values in gold.items()}
    return (
        outcome,
        f"gold reward: DPO from base {means['dpo_from_base']}, SFT {means['sft']}, DPO after it {means['dpo']}",
    )


def not_yet() -> tuple[str, str]:
    return "open", "needs RLHF beside it on the same pairs"


SFT_LESSON = "[01](notebooks/01_logprobs_and_sft.ipynb)"
DPO_LESSON = "[04](notebooks/04_dpo_from_scratch.ipynb)"
CLAIMS = [
    ("P1: DPO has two stages where RLHF has three", pipeline_stages, DPO_LESSON),
    ("P5, DPO's half: it can only use what is in its data", off_policy, DPO_LESSON),
    ("O2: DPO can lower the log-probability of the chosen response too", displacement, DPO_LESSON),
    ("O6, its second half: DPO without SFT gives poor output", sft_first, SFT_LESSON),
    ("R7: DPO learns more per preference pair than RLHF", not_yet, "08"),
]
