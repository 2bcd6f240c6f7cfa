"""Exercises are made of solutions: the same ones each time, and a change that was forgotten is noticed."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tools"))
import exercises  # noqa: E402


def test_committed_exercises_are_what_the_solutions_make():
    done = subprocess.run([sys.executable, ROOT / "tools/exercises.py", "check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_stands_between_the_marks_becomes_one_line_and_the_rest_stays():
    region = "    ### BEGIN SOLUTION\n    for _ in x:\n        y += 1\n    ### END SOLUTION\n"
    cell = f"def f(x):\n    y = 1\n{region}    return y"
    cleared = exercises.SOLUTION.sub(rf"\1{exercises.STUB}\n", cell + "\n")
    assert cleared == f"def f(x):\n    y = 1\n    {exercises.STUB}\n    return y\n"


def test_a_forgotten_change_is_noticed(tmp_path, monkeypatch, capsys):
    (tmp_path / "solutions").mkdir()
    source = (ROOT / "solutions" / "04_dpo_from_scratch.ipynb").read_text()
    (tmp_path / "solutions" / "04_x.ipynb").write_text(source)
    monkeypatch.setattr(exercises, "SOLUTIONS", tmp_path / "solutions")
    monkeypatch.setattr(exercises, "EXERCISES", tmp_path / "exercises")
    monkeypatch.setattr(sys, "argv", ["exercises.py", "write"])
    assert exercises.main() == 0
    monkeypatch.setattr(sys, "argv", ["exercises.py", "check"])
    assert exercises.main() == 0
    (tmp_path / "solutions" / "04_x.ipynb").write_text(source.replace("What the policy would bet", "Another title"))
    assert exercises.main() == 1 and "is not what" in capsys.readouterr().out
