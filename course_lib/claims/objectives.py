"""R6, from the results of `experiments/objectives.py`: two objectives at once, judged where each weighs a half."""

from __future__ import annotations

from functools import partial

from course_lib.claims.judging import Claim, Judgement, Part, contrast, in_gold, of_contrasts
from course_lib.claims.results import seeds

TOGETHER = partial(contrast, claims=6)  # this experiment's contrasts; see experiments/protocol.md
HOW = {"gold_sampled": "sampled", "gold": "greedy"}


def column(arm: str, figure: str, share: float = 0.5) -> list[float]:
    """The weighted sum of both objectives, a value a seed."""
    found = [run[arm][HOW[figure]] for run in seeds("objectives")]
    return [share * row["helpful"] + (1 - share) * row["harmless"] for row in found]


def above(says: str, first: str, second: str) -> Part:
    return in_gold(says, partial(column, first), partial(column, second), TOGETHER)


def mixing() -> Judgement:
    return of_contrasts(
        above("PPO on the sum of both earns more of it than SFT", "ppo 0.5", "sft"),
        above("more than PPO on harmlessness alone", "ppo 0.5", "ppo 0"),
        above("more than PPO on helpfulness alone", "ppo 0.5", "ppo 1"),
        above(
            "DPO on labels that contradict each other earns less than on labels of the sum", "labels 0.5", "mixed 0.5"
        ),
        above("it ends below SFT", "sft", "mixed 0.5"),
    )


def comparisons() -> list[Part]:
    """Contrasts that the lesson shows beside the claim."""
    says = "DPO on labels of the sum earns more than the mean of two policies' weights"
    return [above(says, "labels 0.5", "soup 0.5")]


CLAIMS = [
    Claim(
        "R6",
        "R6: mixing objectives is a weighted sum in PPO, and hard in DPO, where contradictory pairs destabilise",
        "A, B",
        "half helpful and half harmless: PPO on the sum against SFT and against one objective alone; DPO on pairs of "
        "which half are labelled for each objective, against labels of the sum and against SFT",
        mixing,
        ("11",),
    )
]
