"""The grader's face in a notebook: `check`, `hint`, `progress`.

Importing this starts the checker in the background, so that the first check need not wait for it.
"""

from __future__ import annotations

import ast
import base64
import builtins
import dis
import functools
import linecache
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

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
    if not isinstance(task, str):
        raise ValueError('the task comes first, as text: check("04.2", dpo_loss)')
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
    if isinstance(function, functools._lru_cache_wrapper):
        function = function.__wrapped__
    already = cloudpickle.list_registry_pickle_by_value()
    own = [
        module for name, module in list(sys.modules.items()) if name not in already and _is_the_learners(name, module)
    ]
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


def _is_the_learners(name: str, module) -> bool:
    """Whether a module is a file of the learner's own, which the sandbox does not have."""
    if not isinstance(module, ModuleType) or name.partition(".")[0] in ("__main__", "course_lib"):
        return False
    file = vars(module).get("__file__")
    if not isinstance(file, str) or vars(module).get("__name__") != name:
        return False
    return not file.startswith((sys.prefix, sys.base_prefix, sysconfig.get_paths()["stdlib"]))


def _from_notebook(name: str):
    shell = getattr(builtins, "get_ipython", lambda: None)()
    space = shell.user_ns if shell else vars(sys.modules["__main__"])
    return space.get(name)


def _from_elsewhere(function) -> tuple[str, ...]:
    """A note if an answer leans on what other cells define, which a graded submission does not have."""
    code = getattr(function, "__code__", None)
    if code is None or "ipykernel" not in code.co_filename:
        return ()
    cell = "".join(linecache.getlines(code.co_filename))
    given = {*dir(builtins), "math", "np", "torch", "F", *_defined(cell)}
    used = {each.argval for each in dis.get_instructions(code) if each.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    missing = sorted(used - given)
    if not missing:
        return ()
    return (f"It uses {', '.join(missing)} from another cell. Only the answer's own cell is handed in: move it there.",)


def _defined(cell: str) -> set[str]:
    """Names that a cell's own lines define."""
    try:
        tree = ast.parse(cell)
    except SyntaxError:
        return set()
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    names |= {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    imports = [
        alias for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom)) for alias in node.names
    ]
    return names | {(alias.asname or alias.name).partition(".")[0] for alias in imports}
