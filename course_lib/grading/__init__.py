"""Graded exercises: `check`, `hint`, `progress` and `panel` in a notebook, `grade` for a folder of submissions.

An answer is a function. It runs on drawn inputs in a sandbox, comes back as plain data, and is compared with a
reference and with each named mistake. By what they do, the files are

    what a task is        task, bank/ (the tasks), mutation and proof (what proves them)
    running an answer     worker (inside the sandbox), sandbox, outcomes (what came back, read with suspicion)
    judging it            comparing, judgement, diagnosis, verdict, reports (the plain values that a learner is told)
    in a notebook         notebook and panels -> checker (a process of its own) -> desk; records, display
    for a class           batch, submissions, tables
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
