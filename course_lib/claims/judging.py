"""What a claim is, and the few ways in which measurements become a verdict. A verdict is computed here alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

HOLDS, IN_PART, REFUTED, OPEN = "holds", "holds in part", "refuted", "open"
DEPENDS = "depends on the "  # and then on what
VERDICTS = (HOLDS, IN_PART, REFUTED, OPEN, DEPENDS + "seed", DEPENDS + "arrangement", DEPENDS + "settings",
            DEPENDS + "batch")  # fmt: skip


class Judgement(NamedTuple):
    """A verdict, one of `VERDICTS`, and the figure behind it in words."""

    verdict: str
    figure: str


@dataclass(frozen=True)
class Claim:
    """A row of the ledger.

    Attributes:
        id: letter and number, with a small letter where a claim falls into parts ("R2b").
        text: what is claimed, with its number.
        source: who says so; see `SOURCES`.
        rule: what the verdict depends on, in a sentence.
        measure: computes the judgement from committed results, from the exact corner, or with the calculators.
        lessons: numbers of the lessons that show it.
    """

    id: str
    text: str
    source: str
    rule: str
    measure: Callable[[], Judgement]
    lessons: tuple[str, ...]

    def judge(self) -> Judgement:
        """The verdict and its figure, from what is committed now."""
        return self.measure()


SOURCES = {
    "A": 'the article "RLHF vs DPO: Alignment Algorithms and Optimization Landscapes" (2026)',
    "B": 'an open course\'s notebook that compares DPO with RLHF ("The Training Pipeline: Where the Paths Diverge")',
    "C": 'the lesson "Direct Preference Optimization (DPO) for LLM Alignment" of an online course (June 2026)',
    "R": "research literature (Razin et al. 2024)",
}


def of_parts(parts: Iterable[bool], *, mixed: str = IN_PART) -> str:
    """A claim with several parts holds if all do, and is refuted if none does."""
    parts = list(parts)
    return HOLDS if all(parts) else mixed if any(parts) else REFUTED


def over_seeds(outcomes: Iterable[bool]) -> str:
    """A claim about runs holds if it shows in each seed, and is refuted if it shows in none."""
    return of_parts(outcomes, mixed=DEPENDS + "seed")


def by_interval(low: float, high: float) -> str:
    """A claim that something is above 0, by the interval of its mean over seeds; open where the interval holds 0."""
    return HOLDS if low > 0 else REFUTED if high < 0 else OPEN
