"""Running the lessons proves something: a cell that is cut off by its time limit fails the run."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
OPTIONS = re.search(r"^NBVAL := (.*)$", (ROOT / "Makefile").read_text(), re.M)[1].split()

PATIENT = """
import time
try:
    time.sleep(60)
except KeyboardInterrupt:  # as a trainer does, which stops after its step and keeps what it has
    pass
"""


def run(tmp_path, *cells: str, limit: int) -> subprocess.CompletedProcess:
    v4 = nbformat.v4
    notebook = v4.new_notebook(cells=[v4.new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, tmp_path / "a.ipynb")
    options = [option for option in OPTIONS if "timeout" not in option]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        *options,
        f"--nbval-cell-timeout={limit}",
        "-p",
        "no:cacheprovider",
    ]
    return subprocess.run([*command, "a.ipynb"], cwd=tmp_path, capture_output=True, text=True)


@pytest.mark.slow
def test_a_cell_that_outlasts_its_limit_fails_the_run_even_if_it_stops_gracefully(tmp_path):
    done = run(tmp_path, PATIENT, "print('and on')", limit=3)
    assert done.returncode == 1, done.stdout


@pytest.mark.slow
def test_a_cell_within_its_limit_passes(tmp_path):
    done = run(tmp_path, "print('quick')", limit=60)
    assert done.returncode == 0, done.stdout


def test_the_limit_is_far_above_what_a_lesson_takes():
    (limit,) = [int(option.partition("=")[2]) for option in OPTIONS if "timeout" in option]
    assert limit >= 600
