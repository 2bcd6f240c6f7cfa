"""R6, from the results of `experiments/objectives.py`: two objectives at once, judged where each weighs a half."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from course_lib.claims.judging import Claim, Judgement, Part, contrast, in_gold, of_contrasts
from course_lib.claims.results import seeds

TOGETHER = partial(contrast, claims=6)  # this experiment's contrasts; see experiments/protocol.md
HOW = {"gold_sampled": "sampled", "gold": "greedy"}


def column(arm: str, figure: str, share: float = 0.5) -> list[float]:
    """The weighted sum of both objectives, a value a seed."""
    found = [run[arm][HOW[figure]] for run in seeds("objectives")]
    return [share * row["helpful"] + (1 - share) * row["harmless"] for row in found]


def coin(method: str, figure: str) -> list[float]:
    """What answering at random by one of the two policies that were trained for one objective each earns."""
    ends = (column(f"{method} {end}", figure) for end in (0, 1))
    return [(first + second) / 2 for first, second in zip(*ends, strict=True)]


def above(says: str, first: Callable, second: Callable, *, absent: bool = False) -> Part:
    return in_gold(says, first, second, TOGETHER, absent=absent)


def mixing() -> Judgement:
    sft, ppo, labels, mixed = (partial(column, arm) for arm in ("sft", "ppo 0.5", "labels 0.5", "mixed 0.5"))
    return of_contrasts(
        above("PPO on the sum of both earns more of it than SFT", ppo, sft),
        above(
            "PPO on the sum earns no less than a coin between its two specialists",
            partial(coin, "ppo"),
            ppo,
            absent=True,
        ),
        above("DPO on contradictory labels earns less than on labels of the sum", labels, mixed),
        above("DPO on contradictory labels ends below SFT", sft, mixed),
        above(
            "DPO on contradictory labels ends below a coin between its two specialists", partial(coin, "labels"), mixed
        ),
    )


def comparisons() -> list[Part]:
    """Contrasts that the lesson shows beside the claim."""
    says = "DPO on labels of the sum earns more than the mean of two policies' parameters"
    return [above(says, partial(column, "labels 0.5"), partial(column, "soup 0.5"))]


CLAIMS = [
    Claim(
        "R6",
        "R6: mixing objectives is a weighted sum in PPO, and hard in DPO, where contradictory pairs destabilise",
        "A, B",
        "the mean of helpful and harmless reward: PPO on the sum against SFT and against its specialists; DPO on pairs "
        "of which half are labelled for each objective, against labels of the sum, SFT and its specialists",
        mixing,
        ("11",),
    )
]
