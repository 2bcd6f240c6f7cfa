"""All graded tasks: one file a lesson, each with its `TASKS`."""

from __future__ import annotations

from difflib import get_close_matches
from functools import cache
from importlib import import_module
from pathlib import Path

from course_lib.grading.task import Task


class UnknownTask(ValueError):
    """There is no task or lesson of that name; the message says which there are."""


def lessons() -> list[str]:
    """Numbers of the lessons that have tasks."""
    return sorted(path.stem[-2:] for path in Path(__file__).parent.glob("lesson_[0-9][0-9].py"))


@cache
def _tasks(lesson: str) -> dict[str, Task]:
    return {task.id: task for task in import_module(f"{__name__}.lesson_{lesson}").TASKS}


def all_tasks() -> dict[str, Task]:
    """Every task by its id, in the order of the lessons."""
    return {name: task for lesson in lessons() for name, task in _tasks(lesson).items()}


def task_of(name: str) -> Task:
    """The task with this id.

    Raises:
        UnknownTask: there is none.
    """
    lesson = str(name).partition(".")[0]
    if lesson in lessons() and name in _tasks(lesson):
        return _tasks(lesson)[name]
    near = get_close_matches(str(name), all_tasks(), n=3) or list(all_tasks())[:3]
    raise UnknownTask(f"there is no task {name!r}; did you mean {' or '.join(map(repr, near))}?")


def tasks_of(lesson: str) -> list[Task]:
    """The tasks of a lesson, "04", or the one task of that name.

    Raises:
        UnknownTask: there are none.
    """
    return list(_tasks(lesson).values()) if lesson in lessons() else [task_of(lesson)]
