"""The grader's face in a notebook: `check`, `hint`, `progress`.

Importing this starts the checker in the background, so that the first check need not wait for it.
"""

from __future__ import annotations

import base64
import builtins
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType

import cloudpickle

from course_lib.grading.checker import THE_CHECKER
from course_lib.grading.display import HintText, ProgressTable, Report
from course_lib.grading.reports import LessonProgress, Verdict

LARGEST = 20_000_000  # bytes that a packed function may take
MISSING = object()

THE_CHECKER.start()


def check(task: str, function: Callable | object = MISSING) -> Report:
    """Check an answer: points, what holds and what does not, and which mistake it is. It never says what is right.

    The function is tried on inputs drawn anew, in a process of its own, with five seconds of the processor for all.

    Args:
        task: "04.2".
        function: yours; left out, the one of the task's name is looked up in the notebook.

    Raises:
        ValueError: there is no such task.
        CheckerError: the checker itself failed.
    """
    if function is MISSING:
        function = _from_notebook(THE_CHECKER.ask({"ask": "function", "task": task})["function"])
    question = {"ask": "check", "task": task}
    try:
        question["pickle"] = base64.b64encode(packed(function)).decode()
    except _Unfit as unfit:
        question |= {"says": unfit.says, "why": unfit.why}
    verdict = Verdict.from_dict(THE_CHECKER.ask(question)["verdict"])
    return Report(verdict, _from_elsewhere(function))


def hint(task: str) -> HintText:
    """The next hint for a task; each call gives one more.

    Raises:
        ValueError: there is no such task.
    """
    return HintText(task, **THE_CHECKER.ask({"ask": "hint", "task": task}))


def progress() -> ProgressTable:
    """The course at a glance: points and solved tasks, lesson by lesson."""
    found = THE_CHECKER.ask({"ask": "progress"})
    lessons = [LessonProgress(**each | {"tasks": tuple(map(tuple, each["tasks"]))}) for each in found["lessons"]]
    return ProgressTable(lessons, Path(found["file"]))


# ---- packing a function


class _Unfit(Exception):
    """Why something cannot be checked."""

    def __init__(self, says: str, why: str):
        super().__init__(says)
        self.says, self.why = says, why


def packed(function) -> bytes:
    """A function as bytes, with what it uses from the notebook."""
    if function is None:
        raise _Unfit("there is no such function yet", "Run the cell that defines it, then check again.")
    if not callable(function):
        raise _Unfit(f"{type(function).__name__} is not a function", "Pass the function itself, not what it returns.")
    if str(getattr(function, "__module__", "")).partition(".")[0] == "course_lib":
        raise _Unfit("that is course_lib's function", "Here you write the idea out yourself, in plain torch.")
    own = [module for module in list(sys.modules.values()) if _is_the_learners(module)]
    for module in own:
        cloudpickle.register_pickle_by_value(module)
    try:
        data = cloudpickle.dumps(function)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"[:300]
        raise _Unfit("it uses something that cannot be sent to the checker", why) from None
    finally:
        for module in own:
            cloudpickle.unregister_pickle_by_value(module)
    if len(data) > LARGEST:
        raise _Unfit("it drags large data of the notebook along", "Let it work with its inputs alone.")
    return data


def _is_the_learners(module: ModuleType) -> bool:
    """Whether a module is a file of the learner's own, which the sandbox does not have."""
    name, file = getattr(module, "__name__", ""), getattr(module, "__file__", None)
    if not file or name.partition(".")[0] in ("__main__", "course_lib"):
        return False
    return not file.startswith((sys.prefix, sys.base_prefix, sysconfig.get_paths()["stdlib"]))


def _from_notebook(name: str):
    shell = getattr(builtins, "get_ipython", lambda: None)()
    space = shell.user_ns if shell else vars(sys.modules["__main__"])
    return space.get(name)


def _from_elsewhere(function) -> tuple[str, ...]:
    """A note if an answer leans on functions of other cells, which a graded submission does not have."""
    if not isinstance(function, FunctionType) or "ipykernel" not in function.__code__.co_filename:
        return ()
    used = {name: function.__globals__.get(name) for name in function.__code__.co_names}
    helpers = [
        name for name, value in used.items()
        if isinstance(value, FunctionType) and value.__module__ == "__main__"
        and value.__code__.co_filename != function.__code__.co_filename
    ]  # fmt: skip
    if not helpers:
        return ()
    return (f"It uses {', '.join(helpers)} from another cell. Only the answer's own cell is handed in: move it there.",)
