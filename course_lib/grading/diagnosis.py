"""Which mistake a wrong answer is: one of the bank's, two of them at once, or what can be said of all its values."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np

from course_lib.grading import outcomes
from course_lib.grading.comparing import as_array
from course_lib.grading.judgement import Judgement, finite
from course_lib.grading.reports import Diagnosis
from course_lib.grading.task import Mistake, Task
from course_lib.grading.worker import outcome

ENDINGS = {
    "time": ("it did not finish in time", "Look for a loop that never ends, or a condition that never turns false."),
    "exit": ("it ended the process it ran in", "An answer returns a value; it neither exits nor uses up the memory."),
    "output": ("it returned far too much", "The result should be no larger than the inputs call for."),
}


def diagnose(judged: Judgement) -> Diagnosis:
    """The first thing that can be said, from the plainest to the most general."""
    for kind in (_unwritten, _constant, _named, _stopped, _raised, _container, _related):
        if said := kind(judged):
            return said
    shown_on = judged.task.properties[judged.cases[judged.smallest_failure][0]].name
    return Diagnosis(f"this does not hold: {shown_on}", "None of the known mistakes returns exactly these values.")


def undefined(task: Task, error: dict) -> tuple[str, str]:
    """What there is to say, and why, if there was no function to call."""
    kind, message = error["type"], error["message"]
    if "course_lib" in message:
        return (f"{task.function} is course_lib's, or uses it", "Here you write the idea out yourself, in plain torch.")
    if kind == "NameError" and "defines no function" in message:
        return message, f"Keep the name {task.function}: the check looks for it."
    line = f" (line {error['line']})" if error["line"] else ""
    return f"its cell does not run: {kind}{line}", message


def _unwritten(judged: Judgement) -> Diagnosis | None:
    if all(each.error and each.error["type"] == "NotImplementedError" for each in judged.found):
        return Diagnosis("it is not written yet", "The function still raises NotImplementedError.")
    if all(each.value is None for each in judged.found):
        return Diagnosis("it returns nothing", "The function ends without a `return`, or returns None.")
    return None


def _constant(judged: Judgement) -> Diagnosis | None:
    """The same for every input, where the right values differ."""
    if judged.ended or len(judged.found) < 3 or not all(each.returned for each in judged.found):
        return None
    theirs, right = ({repr(each.value) for each in side} for side in (judged.found, judged.expected))
    if len(theirs) > 1 or len(right) == 1 or not finite(judged.found[0].value):
        return None
    return Diagnosis("it returns the same whatever it is given", "Look for an input that is never used.")


def _named(judged: Judgement) -> Diagnosis | None:
    """The bank's mistake, or two of its mistakes, that would have returned just this."""
    if judged.ended:
        return None
    for mistake in judged.task.mistakes:
        if _is(judged, judged.task.mutant(mistake)):
            return Diagnosis(mistake.name, mistake.why, mistake.where, (mistake.name,))
    for one, other in combinations([each for each in judged.task.mistakes if not each.function], 2):
        if _is(judged, _both(judged.task, one, other)):
            where = one.where if one.where == other.where else f"{one.where}; {other.where}"
            says = f"two mistakes at once: {one.name}, and {other.name}"
            return Diagnosis(says, f"{one.why} And: {other.why}", where, (one.name, other.name))
    return None


def _is(judged: Judgement, wrong: Callable | None) -> bool:
    """Whether a wrong function does what the answer did, on every case."""
    if wrong is None:
        return False
    task = judged.task
    for (_, inputs), found in zip(judged.cases, judged.found, strict=True):
        theirs = outcomes.read(outcome(wrong, inputs, task.keyword_only, task.gradient_of))
        if not judged.alike(theirs, found, equal_nan=True):
            return False
    return True


def _both(task: Task, one: Mistake, other: Mistake) -> Callable | None:
    try:
        return task.mutant(one, other)
    except (ValueError, SyntaxError):  # the two change the same place
        return None


def _stopped(judged: Judgement) -> Diagnosis | None:
    return Diagnosis(*ENDINGS[judged.ended]) if judged.ended in ENDINGS else None


def _raised(judged: Judgement) -> Diagnosis | None:
    errors = [each.error for each in judged.found if each.error]
    if not errors:
        return None
    where = "on every input" if len(errors) == len(judged.found) else "on some inputs"
    line = f" (line {errors[0]['line']})" if errors[0]["line"] else ""
    return Diagnosis(f"it raises {errors[0]['type']} {where}", f"{errors[0]['message']}{line}")


def _container(judged: Judgement) -> Diagnosis | None:
    """A dict or a list where something else came, other keys, or another count."""
    wanted, given = ([each.value for each in side] for side in (judged.expected, judged.found))
    kinds = {type(one) for one in wanted}
    why = "The text under the function's first line says what it returns."
    if kinds == {dict}:
        keys = {tuple(one) for one in wanted}
        text = f" with the keys {', '.join(map(repr, wanted[0]))}" if len(keys) == 1 else ""
        odd = [other for other in given if not isinstance(other, dict) or (text and set(other) != set(wanted[0]))]
        return Diagnosis(f"it does not return a dict{text}", why) if odd else None
    if kinds == {list}:
        if not all(isinstance(other, (list, np.ndarray)) for other in given):
            return Diagnosis("it does not return a list", why)
        counts = [(len(other), len(one)) for one, other in zip(wanted, given, strict=True) if np.ndim(other)]
        odd = [(theirs, right) for theirs, right in counts if theirs != right]
        return Diagnosis(f"it returns {odd[0][0]} items where {odd[0][1]} are wanted", why) if odd else None
    return None


def _related(judged: Judgement) -> Diagnosis | None:
    """How the answers are related to the right ones, where one sentence says it for all inputs."""
    if judged.task.accepts is not None:
        return None
    right, found = ([as_array(each.value) for each in side] for side in (judged.expected, judged.found))
    said = None if any(one is None for one in right) else _relation(right, found, judged.task.rtol, judged.task.atol)
    return Diagnosis(*said) if said else None


def _relation(right: list, found: list, rtol: float, atol: float) -> tuple[str, str] | None:
    """A sentence about all values at once: NaN, shape, sign, factor, offset."""
    if any(other is None for other in found):
        return "it returns no number on some inputs", "A number or a tensor of numbers is wanted on every input."
    if any(not np.isfinite(other).all() for other in found):
        return "it returns NaN or infinity", "Look for the logarithm of 0, a division by 0, or exp of a large number."
    for one, other in zip(right, found, strict=True):
        if one.shape != other.shape:
            says = f"its result has shape {other.shape} where {one.shape} is wanted"
            return says, "Look at which axis is summed, kept or dropped."
    one, other = (np.concatenate([each.ravel() for each in side]) for side in (right, found))
    if np.allclose(one, other, rtol=rtol, atol=atol):
        return "its values are right and its gradients are not", "Look for what is detached, or for what is not."
    if np.allclose(-one, other, rtol=rtol, atol=atol):
        return "every value has the wrong sign", "Decide what is to become larger: a loss is what gets smaller."
    big = np.abs(one) > 10 * atol
    if big.any() and np.ptp(other[big] / one[big]) < 10 * rtol and np.allclose(other[~big], 0, atol=10 * atol):
        why = "Look for a mean where a sum belongs, a unit, or a coefficient that stands there twice."
        return "every value is off by one and the same factor", why
    if len(one) > 2 and np.ptp(other - one) < 10 * atol:
        return (
            "every value is off by one and the same amount",
            "Look for a term that is added once too often, or never.",
        )
    return None
