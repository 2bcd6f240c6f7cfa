"""Claims of lessons 01 and 04, from the results of `experiments/pocket_world.py`."""

from __future__ import annotations

from statistics import fmean

from course_lib.claims.judging import HOLDS, IN_PART, OPEN, REFUTED, Claim, Judgement, over_seeds
from course_lib.claims.results import seeds


def pipeline_stages() -> Judgement:
    return Judgement(HOLDS, "by construction: SFT, then pairs, and no reward model in between")


def off_policy() -> Judgement:
    runs = [run["misconceptions_right"] for run in seeds("pocket_world")]
    gain = {where: [run[where]["dpo"] - run[where]["sft"] for run in runs] for where in ("seen", "unseen")}
    more = [a > b for a, b in zip(gain["seen"], gain["unseen"], strict=True)]
    none = [b <= 0.02 for b in gain["unseen"]]
    verdict = HOLDS if all(more) and all(none) else IN_PART if any(more) else REFUTED
    return Judgement(
        verdict,
        f"misconceptions mended: {fmean(gain['seen']):+.2f} of those that the pairs mention, "
        f"{fmean(gain['unseen']):+.2f} of the others",
    )


def displacement() -> Judgement:
    ratios = [run["dpo"]["held_out"]["log_ratio_chosen"] for run in seeds("pocket_world")]
    verdict = over_seeds(r < 0 for r in ratios)
    return Judgement(verdict, f"mean log-ratio of held-out chosen replies {fmean(ratios):+.1f} nats")


def sft_first() -> Judgement:
    runs = seeds("pocket_world")
    gold = {arm: [run[arm]["gold"]["0.0"] for run in runs] for arm in ("dpo_from_base", "sft", "dpo")}
    verdict = over_seeds(a < b for a, b in zip(gold["dpo_from_base"], gold["sft"], strict=True))
    means = {arm: f"{fmean(values):.2f}" for arm, values in gold.items()}
    return Judgement(
        verdict,
        f"gold reward: DPO from base {means['dpo_from_base']}, SFT {means['sft']}, DPO after it {means['dpo']}",
    )


def not_yet() -> Judgement:
    return Judgement(OPEN, "needs RLHF beside it on the same pairs")


CLAIMS = [
    Claim(
        "P1",
        "P1: DPO has two stages where RLHF has three",
        "A, B",
        "by construction of the lessons' own pipelines",
        pipeline_stages,
        ("04",),
    ),
    Claim(
        "P5",
        "P5, DPO's half: it can only use what is in its data",
        "A",
        "in each seed misconceptions about entities of the pairs are mended more often than others, and of the others "
        "at most 0.02 are mended",
        off_policy,
        ("04",),
    ),
    Claim(
        "O2",
        "O2: DPO can lower the log-probability of the chosen response too",
        "R",
        "in each seed the mean log-ratio of held-out chosen replies is below 0",
        displacement,
        ("04",),
    ),
    Claim(
        "O6",
        "O6, its second half: DPO without SFT gives poor output",
        "A",
        "in each seed DPO from the base model has less gold reward than SFT alone",
        sft_first,
        ("01",),
    ),
    Claim(
        "R7",
        "R7: DPO learns more per preference pair than RLHF",
        "B",
        "waits for RLHF on the same pairs",
        not_yet,
        ("08",),
    ),
]
