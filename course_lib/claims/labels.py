"""R8 and D3: what filters and a judge make of labels, from `experiments/preference_data.py` and `judges.py`."""

from __future__ import annotations

from functools import partial

from course_lib.claims.judging import TOKENS, Claim, Judgement, Part, contrast, in_gold, of_contrasts
from course_lib.claims.results import seeds

FILTERS = partial(contrast, claims=3)  # contrasts of each experiment; see experiments/protocol.md
JUDGES = partial(contrast, claims=3)


def filtered(which: str, figure: str) -> list[float]:
    return [run["dpo"][which][figure] for run in seeds("preference_data")]


def labelled(who: str, figure: str) -> list[float]:
    return [run[who][figure] for run in seeds("judges")]


def filters() -> Judgement:
    names = {
        "different meaning": "pairs of different meaning",
        "different words": "pairs in different words",
        "other length": "pairs of different lengths",
    }
    return of_contrasts(
        *(
            in_gold(
                f"{says} teach more than unfiltered pairs", partial(filtered, which), partial(filtered, "any"), FILTERS
            )
            for which, says in names.items()
        )
    )


def judge() -> Judgement:
    tokens = [labelled(who, "tokens") for who in ("judge, long", "judge")]
    people, judged = (partial(labelled, who) for who in ("people", "judge"))
    return of_contrasts(
        in_gold("people's labels teach no more than the judge's", people, judged, JUDGES, absent=True),
        Part("a judge taught by people who like length teaches longer replies", JUDGES(*tokens, margin=TOKENS)),
    )


def comparisons() -> list[Part]:
    """Contrasts that lesson 10 shows beside the claim."""
    says = "asked in both orders, a judge's labels teach more than in one"
    return [in_gold(says, partial(labelled, "judge"), partial(labelled, "one order"), JUDGES)]


CLAIMS = [
    Claim(
        "R8",
        "R8: filtering out pairs of near-identical meaning, or of identical length, improves the data",
        "A",
        "gold reward of DPO on 2,000 pairs: those of different meaning, those whose replies share less than half of "
        "their words, and those of different length, against the first that come",
        filters,
        ("02",),
    ),
    Claim(
        "D3",
        "D3: a strong model's judgements in place of people's are cheaper, and inherit the judge's biases",
        "B",
        "DPO on 2,000 pairs labelled by people, and by a judge no larger than the policy that people taught: gold "
        "reward; and tokens of greedy replies where these people like length. What labels cost is not measured",
        judge,
        ("10",),
    ),
]
