"""Claims of lessons 01 and 04, from the results of `experiments/pocket_world.py`."""

from __future__ import annotations

from functools import partial

from course_lib.claims.judging import GOLD, HOLDS, NATS, SHARE, Claim, Judgement, Part, contrast, in_gold, of_contrasts
from course_lib.claims.results import seeds

TOGETHER = partial(contrast, claims=8)  # this experiment's contrasts: O2, O6, two of P5, and four comparisons
BELOW_ONE = ("0.0", "0.25", "0.5", "0.75")


def column(arm: str, figure: str) -> list[float]:
    return [run[arm][figure] for run in seeds("pocket_world")]


def above(says: str, first: str, second: str, *, absent: bool = False) -> Part:
    """One arm against another in gold reward."""
    return in_gold(says, partial(column, first), partial(column, second), TOGETHER, absent=absent)


def best_temperature(run: dict) -> str:
    """Where SFT is best on the tuning prompts, below temperature 1."""
    tuned = run["sft"]["by_temperature"]["tuning"]
    return max(BELOW_ONE, key=tuned.get)


def comparisons() -> list[Part]:
    """DPO beside its plain rivals; lesson 04 and the world's page show them."""
    best = [run["sft"]["by_temperature"]["test"][best_temperature(run)] for run in seeds("pocket_world")]
    dpo = partial(column, "dpo")
    return [
        in_gold("DPO earns more than SFT at its best temperature", dpo, lambda figure: best, TOGETHER),
        above("DPO earns more than SFT on the chosen replies (cloning)", "dpo", "cloned"),
        Part(
            "DPO earns more than the best of 8 replies of SFT by the reward model",
            TOGETHER(column("dpo", "gold_sampled"), column("best_of_8", "gold_sampled"), margin=GOLD),
        ),
        above("shuffled labels teach nothing: DPO on them earns no more than SFT", "dpo_shuffled", "sft", absent=True),
    ]


def pipeline_stages() -> Judgement:
    figure = "by construction of the lessons: SFT, then pairs, and no reward model in between"
    return Judgement(HOLDS, "So: the lessons' DPO goes from SFT to the aligned model in one stage.", figure)


def off_policy() -> Judgement:
    right = [run["misconceptions_right"] for run in seeds("pocket_world")]
    gain = {where: [run[where]["dpo"] - run[where]["sft"] for run in right] for where in ("seen", "unseen")}
    nothing = [0.0] * len(right)
    return of_contrasts(
        Part(
            "DPO mends more misconceptions about what its pairs mention than about the rest",
            TOGETHER(gain["seen"], gain["unseen"], margin=SHARE),
        ),
        Part("it mends none about the rest", TOGETHER(gain["unseen"], nothing, margin=SHARE), absent=True),
    )


def displacement() -> Judgement:
    ratios = column("dpo", "chosen")
    says = "held-out chosen replies become less likely under DPO"
    return of_contrasts(Part(says, TOGETHER([0.0] * len(ratios), ratios, margin=NATS)))


def sft_first() -> Judgement:
    return of_contrasts(above("SFT alone earns more than DPO from the base model", "sft", "dpo_from_base"))


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
        "share of misconceptions mended, of entities that the pairs mention and of others",
        off_policy,
        ("04",),
    ),
    Claim(
        "O2",
        "O2: DPO can lower the log-probability of the chosen response too",
        "R",
        "mean log-ratio of held-out chosen replies, nats",
        displacement,
        ("04",),
    ),
    Claim(
        "O6",
        "O6, its second half: DPO without SFT gives poor output",
        "A",
        "gold reward of DPO from the base model beside SFT's",
        sft_first,
        ("01",),
    ),
]
