"""Answers out of submitted notebooks: only their answers' cells are looked at, and only as text."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from course_lib.grading.task import Task

LARGEST_NOTEBOOK = 20_000_000  # bytes


class SubmissionError(ValueError):
    """A file that cannot be graded; the message says why."""


def answer_id(task: str) -> str:
    """The id that a task's answer cell has in its notebook."""
    return f"answer-{task.replace('.', '-')}"


def answers(path: Path, tasks: Sequence[Task]) -> dict[str, str]:
    """The cell that answers each task: the one with its id, or else the last that defines its function.

    Raises:
        SubmissionError: the file is no notebook.
    """
    cells = code_cells(path)
    found = {}
    for task in tasks:
        own = [cell for cell in cells if cell.get("id") == answer_id(task.id) and defines(_source(cell), task.function)]
        others = [cell for cell in cells if defines(_source(cell), task.function)]
        if own or others:
            found[task.id] = without_magics(_source((own or others)[-1]))
    return found


def code_cells(path: Path) -> list[dict]:
    """A notebook's code cells.

    Raises:
        SubmissionError: it is a link, too large, or not a notebook.
    """
    if path.is_symlink() or not path.is_file():
        raise SubmissionError("it is a link or no plain file")
    if path.stat().st_size > LARGEST_NOTEBOOK:
        raise SubmissionError(f"it is larger than {LARGEST_NOTEBOOK:,} bytes")
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return [cell for cell in cells if cell["cell_type"] == "code" and isinstance(_source(cell), str)]
    except (ValueError, KeyError, TypeError, RecursionError, OSError) as error:
        raise SubmissionError(f"it is not a notebook: {type(error).__name__}") from error


def _source(cell: dict) -> str:
    source = cell["source"]
    return "".join(source) if isinstance(source, list) else source


def defines(source: str, function: str) -> bool:
    """Whether a cell defines the function, or gives its name to something."""
    return bool(re.search(rf"^(?:async\s+def|def|class)\s+{function}\b|^{function}\s*=", source, re.M))


def without_magics(source: str) -> str:
    """A cell as plain Python: IPython's own lines are left out."""
    return re.sub(r"^[ \t]*[%!?].*$", lambda found: "pass  # " + found[0].strip(), source, flags=re.M)
