"""Lesson 18: which of Pocket World's findings a real model shows too, from the results of `experiments/real_model.py`.

The same rule decides here and there; only the verdicts are compared, never the figures, which have other units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean
from typing import NamedTuple

from course_lib.claims import direct, failures, online
from course_lib.claims.judging import HOLDS, NATS, NOT_YET, REFUTED, SHARE, Part, contrast
from course_lib.claims.results import seeds
from course_lib.lessons.questions import HELD_OUT, Question
from course_lib.lessons.short_answers import is_right, refuses, words

TOGETHER = partial(contrast, claims=11)  # this experiment's contrasts; see experiments/protocol.md
WORDS = 2.0  # the smallest difference in length that would matter
BETA = 0.1  # by which the history's rewards are log-ratios
FEWEST = 3  # seeds that a contrast takes

Score = Callable[[Question, str], float]
Choice = Callable[[Question], bool]


def length(question: Question, reply: str) -> float:
    return float(len(words(reply)))


def right(question: Question, reply: str) -> float:
    return float(is_right(question, reply))


def refused(question: Question, reply: str) -> float:
    return float(refuses(reply))


def known(question: Question) -> bool:
    """Whether a program knows the answer."""
    return bool(question.accepted)


def at_length(question: Question) -> bool:
    return question.kind == "at length"


def every(question: Question) -> bool:
    return True


def runs(*arms: str) -> list[dict]:
    """The seeds that have all of these arms."""
    return [run for run in seeds("real_model") if all(arm in run for arm in arms)]


def table(some: Sequence[dict], arm: str, score: Score, which: Choice = known) -> list[list[float]]:
    """One row a seed, one score for each held-out question of those asked for."""
    asked = [(place, question) for place, question in enumerate(HELD_OUT) if which(question)]
    return [[score(question, run[arm]["replies"][place]) for place, question in asked] for run in some]


def by_seed(scores: Sequence[Sequence[float]]) -> list[float]:
    return [fmean(row) for row in scores]


def by_question(scores: Sequence[Sequence[float]]) -> list[float]:
    return [fmean(column) for column in zip(*scores, strict=True)]


class Finding(NamedTuple):
    """A sentence judged here, and the verdict on its counterpart in Pocket World.

    Attributes:
        says: the sentence.
        there: Pocket World's verdict; None where it has no counterpart.
        over_seeds: the contrast with seeds as the unit; None with fewer than three.
        over_questions: the same with questions as the unit, where it is a mean over questions.
    """

    says: str
    there: str | None
    over_seeds: Part | None
    over_questions: Part | None = None

    @property
    def here(self) -> str:
        """The verdict over seeds and, where there is one, over questions; open where they differ."""
        if self.over_seeds is None:
            return NOT_YET
        verdicts = {part.verdict for part in (self.over_seeds, self.over_questions) if part is not None}
        return verdicts.pop() if len(verdicts) == 1 else "open"

    @property
    def carried(self) -> str:
        if self.there is None:
            return "new"
        if not {self.here, self.there} <= {HOLDS, REFUTED}:
            return "not known"
        return "carried over" if self.there == self.here else "did not"


def above(
    says: str, there: str | None, first: str, second: str, score: Score, margin: float, *,
    which: Choice = known, absent: bool = False,
) -> Finding:  # fmt: skip
    """One arm's mean score above another's, over seeds and over questions."""
    some = runs(first, second)
    if len(some) < FEWEST:
        return Finding(says, there, None)
    one, two = table(some, first, score, which), table(some, second, score, which)
    judged = (TOGETHER(unit(one), unit(two), margin=margin) for unit in (by_seed, by_question))
    return Finding(says, there, *(Part(says, found, absent=absent) for found in judged))


def of_seeds(says: str, there: str, first: Sequence[float], second: Sequence[float], margin: float) -> Finding:
    enough = len(first) >= FEWEST
    return Finding(says, there, Part(says, TOGETHER(first, second, margin=margin)) if enough else None)


def chosen_log_ratios(some: Sequence[dict]) -> list[float]:
    """Mean log-ratio of the chosen replies in the last quarter of DPO's steps, one for each seed."""
    late = ([row["rewards/chosen"] for row in run["dpo"]["history"]] for run in some)
    return [fmean(rewards[-max(1, len(rewards) // 4) :]) / BETA for rewards in late]


def findings() -> list[Finding]:
    """All contrasts of the experiment, each beside Pocket World's."""
    some = runs("start", "dpo")
    rivals = [part.verdict for part in direct.comparisons()]
    r5 = online.above("", "ppo", "bon-dpo", absent=True).verdict
    knew, knows = ([run[arm]["knows"] for run in some] for arm in ("start", "dpo"))
    return [
        above("DPO on own pairs makes replies shorter (there: earns more than SFT)", of_pocket_world("gold_sampled"),
              "start", "dpo", length, WORDS),
        above("no more answers are wrong (there: facts)", of_pocket_world("facts right"),
              "start", "dpo", right, SHARE, absent=True),
        above("no more is refused or empty (there: harmless requests)", of_pocket_world("harmless refused"),
              "dpo", "start", refused, SHARE, which=every, absent=True),
        above("labels turned at random teach nothing", rivals[3], "start", "half turned", length, WORDS, absent=True),
        above("DPO beats SFT on the chosen replies", rivals[1], "sft on best", "dpo", length, WORDS),
        above("online RL gains no more than DPO on own pairs", r5, "dpo", "rloo", length, WORDS, absent=True),
        of_seeds("chosen replies become less likely", direct.displacement().verdict,
                 [0.0] * len(some), chosen_log_ratios(some), NATS),
        of_seeds("something that it knew is lost (there: the alphabet)", of_pocket_world("alphabet"),
                 knew, knows, SHARE),
        above("it spills over where nobody wants it (there: refusals)", failures.over_refusal()[0].verdict,
              "start", "dpo", length, WORDS, which=at_length),
        above("own pairs teach more than hand-written ones", None, "hand-written", "dpo", length, WORDS),
        above("DPO is shorter than the model that is asked to be", None, "asked, briefly", "dpo", length, WORDS),
    ]  # fmt: skip


def of_pocket_world(figure: str) -> str:
    """What Pocket World's committed results say of DPO beside SFT, by the same rule."""
    if figure == "gold_sampled":
        return direct.above("", "dpo", "sft").verdict
    places = {
        "facts right": ("kinds_sampled", "fact", "right"),
        "harmless refused": ("kinds_sampled", "safe", "refused"),
        "alphabet": ("knows", "alphabet"),
    }

    def column(arm: str) -> list[float]:
        found = [run[arm] for run in seeds("pocket_world")]
        for key in places[figure]:
            found = [each[key] for each in found]
        return found

    first, second = ("dpo", "sft") if figure == "harmless refused" else ("sft", "dpo")
    return Part("", TOGETHER(column(first), column(second), margin=SHARE), absent=figure != "alphabet").verdict
