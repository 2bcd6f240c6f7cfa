"""What a claim is, and the few ways in which measurements become a verdict. A verdict is computed here alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from course_lib.evaluation import paired_interval

HOLDS, IN_PART, REFUTED, OPEN = "holds", "holds in part", "refuted", "open"
NOT_YET = "not yet tested"
DEPENDS = "depends on the "  # and then on what
VERDICTS = (HOLDS, IN_PART, REFUTED, OPEN, NOT_YET, DEPENDS + "seed", DEPENDS + "arrangement", DEPENDS + "settings",
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


class Contrast(NamedTuple):
    """A difference between two arms, judged over seeds.

    Attributes:
        verdict: holds, refuted or open.
        mean, low, high: the mean of the paired differences, and the ends of its interval.
        without: the verdict with each seed left out, in the order of the seeds.
    """

    verdict: str
    mean: float
    low: float
    high: float
    without: tuple[str, ...]


def contrast(
    first: Sequence[float], second: Sequence[float], *, margin: float, claims: int = 1, alpha: float = 0.05
) -> Contrast:
    """The one rule for claims about runs: is `first` above `second` by more than `margin`?

        holds:    the interval of the mean difference lies above +margin
        refuted:  it lies below +margin, so that the claimed difference is absent or the other way round
        open:     it holds margin

    The interval is Student's over seeds, at confidence 1 - alpha / claims (Bonferroni); see experiments/protocol.md.

    Args:
        first, second: one value for each seed.
        margin: the smallest difference that would matter, in the figure's own units.
        claims: how many contrasts are decided together.
        alpha: the chance of a wrong verdict among them that is accepted.

    Raises:
        ValueError: for fewer than three seeds, of which none could be left out; or a margin below 0.
    """
    if len(first) < 3:
        raise ValueError(f"a contrast needs at least three seeds, so that one can be left out; got {len(first)}")
    if margin < 0:
        raise ValueError(f"margin is at least 0; got {margin}")
    pairs = list(zip(first, second, strict=True))
    left_out = [pairs[:i] + pairs[i + 1 :] for i in range(len(pairs))]
    verdict, mean, low, high = _decide(pairs, margin, alpha / claims)
    return Contrast(verdict, mean, low, high, tuple(_decide(some, margin, alpha / claims)[0] for some in left_out))


def _decide(pairs: list[tuple[float, float]], margin: float, alpha: float) -> tuple[str, float, float, float]:
    mean, low, high = paired_interval(*zip(*pairs, strict=True), confidence=1 - alpha)
    return (HOLDS if low > margin else REFUTED if high < margin else OPEN), mean, low, high
