"""From what a function returned to what its author is told: what holds, which mistake it is, what it shows on.

The trusted half of the grader: it holds the reference and sees answers as plain data only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np

from course_lib.grading.comparing import agree, as_array, shown, size, value_of
from course_lib.grading.reports import Diagnosis, Example, Verdict
from course_lib.grading.task import Mistake, Task
from course_lib.grading.worker import encode, outcome

ENDINGS = {
    "time": ("it did not finish in time", "Look for a loop that never ends, or a condition that never turns false."),
    "exit": ("it ended the process it ran in", "An answer returns a value; it neither exits nor uses up the memory."),
    "output": ("it returned far too much", "The result should be no larger than the inputs call for."),
}


def request_for(task: Task, cases: Sequence[tuple[int, dict]], answer: dict, seconds: float) -> dict:
    """What a worker is asked; `answer` is {"pickle"} or {"cell", "name"}.

    `seconds` are the processor's; by the clock an answer may take twice as long, since a busy machine shares it.
    """
    calls = [encode(inputs) for _, inputs in cases]
    settings = {"keyword_only": list(task.keyword_only), "gradient_of": list(task.gradient_of)}
    return answer | settings | {"calls": calls, "seconds": seconds, "clock": 2 * seconds}


def outcomes_of(task: Task, cases: Sequence[tuple[int, dict]], function: Callable) -> list[dict]:
    """What a trusted function does with the cases."""
    return [outcome(function, inputs, task.keyword_only, task.gradient_of) for _, inputs in cases]


def judge(task: Task, cases: Sequence[tuple[int, dict]], outcomes: Sequence[dict], ended: str | None = None) -> Verdict:
    """The verdict on an answer's outcomes, which may be fewer than the cases if it was stopped."""
    return _Judgement(task, cases, outcomes, ended).verdict()


def is_right(task: Task, cases: Sequence[tuple[int, dict]], outcomes: Sequence[dict]) -> bool:
    """Whether every outcome is a right one: the verdict without its reasons."""
    return all(_Judgement(task, cases, outcomes, None).holds)


def refusal(task: Task, says: str, why: str = "") -> Verdict:
    """No points, for a reason that no input shows."""
    return Verdict(task.id, task.title, 0, task.points, diagnosis=Diagnosis(says, why))


class _Judgement:
    """One answer beside the reference; the parts of its verdict."""

    def __init__(self, task: Task, cases, outcomes, ended):
        self.task, self.cases, self.ended = task, cases, ended
        self.found = [each if isinstance(each, dict) else {} for each in outcomes][: len(cases)]
        self.found += [{} for _ in range(len(cases) - len(self.found))]
        self.expected = outcomes_of(task, cases, task.reference)
        self.holds = [self._right(n, one) for n, one in enumerate(self.found)]

    def verdict(self) -> Verdict:
        task = self.task
        undefined = self.found[0].get("undefined") if self.found else None
        if undefined:
            return refusal(task, *_undefined(task, undefined))
        passed = all(self.holds) and self.ended is None
        return Verdict(
            task.id, task.title, task.points if passed else 0, task.points,
            properties=tuple(self._property(number) for number in range(len(task.properties))),
            diagnosis=None if passed else self.diagnosis(),
            example=None if passed else self.example(),
            notes=self.notes(),
        )  # fmt: skip

    def _property(self, number: int) -> tuple[str, bool]:
        """A property's name, and whether it holds; if its gradients alone are wrong, the name says so."""
        own = [n for n, (property_, _) in enumerate(self.cases) if property_ == number]
        name, wrong = self.task.properties[number].name, [n for n in own if not self.holds[n]]
        by_gradient = self.task.gradient_of and wrong and all(self._agree_value(n) for n in wrong)
        return f"{name} (the value does, the gradient does not)" if by_gradient else name, not wrong

    def _right(self, number: int, found: dict) -> bool:
        """Whether an outcome is a right one on its case."""
        if "value" not in found:
            return False
        try:
            value = value_of(found)
            if self.task.accepts is None:
                right = self._agree(value_of(self.expected[number]), value)
            else:
                right = bool(self.task.accepts(self.cases[number][1], value))
            return right and self._gradients_agree(self.expected[number], found)
        except Exception:  # a value that no reference foresaw, and no `accepts` can read
            return False

    def _agree(self, expected, found, equal_nan: bool = False) -> bool:
        return agree(expected, found, self.task.rtol, self.task.atol, equal_nan)

    def _gradients_agree(self, expected: dict, found: dict, equal_nan: bool = False) -> bool:
        if not self.task.gradient_of:
            return True
        return self._agree(value_of(expected, "gradients"), value_of(found, "gradients"), equal_nan)

    # ---- what it is

    def diagnosis(self) -> Diagnosis:
        kinds = (
            self._unwritten,
            self._constant,
            self._named,
            self._stopped,
            self._raised,
            self._container,
            self._related,
        )
        return next(said for said in (kind() for kind in kinds) if said)

    def _unwritten(self) -> Diagnosis | None:
        errors = [each.get("error", {}).get("type") for each in self.found]
        if errors and all(error == "NotImplementedError" for error in errors):
            return Diagnosis("it is not written yet", "The function still raises NotImplementedError.")
        values = [each.get("value", 0) for each in self.found]
        if values and all(value is None for value in values):
            return Diagnosis("it returns nothing", "The function ends without a `return`, or returns None.")
        return None

    def _constant(self) -> Diagnosis | None:
        """The same for every input, where the right values differ."""
        if self.ended or len(self.found) < 3 or not all("value" in each for each in self.found):
            return None
        theirs, right = ({repr(each["value"]) for each in side} for side in (self.found, self.expected))
        if len(theirs) > 1 or len(right) == 1 or not _finite(_value_or_none(self.found[0])):
            return None
        return Diagnosis("it returns the same whatever it is given", "Look for an input that is never used.")

    def _stopped(self) -> Diagnosis | None:
        return Diagnosis(*ENDINGS[self.ended]) if self.ended in ENDINGS else None

    def _named(self) -> Diagnosis | None:
        """The bank's mistake, or two of its mistakes, that would have returned just this."""
        if self.ended:
            return None
        for mistake in self.task.mistakes:
            if self._is(self.task.mutant(mistake)):
                return Diagnosis(mistake.name, mistake.why, mistake.where, (mistake.name,))
        for pair in combinations([each for each in self.task.mistakes if not each.function], 2):
            if self._is(_both(self.task, pair)):
                one, other = pair
                return Diagnosis(
                    f"two mistakes at once: {one.name}, and {other.name}",
                    f"{one.why} And: {other.why}",
                    one.where if one.where == other.where else f"{one.where}; {other.where}",
                    (one.name, other.name),
                )
        return None

    def _is(self, wrong: Callable | None) -> bool:
        """Whether a wrong function does what the answer did, on every case."""
        if wrong is None:
            return False
        for (_, inputs), found in zip(self.cases, self.found, strict=True):
            theirs = outcome(wrong, inputs, self.task.keyword_only, self.task.gradient_of)
            if not self._alike(theirs, found):
                return False
        return True

    def _alike(self, one: dict, other: dict) -> bool:
        if "error" in one or "error" in other:
            return one.get("error", {}).get("type") == other.get("error", {}).get("type")
        try:
            return self._agree(value_of(one), value_of(other), True) and self._gradients_agree(one, other, True)
        except ValueError:
            return False

    def _raised(self) -> Diagnosis | None:
        errors = [each["error"] for each in self.found if "error" in each]
        if not errors:
            return None
        error, where = errors[0], "on every input" if len(errors) == len(self.found) else "on some inputs"
        line = f" (line {error['line']})" if error.get("line") else ""
        return Diagnosis(f"it raises {error.get('type')} {where}", f"{error.get('message')}{line}")

    def _container(self) -> Diagnosis | None:
        """A dict, a list or a text where something else is wanted, or other keys."""
        wanted, given = ([_value_or_none(each) for each in side] for side in (self.expected, self.found))
        kinds = {type(one) for one in wanted}
        if kinds == {dict}:
            keys = {tuple(one) for one in wanted}
            text = ", ".join(map(repr, keys.pop())) if len(keys) == 1 else ""
            odd = [other for other in given if not isinstance(other, dict) or (text and set(other) != set(wanted[0]))]
            says = f"it does not return a dict{' with the keys ' + text if text else ''}"
        elif kinds == {list}:
            odd = [other for other in given if not isinstance(other, (list, np.ndarray))]
            says = "it does not return a list"
        else:
            return None
        return Diagnosis(says, "The text under the function's first line says what it returns.") if odd else None

    def _related(self) -> Diagnosis:
        """How the answers are related to the right ones, where one sentence says it for all inputs."""
        if self.task.accepts is None:
            expected = [as_array(_value_or_none(each)) for each in self.expected]
            found = [as_array(_value_or_none(each)) for each in self.found]
            if said := _relation(expected, found, self.task.rtol, self.task.atol):
                return Diagnosis(*said)
        shown_on = self.task.properties[self.cases[self._smallest_failure()][0]].name
        return Diagnosis(f"this does not hold: {shown_on}", "None of the known mistakes returns exactly these values.")

    # ---- what it shows on

    def example(self) -> Example | None:
        smallest = self._smallest_failure()
        if not self.found[smallest]:
            return None  # it was stopped before
        number, inputs = self.cases[smallest]
        given = ", ".join(f"{name}={shown(value)}" for name, value in inputs.items())
        found = self.found[smallest]
        if "error" in found:
            returned = f"raised {found['error'].get('type')}: {found['error'].get('message')}"
        else:
            returned = f"returned {shown(_value_or_none(found))}"
            if self.task.gradient_of and self._agree_value(smallest):
                returned += f", with the gradients {shown(_value_or_none(found, 'gradients'))}"
        return Example(self.task.properties[number].name, f"{self.task.function}({given})", returned)

    def _smallest_failure(self) -> int:
        """The smallest case that is wrong; of those with NaN or infinity, if there are any."""
        wrong = [n for n, ok in enumerate(self.holds) if not ok] or [0]
        infinite = [n for n in wrong if not _finite(_value_or_none(self.found[n]))]
        return min(infinite or wrong, key=lambda n: (not self.found[n], size(self.cases[n][1])))

    def _agree_value(self, number: int) -> bool:
        return self._agree(_value_or_none(self.expected[number]), _value_or_none(self.found[number]))

    def notes(self) -> tuple[str, ...]:
        changed = sorted({name for each in self.found for name in each.get("changed") or ()} & set(self.cases[0][1]))
        said = f"It changes its input {', '.join(changed)} in place: whoever calls it may not expect that."
        return (said,) if changed else ()


def _both(task: Task, pair: tuple[Mistake, Mistake]) -> Callable | None:
    try:
        return task.mutant(*pair)
    except (ValueError, SyntaxError):  # the two change the same place
        return None


def _value_or_none(found: dict, key: str = "value"):
    try:
        return value_of(found, key)
    except ValueError:
        return None


def _finite(value) -> bool:
    numbers = as_array(value)
    return numbers is None or bool(np.isfinite(numbers).all())


def _undefined(task: Task, error: dict) -> tuple[str, str]:
    kind, message = error.get("type"), str(error.get("message"))
    if "course_lib" in message:
        return (f"{task.function} is course_lib's, or uses it", "Here you write the idea out yourself, in plain torch.")
    if kind == "NameError" and "defines no function" in message:
        return message, f"Keep the name {task.function}: the check looks for it."
    line = f" (line {error['line']})" if error.get("line") else ""
    return f"its cell does not run: {kind}{line}", message


def _relation(expected: list, found: list, rtol: float, atol: float) -> tuple[str, str] | None:
    """A sentence about all values at once: shape, sign, factor, offset, constancy, NaN."""
    if any(one is None for one in expected):
        return None
    if any(other is None for other in found):
        return "it returns no number on some inputs", "A number or a tensor of numbers is wanted on every input."
    if any(not np.isfinite(other).all() for other in found):
        return "it returns NaN or infinity", "Look for the logarithm of 0, a division by 0, or exp of a large number."
    wrong_shape = [(e, f) for e, f in zip(expected, found, strict=True) if e.shape != f.shape]
    if wrong_shape:
        one, other = wrong_shape[0]
        return (
            f"its result has shape {other.shape} where {one.shape} is wanted",
            "Look at which axis is summed, kept or dropped.",
        )
    one, other = (np.concatenate([each.ravel() for each in side]) for side in (expected, found))
    if np.allclose(one, other, rtol=rtol, atol=atol):
        return (
            "its values are right and its gradients are not",
            "Something is detached that should not be, or the reverse.",
        )
    if np.allclose(-one, other, rtol=rtol, atol=atol):
        return "every value has the wrong sign", "Decide what is to become larger: a loss is what gets smaller."
    big = np.abs(one) > 10 * atol
    if big.any() and np.ptp(other[big] / one[big]) < 10 * rtol and np.allclose(other[~big], 0, atol=10 * atol):
        return (
            "every value is off by one and the same factor",
            "Look for a mean where a sum belongs, a unit, or a coefficient twice.",
        )
    if len(one) > 2 and np.ptp(other - one) < 10 * atol:
        return (
            "every value is off by one and the same amount",
            "Look for a term that is added once too often, or never.",
        )
    return None
