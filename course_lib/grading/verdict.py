"""From what a function returned to a verdict: points, which properties hold, and what the mistake is.

The trusted half of the grader: it holds the reference and sees answers as plain data only.
"""

from __future__ import annotations

from collections.abc import Sequence

from course_lib.grading.diagnosis import diagnose, undefined
from course_lib.grading.judgement import Cases, Judgement
from course_lib.grading.reports import Diagnosis, Verdict
from course_lib.grading.task import Task
from course_lib.grading.worker import encode


def request_for(task: Task, cases: Cases, answer: dict, seconds: float) -> dict:
    """What a worker is asked; `answer` is {"pickle"} or {"cell", "name"}.

    `seconds` are the processor's; by the clock an answer may take twice as long, since a busy machine shares it.
    """
    calls = [encode(inputs) for _, inputs in cases]
    settings = {"keyword_only": list(task.keyword_only), "gradient_of": list(task.gradient_of)}
    return answer | settings | {"calls": calls, "seconds": seconds, "clock": 2 * seconds}


def judge(task: Task, cases: Cases, found: Sequence[dict], ended: str | None = None) -> Verdict:
    """The verdict on an answer's outcomes, which may be fewer than the cases if it was stopped."""
    judged = Judgement(task, cases, found, ended)
    if judged.found and judged.found[0].undefined:
        return refusal(task, *undefined(task, judged.found[0].undefined))
    passed = all(judged.holds) and ended is None
    return Verdict(
        task.id, task.title, task.points if passed else 0, task.points,
        properties=tuple(judged.property(number) for number in range(len(task.properties))),
        diagnosis=None if passed else diagnose(judged),
        example=None if passed else judged.example(),
        notes=judged.notes(),
    )  # fmt: skip


def is_right(task: Task, cases: Cases, found: Sequence[dict]) -> bool:
    """Whether every outcome is a right one: the verdict without its reasons."""
    return all(Judgement(task, cases, found, None).holds)


def refusal(task: Task, says: str, why: str = "") -> Verdict:
    """No points, for a reason that no input shows."""
    return Verdict(task.id, task.title, 0, task.points, diagnosis=Diagnosis(says, why))
