"""Proves a bank: right answers pass, wrong ones fail and are known by name, and faults made by machine are noticed."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from course_lib.grading.judgement import outcomes_of
from course_lib.grading.mutation import mutants
from course_lib.grading.reports import Verdict
from course_lib.grading.task import KINDS, Task, compiled
from course_lib.grading.verdict import is_right, judge

SEEDS = range(5)
FEWEST_MISTAKES, FEWEST_HINTS = 3, 2
SECONDS_A_MUTANT = 5


def verdict_on(task: Task, function: Callable, seed: int = 0) -> Verdict:
    """The verdict on a trusted function, without a sandbox."""
    cases = task.draw_cases(seed)
    return judge(task, cases, outcomes_of(task, cases, function))


def faults(task: Task) -> list[str]:
    """Everything that keeps a task from being proved; none if it is."""
    found = [*_form(task)]
    if not found:
        for check in (_right_answers, _worthless_answers, _mistakes):
            found += check(task)
    return [f"{task.id}: {fault}" for fault in dict.fromkeys(found)]


def proof_of(task: Task) -> tuple[str, list[str]]:
    """A line that says what was tried, and the faults, machine-made mutants included."""
    found = faults(task)
    count, left = len(machine_mutants(task)), survivors(task)
    found += [f"{task.id}: not noticed: {each}" for each in left if each not in task.equivalent]
    found += [f"{task.id}: listed as equivalent, but noticed: {each}" for each in task.equivalent if each not in left]
    return (
        f"{task.id} {task.title}: {len(task.mistakes)} mistakes, {count - len(left)} of {count} mutants noticed",
        found,
    )


def _form(task: Task) -> Iterator[str]:
    if task.kind not in KINDS:
        yield f"its kind {task.kind!r} is none of {', '.join(KINDS)}"
    if len(task.mistakes) < FEWEST_MISTAKES:
        yield f"it has {len(task.mistakes)} mistakes, fewer than {FEWEST_MISTAKES}"
    if len(task.hints) < FEWEST_HINTS:
        yield f"it has {len(task.hints)} hints, fewer than {FEWEST_HINTS}"
    if not task.also_correct:
        yield "it has no right answer that is written in another way"
    if not task.properties:
        yield "it has no property"
    for mistake in task.mistakes:
        if bool(mistake.edit) == bool(mistake.function):
            yield f"{mistake.name!r} needs either an edit or a function"
        else:
            try:
                task.mutant(mistake)
            except (ValueError, SyntaxError) as error:
                yield f"{mistake.name!r} cannot be made: {error}"


def _right_answers(task: Task) -> Iterator[str]:
    answers = {"the reference": task.reference, "the reference in doubles": doubled(task)}
    answers |= {f"also_correct[{n}]": function for n, function in enumerate(task.also_correct)}
    for name, function in answers.items():
        for seed in SEEDS:
            found = verdict_on(task, function, seed)
            if not found.passed:
                yield f"{name} fails (seed {seed}): {found.diagnosis} {found.example}"
                break


def doubled(task: Task) -> Callable:
    """The reference, computed in double precision."""

    def wide(value):
        if isinstance(value, torch.Tensor):
            return value.double() if value.is_floating_point() else value
        return [wide(item) for item in value] if isinstance(value, list) else value

    def function(*args, **named):
        return task.reference(*map(wide, args), **{name: wide(value) for name, value in named.items()})

    return function


def worthless(task: Task) -> dict[str, Callable]:
    """Answers that know nothing: constants, inputs, errors; one constant is a right value of some input."""

    def raising(*_, **__):
        raise RuntimeError("no")

    once = task.reference(*_split(task, task.draw_cases(0)[0][1])[0], **_split(task, task.draw_cases(0)[0][1])[1])
    constants = [None, 0, 1, 0.5, -1.0, "", [], {}, True, torch.tensor(0.0), torch.zeros(2), once]
    answers = {f"constant {constant!r}"[:80]: _constant(constant) for constant in constants}
    count = len(task.draw_cases(0)[0][1])
    answers |= {f"input {n}": (lambda *args, n=n, **named: [*args, *named.values()][n]) for n in range(count)}
    return answers | {"raises": raising}


def _constant(value) -> Callable:
    return lambda *_, **__: value


def _split(task: Task, inputs: dict) -> tuple[list, dict]:
    named = {name: inputs[name] for name in task.keyword_only}
    return [value for name, value in inputs.items() if name not in named], named


def _worthless_answers(task: Task) -> Iterator[str]:
    for name, function in worthless(task).items():
        if any(_is_right(task, function, seed) for seed in SEEDS):
            yield f"an answer that knows nothing gets points: {name}"


def _is_right(task: Task, function: Callable, seed: int) -> bool:
    cases = task.draw_cases(seed)
    return is_right(task, cases, outcomes_of(task, cases, function))


def _mistakes(task: Task) -> Iterator[str]:
    for mistake in task.mistakes:
        for seed in SEEDS:
            found = verdict_on(task, task.mutant(mistake), seed)
            if found.passed:
                yield f"{mistake.name!r} passes (seed {seed})"
                break
            if found.diagnosis.mistakes != (mistake.name,):
                yield f"{mistake.name!r} is taken for {found.diagnosis.says!r} (seed {seed})"
                break


def machine_mutants(task: Task) -> dict[str, str]:
    """Each mutant's description, and its source."""
    return dict(mutants(task.source))


def survivors(task: Task, seeds: Sequence[int] = SEEDS) -> list[str]:
    """Mutants made by machine that get points, by description."""
    return [said for said, source in machine_mutants(task).items() if gets_points(task, source, seeds)]


def gets_points(task: Task, source: str, seeds: Sequence[int] = SEEDS) -> bool:
    """Whether the function that a trusted source defines is right on the inputs of every seed."""
    try:
        function = compiled(source, task.reference)
        with _within(SECONDS_A_MUTANT):
            return all(_is_right(task, function, seed) for seed in seeds)
    except (_Late, SyntaxError):
        return False


class _Late(BaseException):
    """Passes through whatever catches exceptions in an answer."""


@contextmanager
def _within(seconds: int):
    """A limit on trusted code that may loop for ever; main thread of a POSIX system only."""

    def stop(*_):
        raise _Late

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
