"""One answer beside the reference, case by case: what holds, and the smallest input on which something does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from course_lib.grading import outcomes
from course_lib.grading.comparing import agree, as_array, shown, size
from course_lib.grading.outcomes import Outcome
from course_lib.grading.reports import Example
from course_lib.grading.task import Task
from course_lib.grading.worker import outcome

Cases = Sequence[tuple[int, dict]]


def outcomes_of(task: Task, cases: Cases, function: Callable) -> list[dict]:
    """What a trusted function does with the cases, as a worker would send it."""
    return [outcome(function, inputs, task.keyword_only, task.gradient_of) for _, inputs in cases]


class Judgement:
    """One answer beside the reference, case by case."""

    def __init__(self, task: Task, cases: Cases, found: Sequence[dict], ended: str | None):
        self.task, self.cases, self.ended = task, cases, ended
        self.found = [outcomes.read(each) for each in found[: len(cases)]]
        self.found += [Outcome()] * (len(cases) - len(self.found))
        self.expected = [outcomes.read(each) for each in outcomes_of(task, cases, task.reference)]
        self.holds = [self._right(number) for number in range(len(cases))]

    def _right(self, number: int) -> bool:
        """Whether the answer is right on a case."""
        found, expected, inputs = self.found[number], self.expected[number], self.cases[number][1]
        if not found.returned:
            return False
        try:
            if self.task.accepts is None:
                return self.alike(expected, found, equal_nan=False)
            return bool(self.task.accepts(inputs, found.value)) and self._gradients_alike(expected, found, False)
        except Exception:  # a value that no reference foresaw, and no `accepts` can read
            return False

    def alike(self, one: Outcome, other: Outcome, equal_nan: bool) -> bool:
        """Whether two outcomes are the same: values and gradients, or the kind of error."""
        if one.error or other.error:
            return bool(one.error and other.error) and one.error["type"] == other.error["type"]
        return self.same(one.value, other.value, equal_nan) and self._gradients_alike(one, other, equal_nan)

    def same(self, one, other, equal_nan: bool = False) -> bool:
        return agree(one, other, self.task.rtol, self.task.atol, equal_nan)

    def _gradients_alike(self, one: Outcome, other: Outcome, equal_nan: bool) -> bool:
        return not self.task.gradient_of or self.same(one.gradients, other.gradients, equal_nan)

    def value_is_right(self, number: int) -> bool:
        return self.same(self.expected[number].value, self.found[number].value)

    def property(self, number: int) -> tuple[str, bool]:
        """A property's name, and whether it holds; if its gradients alone are wrong, the name says so."""
        own = [n for n, (property_, _) in enumerate(self.cases) if property_ == number]
        name, wrong = self.task.properties[number].name, [n for n in own if not self.holds[n]]
        by_gradient = self.task.gradient_of and wrong and all(map(self.value_is_right, wrong))
        return f"{name} (the value does, the gradient does not)" if by_gradient else name, not wrong

    @cached_property
    def smallest_failure(self) -> int:
        """The smallest case that is wrong; of those with NaN or infinity, if there are any."""
        wrong = [n for n, ok in enumerate(self.holds) if not ok] or [0]
        infinite = [n for n in wrong if not finite(self.found[n].value)]
        return min(infinite or wrong, key=lambda n: (self.found[n].missing, size(self.cases[n][1])))

    def example(self) -> Example | None:
        """The smallest failure as the learner would type it; none if the answer did not get so far."""
        found, (number, inputs) = self.found[self.smallest_failure], self.cases[self.smallest_failure]
        if found.error and found.error["type"] != "NotImplementedError":
            did = f"raised {found.error['type']}: {found.error['message']}"
        elif found.returned:
            did = f"returned {shown(found.value)}"
            if self.task.gradient_of and self.value_is_right(self.smallest_failure):
                did += f", with the gradients {shown(found.gradients)}"
        else:
            return None
        given = ", ".join(f"{name}={shown(value)}" for name, value in inputs.items())
        return Example(self.task.properties[number].name, f"{self.task.function}({given})", did)

    def notes(self) -> tuple[str, ...]:
        changed = sorted({name for each in self.found for name in each.changed} & set(self.cases[0][1]))
        said = f"It changes its input {', '.join(changed)} in place: whoever calls it may not expect that."
        return (said,) if changed else ()


def finite(value) -> bool:
    """Whether a value holds neither NaN nor infinity."""
    numbers = as_array(value)
    return numbers is None or bool(np.isfinite(numbers).all())
