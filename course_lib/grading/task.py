"""What a graded task is made of: a reference, properties with drawn inputs, and named mistakes."""

from __future__ import annotations

import inspect
import random
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

KINDS = (
    "implement",
    "fix the bug",
    "predict, then run",
    "calculate",
    "read the curve",
    "choose the method",
)


class Draw(random.Random):
    """Random inputs that are good to read: few digits, small sizes."""

    def number(self, low: float, high: float, digits: int = 2) -> float:
        return round(self.uniform(low, high), digits)

    def numbers(self, *shape: int, low: float = -3.0, high: float = 3.0, digits: int = 2) -> Tensor:
        """An fp32 tensor of the given shape, evenly drawn from `low` to `high`, rounded."""
        values = [self.number(low, high, digits) for _ in range(_product(shape))]
        return torch.tensor(values).reshape(shape)

    def distinct(self, *shape: int, low: float = -3.0, high: float = 3.0, digits: int = 2) -> Tensor:
        """As `numbers`, with no two values alike."""
        steps = range(round(low * 10**digits), round(high * 10**digits) + 1)
        return torch.tensor([step / 10**digits for step in self.sample(steps, _product(shape))]).reshape(shape)

    def integers(self, *shape: int, low: int, high: int) -> Tensor:
        """An int64 tensor, both ends included."""
        return torch.tensor([self.randint(low, high) for _ in range(_product(shape))]).reshape(shape)

    def mask(self, rows: int, columns: int, *, least: int = 1) -> Tensor:
        """A boolean tensor that is True on the first few columns of each row, as right padding leaves it."""
        lengths = [self.randint(least, columns) for _ in range(rows)]
        return torch.arange(columns) < torch.tensor(lengths)[:, None]


def _product(shape: Sequence[int]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product


@dataclass(frozen=True)
class Property:
    """Something that a right answer does, and inputs on which a wrong one fails to.

    Args:
        name: a sentence that is true of the reference: "adding a constant to both log-probs changes nothing".
        cases: from a `Draw` to a few inputs, each a dict in the order of the parameters, the smallest first.
    """

    name: str
    cases: Callable[[Draw], Iterable[dict]]


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that people really write.

    Args:
        name: how it is called to the learner: "the pair is swapped".
        why: why it is wrong, in one or two sentences, and what it leads to.
        lesson: where it is explained: "04, The loss".
        edit: what it changes in the reference: (old, new), or several such pairs; each `old` stands there exactly once.
        function: the wrong answer itself, where an edit cannot say it.
    """

    name: str
    why: str
    lesson: str
    edit: tuple = ()
    function: Callable | None = None

    @property
    def where(self) -> str:
        """The heading as plain text."""
        return self.lesson.replace("*", "")

    @property
    def edits(self) -> tuple[tuple[str, str], ...]:
        return (self.edit,) if self.edit and isinstance(self.edit[0], str) else tuple(self.edit)


@dataclass(frozen=True)
class Task:
    """One exercise.

    Args:
        id: lesson and place, "04.2".
        title: a few words.
        kind: one of `KINDS`.
        points: earned when every property holds, and only then.
        difficulty: "easy", "medium" or "hard".
        minutes: what a learner who has read the lesson needs.
        reference: a right answer; the learner's function has its name and parameters. It stands alone: what it needs
            beside math, np, torch and F, it holds.
        properties: in the order in which a learner would look at them.
        mistakes: at least three; for "fix the bug", the first is the bug that the exercise shows.
        hints: from a nudge to nearly the answer.
        also_correct: right answers, written in another way.
        gradient_of: parameters by which the sum of the result is differentiated; the gradients are compared too.
        accepts: `(inputs, value) -> bool` where several answers are right; by default the reference's value alone is.
        rtol, atol: how near a number must come.
        equivalent: mutants made by machine that change nothing, as `check-tasks` names them, with the reason.
    """

    id: str
    title: str
    kind: str
    points: int
    difficulty: str
    minutes: int
    reference: Callable
    properties: Sequence[Property]
    mistakes: Sequence[Mistake]
    hints: Sequence[str]
    also_correct: Sequence[Callable] = ()
    gradient_of: Sequence[str] = ()
    accepts: Callable[[dict, object], bool] | None = None
    rtol: float = 1e-3
    atol: float = 1e-4
    equivalent: dict[str, str] = field(default_factory=dict)

    @property
    def function(self) -> str:
        """The name that the learner's function has."""
        return self.reference.__name__

    @property
    def lesson(self) -> str:
        return self.id.partition(".")[0]

    @cached_property
    def keyword_only(self) -> list[str]:
        parameters = inspect.signature(self.reference).parameters.values()
        return [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]

    @cached_property
    def _mutants(self) -> dict[tuple[str, ...], Callable]:
        return {}

    @cached_property
    def source(self) -> str:
        return textwrap.dedent(inspect.getsource(self.reference))

    def mutant(self, *mistakes: Mistake) -> Callable:
        """The function that makes all of these mistakes.

        Raises:
            ValueError: an edit's old text does not stand in the source exactly once.
        """
        names = tuple(mistake.name for mistake in mistakes)
        if names not in self._mutants:
            function = mistakes[0].function if len(mistakes) == 1 else None
            made = as_written(function) if function else compiled(self.mutant_source(*mistakes), self.reference)
            self._mutants[names] = made
        return self._mutants[names]

    def mutant_source(self, *mistakes: Mistake) -> str:
        source = self.source
        for old, new in (edit for mistake in mistakes for edit in mistake.edits):
            if source.count(old) != 1:
                raise ValueError(f"{self.id}: {old!r} stands {source.count(old)} times in the reference, not once")
            source = source.replace(old, new)
        return source

    def draw_cases(self, seed: int | None = None) -> list[tuple[int, dict]]:
        """Fresh inputs: (number of the property, inputs). No seed: new ones each time."""
        draw = Draw(seed)
        return [(number, inputs) for number, each in enumerate(self.properties) for inputs in each.cases(draw)]


def as_written(function: Callable) -> Callable:
    """A function of the bank as a learner would have it: its source, run outside the package."""
    return compiled(textwrap.dedent(inspect.getsource(function)), function)


def compiled(source: str, like: Callable) -> Callable:
    """The function that a source defines, in the globals of another one; it counts as the learner's own."""
    space = {**like.__globals__, "__name__": "learner"}
    exec(compile(source, "<an answer>", "exec"), space)
    return space[like.__name__]
