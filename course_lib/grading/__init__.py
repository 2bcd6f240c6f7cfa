"""Graded exercises: `check`, `hint`, `progress` and `panel` in a notebook, `grade` for a folder of submissions.

An answer is a function. It runs in a worker (`worker`), boxed in by `sandbox`, on inputs that its `task` draws; what it
returns comes back as plain data, and `verdict` compares that with the task's reference and with each named mistake.
`checker` does so for a notebook, `batch` for a class. The tasks are in `bank`; `proof` proves them.
"""

from importlib import import_module

_HOMES = {
    "check": "notebook", "hint": "notebook", "progress": "notebook", "panel": "panels", "grade": "batch",
    "all_tasks": "bank", "Task": "task", "Property": "task", "Mistake": "task", "Draw": "task", "Verdict": "reports",
}  # fmt: skip

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
