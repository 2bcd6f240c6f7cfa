"""Exercises from solutions: `solutions/*.ipynb` are the source, `exercises/*.ipynb` are made of them.

python tools/exercises.py write    make exercises/ anew
python tools/exercises.py check    exit 1 if an exercise is not what its solution makes
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import nbformat

from course_lib.grading.bank import all_tasks
from course_lib.grading.submissions import answer_id

ROOT = Path(__file__).resolve().parent.parent
SOLUTIONS, EXERCISES = ROOT / "solutions", ROOT / "exercises"
# The marks are those of nbgrader, so that its users can take solutions/ as their source too.
SOLUTION = re.compile(r"^([ \t]*)### BEGIN SOLUTION\n.*?### END SOLUTION\n", re.M | re.S)
STUB = "raise NotImplementedError  # replace this line"


def exercise_of(path: Path) -> str:
    """The exercise notebook that a solution notebook makes: no answers, no outputs, no cells tagged "solution"."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.source = SOLUTION.sub(rf"\1{STUB}\n", cell.source + "\n").rstrip("\n")
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    show_bugs(notebook)
    notebook.cells = [cell for cell in notebook.cells if "solution" not in cell.metadata.get("tags", [])]
    for cell in notebook.cells:
        cell.metadata.pop("tags", None)
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def show_bugs(notebook) -> None:
    """Where the task is to fix a bug, the answer's cell holds the bug: the bank's first mistake."""
    cells = {cell.id: cell for cell in notebook.cells}
    for task in all_tasks().values():
        if task.kind == "fix the bug" and answer_id(task.id) in cells:
            cells[answer_id(task.id)].source = task.mutant_source(task.mistakes[0]).rstrip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["write", "check"])
    options = parser.parse_args()
    wanted = {path.name: exercise_of(path) for path in sorted(SOLUTIONS.glob("*.ipynb"))}
    EXERCISES.mkdir(exist_ok=True)
    present = {path.name: path.read_text(encoding="utf-8") for path in EXERCISES.glob("*.ipynb")}
    if options.command == "write":
        for name in present.keys() - wanted.keys():
            (EXERCISES / name).unlink()
        for name, text in wanted.items():
            (EXERCISES / name).write_text(text, encoding="utf-8")
        return 0
    stale = sorted(name for name in wanted.keys() | present.keys() if wanted.get(name) != present.get(name))
    for name in stale:
        print(f"exercises/{name} is not what solutions/{name} makes: run `python tools/exercises.py write`")
    return min(len(stale), 1)


if __name__ == "__main__":
    sys.exit(main())
