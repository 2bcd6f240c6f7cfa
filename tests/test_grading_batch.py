"""A class graded with one command: tables, reports, what is malformed, and a run that is killed and goes on."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from course_lib.cli import main
from course_lib.grading import batch, grade
from course_lib.grading.bank import tasks_of
from course_lib.grading.batch import GradingRefused, find, lesson_tasks
from course_lib.grading.sandbox import box_trouble
from course_lib.grading.submissions import SubmissionError, answer_id, answers, code_cells, defines
from course_lib.grading.tables import file_name, summary, task_rows

ROOT = Path(__file__).parent.parent
NAME = "04_dpo_from_scratch.ipynb"
POINTS = sum(task.points for task in tasks_of("04"))
UNSAFE = box_trouble() is not None


def hand_in(folder: Path, learner: str, source: str = "solutions", name: str = NAME) -> Path:
    path = folder / learner / name
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / source / NAME, path)
    return path


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    """A small class: one right, one untouched, one malformed, one linked, one with a hostile name."""
    folder = tmp_path_factory.mktemp("class")
    hand_in(folder, "ada")
    hand_in(folder, "bob", "exercises")
    (hand_in(folder, "cyd")).write_text('{"cells": 3')
    (folder / "dan").mkdir()
    (folder / "dan" / NAME).symlink_to(ROOT / "solutions" / NAME)
    hand_in(folder, "=<b>eve", "exercises")
    os.mkfifo(folder / "dan" / "05_pipe.ipynb")
    out = folder.with_name("class-graded")
    return grade(folder, out, unsafe=UNSAFE, quiet=True), out, folder


def rows(path: Path) -> list[dict]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_points_go_to_whom_they_belong(graded):
    results, _, _ = graded
    points = {r["learner"]: sum(v["points"] for v in r["verdicts"]) for r in results}
    assert points == {"ada": POINTS, "bob": 0, "cyd": 0, "dan": 0, "=<b>eve": 0}
    assert "ada" in summary(results) and f"{POINTS}/{POINTS}" in summary(results) and "median" in summary(results)


@pytest.mark.slow
def test_what_cannot_be_graded_says_why(graded):
    results, _, _ = graded
    problems = {r["file"]: r["problem"] for r in results if r["problem"]}
    assert "not a notebook" in problems[f"cyd/{NAME}"] and "link" in problems[f"dan/{NAME}"]
    assert "no plain file" in problems["dan/05_pipe.ipynb"]
    assert any("not graded" in row["says"] for row in task_rows(results))


@pytest.mark.slow
def test_tables_hold_a_row_a_task_and_no_formula(graded):
    _, out, _ = graded
    found = rows(out / "points.csv")
    assert len([row for row in found if row["learner"] == "ada"]) == len(tasks_of("04"))
    assert not any(value.startswith(("=", "+", "@")) for row in found for value in row.values())
    assert json.loads((out / "results.json").read_text())


@pytest.mark.slow
def test_the_gradebook_has_nbgraders_columns(graded):
    _, out, _ = graded

    found = rows(out / "gradebook.csv")
    theirs = "assignment,duedate,timestamp,student_id,last_name,first_name,email,raw_score,late_submission_penalty"
    assert ",".join(found[0]) == f"{theirs},score,max_score"
    ada = {row["assignment"]: float(row["score"]) for row in found if row["student_id"] == "ada"}
    assert ada == {task.id: task.points for task in tasks_of("04")}


@pytest.mark.slow
def test_each_learner_has_a_page_that_shows_names_as_text(graded):
    _, out, _ = graded
    pages = {path.name: path.read_text() for path in (out / "reports").iterdir()}
    assert f"{POINTS} of {POINTS} points" in pages["ada.html"] and "not written yet" in pages["bob.html"]
    (eve,) = (page for name, page in pages.items() if "eve" in name)
    assert "<b>eve" not in eve and "&lt;b&gt;eve" in eve
    assert file_name("a/b") != file_name("a_b") == "a_b" and not file_name("../x").startswith(".")


@pytest.mark.slow
def test_a_second_run_grades_only_what_is_new(graded, monkeypatch):
    _, out, folder = graded
    seen = []
    monkeypatch.setattr(batch, "grade_one", lambda submission, boxed: seen.append(submission.name) or
                        {"lesson": "04", "verdicts": [], "problem": None, "seconds": 0.0})  # fmt: skip
    hand_in(folder, "fay")
    results = grade(folder, out, unsafe=UNSAFE, quiet=True)
    assert seen == [f"fay/{NAME}"] and len(results) == 7


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_where_it_was(tmp_path):
    for number in range(8):
        hand_in(tmp_path / "class", f"learner{number}")
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "course_lib",
        "grade",
        str(tmp_path / "class"),
        "--out",
        str(out),
        "--jobs",
        "1",
    ]
    command += ["--unsafe"] * UNSAFE
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kept = out / batch.RESULTS
    while not (kept.exists() and kept.read_text().count("\n") >= 2):
        assert run.poll() is None
        time.sleep(0.1)
    run.send_signal(signal.SIGKILL)
    run.wait()
    with kept.open("a") as file:
        file.write('{"key": "cut sho')
    before = kept.read_text().count("\n")
    assert subprocess.run(command, capture_output=True).returncode == 0
    lines = [line for line in kept.read_text().splitlines() if line.endswith("}")]
    assert before < 8 and len(lines) == 8
    assert len(rows(out / "points.csv")) == 8 * len(tasks_of("04"))


def test_without_bubblewrap_a_batch_is_refused_unless_told_unsafe(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(batch, "box_trouble", lambda: "bubblewrap is not installed")
    hand_in(tmp_path, "ada")
    with pytest.raises(GradingRefused, match="--unsafe"):
        grade(tmp_path, tmp_path / "out")
    with pytest.raises(SystemExit, match="2"):
        main(["grade", str(tmp_path)])
    assert "--unsafe" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_an_empty_or_missing_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(batch, "box_trouble", lambda: None)
    with pytest.raises(GradingRefused, match="no notebook"):
        grade(tmp_path, tmp_path / "out")
    with pytest.raises(GradingRefused, match="no folder"):
        grade(tmp_path / "gone", tmp_path / "out")
    with pytest.raises(GradingRefused, match="at least 1"):
        grade(tmp_path, tmp_path / "out", jobs=0)


def test_submissions_are_found_in_every_layout(tmp_path):
    hand_in(tmp_path, "ada")
    hand_in(tmp_path, "bob/exercise-4")
    shutil.copy(ROOT / "exercises" / NAME, tmp_path / "cyd.ipynb")
    hand_in(tmp_path, "dan/.ipynb_checkpoints")
    hand_in(tmp_path, "out/reports")
    outside = hand_in(tmp_path.with_name("outside"), "eve").parent
    (tmp_path / "fay").symlink_to(outside)
    assert {each.learner for each in find(tmp_path, tmp_path / "out")} == {"ada", "bob", "cyd"}


def test_of_two_files_of_a_lesson_the_newer_counts():
    results = [
        {"learner": "a", "lesson": "04", "file": name, "modified": when, "verdicts": [1], "problem": None}
        for name, when in (("new", 2.0), ("old", 1.0))
    ]
    batch.set_older_aside(results)
    assert results[0]["verdicts"] and not results[1]["verdicts"] and "new is newer" in results[1]["problem"]


def notebook(path: Path, *cells: tuple[str, str]) -> Path:
    path.parent.mkdir(exist_ok=True)
    made = [{"cell_type": "code", "id": name, "source": source.splitlines(True)} for name, source in cells]
    path.write_text(json.dumps({"cells": [{"cell_type": "markdown", "source": "x"}, *made]}))
    return path


def test_an_answer_is_found_by_its_cells_id_or_else_by_its_name(tmp_path):
    tasks = tasks_of("04")[:2]
    by_id = notebook(
        tmp_path / "a.ipynb",
        ("x", "def dpo_loss(): 1"),
        (answer_id("04.2"), "def dpo_loss(): 2"),
        ("y", "dpo_loss = 3"),
    )
    assert answers(by_id, tasks) == {"04.2": "def dpo_loss(): 2"}
    by_name = notebook(tmp_path / "b.ipynb", ("x", "def dpo_loss(): 1"), ("y", "def dpo_loss(): 2"))
    assert answers(by_name, tasks) == {"04.2": "def dpo_loss(): 2"}
    moved = notebook(tmp_path / "c.ipynb", (answer_id("04.2"), "x = 1"), ("y", "def dpo_loss(): 2"))
    assert answers(moved, tasks) == {"04.2": "def dpo_loss(): 2"}


def test_a_notebook_under_another_name_is_known_by_what_it_defines(tmp_path):
    assert lesson_tasks(notebook(tmp_path / "mine.ipynb", ("x", "def dpo_loss(): 1")))[0].lesson == "04"
    with pytest.raises(SubmissionError, match="answers no task"):
        lesson_tasks(notebook(tmp_path / "other.ipynb", ("x", "y = 1")))


def test_a_name_is_defined_as_a_whole_word():
    assert defines("@x\ndef f(a):\n  1", "f") and defines("f = lambda: 1", "f") and defines("f: int = 1", "f")
    assert not defines("def ff(): 1", "f") and not defines("f == 1", "f")


def test_a_cell_with_the_tasks_id_is_trusted_whatever_defines_the_function(tmp_path):
    path = notebook(tmp_path / "a.ipynb", (answer_id("04.2"), "exec('def dpo_loss(): 1')"))
    assert answers(path, tasks_of("04")[:2]) == {"04.2": "exec('def dpo_loss(): 1')"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "forged",
    [
        """import os; os.write(3, b'{"error": "x"}\\n{"undefined": 7}\\n'); os._exit(0)""",
        """import os; os.write(3, b'{"undefined": 7}\\n'); os._exit(0)""",
        """import os; os.write(3, b'{"value": 1, "changed": [[1]]}\\n{"value": {"list": 3}}\\n'); os._exit(0)""",
        """raise ValueError('\\ud800 \\x1b[2J')""",
    ],
)
def test_a_forged_reply_harms_its_sender_alone(tmp_path, forged):
    path = notebook(tmp_path / "a" / NAME, (answer_id("04.2"), forged + "\ndef dpo_loss(): 0"))
    hand_in(tmp_path, "b")
    results = grade(tmp_path, tmp_path / "out", unsafe=UNSAFE, quiet=True)
    points = {r["learner"]: sum(v["points"] for v in r["verdicts"]) for r in results}
    assert path.exists() and points == {"a": 0, "b": POINTS}


@pytest.mark.slow
def test_names_of_every_kind_are_graded_and_keep_pages_of_their_own(tmp_path):
    names = ["Ada L", "Ada_L-7d981b", "x" * 200 + " y", "line\nfeed"]
    for name in names:
        hand_in(tmp_path, name, "exercises")
    latin = os.fsencode(tmp_path) + b"/Andr\xe9"
    os.mkdir(latin)
    shutil.copy(ROOT / "exercises" / NAME, latin + b"/" + NAME.encode())
    results = grade(tmp_path, tmp_path / "out", unsafe=UNSAFE, quiet=True)
    assert len(results) == len(list((tmp_path / "out" / "reports").iterdir())) == 5
    assert all("\n" not in result["learner"] for result in results)


def points_of(cell: str, tmp_path: Path) -> int:
    path = notebook(tmp_path / NAME, (answer_id("04.2"), cell))
    result = batch.grade_one(batch.Submission("a", NAME, path), boxed=not UNSAFE)
    return sum(verdict["points"] for verdict in result["verdicts"])


RIGHT = """def dpo_loss(a, b, c, d, *, beta=0.1):
    return -F.logsigmoid(beta * ((a - b) - (c - d).detach())).mean()
"""
DATACLASS = "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass P:\n    a: int\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "cell",
    [
        RIGHT + 'check("04.2", dpo_loss)',
        "from course_lib.grading import check\n" + RIGHT + 'check("04.2", dpo_loss)',
        RIGHT + "assert 1 == 2",
        RIGHT + "dpo_loss?",
        "%matplotlib inline\n" + RIGHT,
        "if True:\n    %matplotlib inline\n" + RIGHT,
        RIGHT + "taken = %timeit -o dpo_loss",
        RIGHT.replace("    return", "    assert (1\n        % 2)\n    return"),
        RIGHT.replace("    return", "    a.half()\n    return"),
        RIGHT.replace("    return", "    a -= d.detach()\n    b -= d.detach()\n    return"),
        DATACLASS + RIGHT,
        RIGHT.replace("\n", "\r\n"),
    ],
)
def test_what_people_write_around_an_answer_takes_no_points_away(cell, tmp_path):
    assert points_of(cell, tmp_path) == 3


@pytest.mark.parametrize(
    "text", ["", "[]", '{"cells": [1]}', '{"cells": [{"cell_type": "code", "source": 3}]}', "[" * 10**5]
)
def test_malformed_notebooks_are_no_crash(tmp_path, text):
    (tmp_path / "x.ipynb").write_text(text)
    try:
        assert code_cells(tmp_path / "x.ipynb") == []
    except SubmissionError as error:
        assert "not a notebook" in str(error)


@pytest.mark.slow
def test_progress_and_check_tasks_are_commands(capsys):
    assert main(["progress"]) == 0 and "kept in" in capsys.readouterr().out
    assert main(["check-tasks", "04.1"]) == 0 and "mutants noticed" in capsys.readouterr().out
