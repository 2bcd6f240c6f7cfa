"""Answers out of submitted notebooks: only their answers' cells are looked at, and only as text."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from course_lib.grading.task import Task

LARGEST_NOTEBOOK = 20_000_000  # bytes
MOST_CELLS = 1_000


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
        own = [cell for cell in cells if cell.get("id") == answer_id(task.id)]
        named = [cell for cell in cells if defines(source_of(cell), task.function)]
        candidates = [cell for cell in own if cell in named] or named or own
        if candidates:
            found[task.id] = source_of(candidates[-1])
    return found


def code_cells(path: Path) -> list[dict]:
    """A notebook's code cells.

    Raises:
        SubmissionError: it is a link, too large, or not a notebook.
    """
    check_file(path)
    try:
        cells = json.loads(path.read_text(encoding="utf-8-sig"))["cells"]
        found = [cell for cell in cells if cell["cell_type"] == "code" and isinstance(source_of(cell), str)]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise SubmissionError(f"it is not a notebook: {type(error).__name__}") from error
    if len(found) > MOST_CELLS:
        raise SubmissionError(f"it has more than {MOST_CELLS:,} cells of code")
    return found


def check_file(path: Path) -> None:
    """Refuse what is not to be opened.

    Raises:
        SubmissionError: it is a link, no plain file, or too large.
    """
    if path.is_symlink() or not path.is_file():
        raise SubmissionError("it is a link or no plain file")
    if path.stat().st_size > LARGEST_NOTEBOOK:
        raise SubmissionError(f"it is larger than {LARGEST_NOTEBOOK:,} bytes")


def source_of(cell: dict) -> str:
    """A cell's text; a cell without one is empty."""
    source = cell.get("source", "")
    return "".join(source) if isinstance(source, list) else source


def defines(source: str, function: str) -> bool:
    """Whether a cell defines the function, or gives its name to something."""
    return bool(
        re.search(rf"^(?:async\s+def|def|class)\s+{function}\b|^{function}\s*(?::[^=\n]*)?=(?!=)", source, re.M)
    )
