"""What a claim is, and the few ways in which measurements become a verdict. A verdict is computed here alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from course_lib.evaluation import paired_interval

HOLDS, IN_PART, REFUTED, OPEN = "holds", "holds in part", "refuted", "open"
NOT_YET = "not yet tested"
DEPENDS = "depends on the "  # and then on what
VERDICTS = (HOLDS, REFUTED, IN_PART, DEPENDS + "arrangement", DEPENDS + "settings", DEPENDS + "batch", OPEN, NOT_YET)

# The smallest differences that would matter; see experiments/protocol.md.
GOLD, SHARE, TOKENS, NATS = 0.05, 0.05, 0.5, 0.1


class Judgement(NamedTuple):
    """A verdict, one of `VERDICTS`; what was found, in a plain sentence or two; and the figures behind it."""

    verdict: str
    found: str
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
        """The verdict, what was found, and the figures, from what is committed now."""
        return self.measure()


SOURCES = {
    "A": 'the article "RLHF vs DPO: Alignment Algorithms and Optimization Landscapes" (2026)',
    "B": 'an open course\'s notebook that compares DPO with RLHF ("The Training Pipeline: Where the Paths Diverge")',
    "C": 'the lesson "Direct Preference Optimization (DPO) for LLM Alignment" of an online course (June 2026)',
    "R": "research literature (Razin et al. 2024)",
}


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


_TURNED = {HOLDS: REFUTED, REFUTED: HOLDS, OPEN: OPEN}


class Part(NamedTuple):
    """One contrast of a claim.

    Attributes:
        says: what is so if the part holds, a clause without capital and full stop.
        found: the contrast, in the primary outcome or in the figure that the claim names.
        greedy: the same for greedy replies, where the figure has both.
        absent: the claim says that there is *no* such difference.
    """

    says: str
    found: Contrast
    greedy: Contrast | None = None
    absent: bool = False

    def reads(self, verdict: str) -> str:
        """The part's verdict for a contrast's."""
        return _TURNED[verdict] if self.absent else verdict

    @property
    def verdict(self) -> str:
        return self.reads(self.found.verdict)

    @property
    def figure(self) -> str:
        """Interval, verdicts with one seed left out, and the greedy verdict."""
        text = f"{self.says}: {self.found.mean:+.2f} ({self.found.low:+.2f} to {self.found.high:+.2f})"
        without = [self.reads(verdict) for verdict in self.found.without]
        others = {i: verdict for i, verdict in enumerate(without) if verdict != self.verdict}
        text += (
            "; the same without any one seed"
            if not others
            else "".join(f"; without the {_ordinal(i + 1)} seed {verdict}" for i, verdict in others.items())
        )
        if self.greedy:
            text += f"; greedily {self.greedy.mean:+.2f}, {self.reads(self.greedy.verdict)}"
        return text


def in_gold(
    says: str,
    first: Callable[[str], Sequence[float]],
    second: Callable[[str], Sequence[float]],
    decide: Callable[..., Contrast],
    *,
    absent: bool = False,
) -> Part:
    """A part about gold reward: `first` above `second` at temperature 1, and greedily beside it.

    Args:
        says: as in `Part`.
        first, second: one value for each seed, of the figure "gold_sampled" or "gold".
        decide: `contrast` with the number of contrasts that the experiment decides.
        absent: as in `Part`.
    """
    sampled, greedy = (decide(first(figure), second(figure), margin=GOLD) for figure in ("gold_sampled", "gold"))
    return Part(says, sampled, greedy, absent)


def _ordinal(n: int) -> str:
    return f"{n}" + {1: "st", 2: "nd", 3: "rd"}.get(n, "th")


def of_contrasts(*parts: Part) -> Judgement:
    """A claim about runs: holds if all its parts do, in part if some do, refuted if all are, and is open otherwise."""
    verdicts = {part.says: part.verdict for part in parts}
    return Judgement(_joined(verdicts.values()), in_words(verdicts), ". ".join(part.figure for part in parts))


def of_parts(parts: Mapping[str, bool], figure: str, *, mixed: str = IN_PART) -> Judgement:
    """A claim that is computed exactly: each part, named by a clause, is so or not; `mixed` is the verdict between."""
    verdicts = {says: HOLDS if so else REFUTED for says, so in parts.items()}
    verdict = _joined(verdicts.values())
    return Judgement(mixed if verdict == IN_PART else verdict, in_words(verdicts), figure)


def _joined(verdicts) -> str:
    verdicts = list(verdicts)
    if len(set(verdicts)) == 1:
        return verdicts[0]
    return IN_PART if HOLDS in verdicts else OPEN


def in_words(verdicts: Mapping[str, str]) -> str:
    """Which parts hold, which do not, and which are not settled: "So: ... Not so: ... Not settled: ...\""""
    heads = {HOLDS: "So", REFUTED: "Not so", OPEN: "Not settled"}
    said = {head: [says for says, v in verdicts.items() if v == verdict] for verdict, head in heads.items()}
    return " ".join(f"{head}: {'; '.join(parts)}." for head, parts in said.items() if parts)
