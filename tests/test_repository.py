"""The repository keeps its promises: the README runs, versions live in one place, lessons are normalised."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_readme_examples_run_as_printed(capsys):
    training, online, sizing = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    exec(compile(sizing, "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert "GB" in out and "tokens" in out and "NOT fit" not in out
    exec(compile(training, "README.md", "exec"), {})
    out = capsys.readouterr().out
    before, after = map(float, re.search(r"gold reward (-?[\d.]+) -> (-?[\d.]+)", out).groups())
    assert after > before and "rewards/margins" in out
    exec(compile(online, "README.md", "exec"), {})
    scores = [float(line.split()[1]) for line in capsys.readouterr().out.splitlines() if re.match(r"\d+ ", line)]
    assert len(scores) > 3 and scores[-1] > scores[0]


def test_every_file_the_readme_links_to_exists():
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target


def test_environment_yml_only_points_to_pyproject_and_constraints():
    lines = [line.strip("- ").strip() for line in (ROOT / "environment.yml").read_text().splitlines()]
    pinned = [line for line in lines if re.match(r"[\w-]+\s*[=<>]", line) and not line.startswith("python=")]
    assert not pinned and "c constraints.txt" in lines and "e .[dev]" in lines


def test_constraints_pin_every_direct_dependency_exactly():
    pins = set(re.findall(r"^([\w.-]+)==", (ROOT / "constraints.txt").read_text(), re.M))
    wanted = set(re.findall(r'^\s+"([\w-]+)[>=]', (ROOT / "pyproject.toml").read_text(), re.M))
    assert len(wanted) > 10 and not {w.lower() for w in wanted} - {p.lower() for p in pins} - {"setuptools"}


def test_notebooks_are_normalised_run_and_within_budget():
    done = subprocess.run([sys.executable, ROOT / "tools/notebooks.py", "check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_notebook_check_can_fail(tmp_path):
    sys.path.insert(0, str(ROOT / "tools"))
    import notebooks

    original = next((ROOT / "notebooks").glob("00*.ipynb"))
    spoilt = json.loads(original.read_text())
    spoilt["cells"] = [c for c in spoilt["cells"] if not c["metadata"].get("tags")]
    spoilt["cells"][0]["source"] = ["# no budget"]
    (tmp_path / "x.ipynb").write_text(json.dumps(spoilt))
    found = " ".join(notebooks.faults(tmp_path / "x.ipynb"))
    assert "not normalised" in found and "nbval-check-output" in found and "measured budget" in found


def test_normalising_removes_what_changes_from_run_to_run_and_is_stable():
    import nbformat

    sys.path.insert(0, str(ROOT / "tools"))
    import notebooks

    v4 = nbformat.v4
    outputs = [
        v4.new_output("stream", name="stderr", text="50%|####"),
        v4.new_output("stream", name="stdout", text="a"),
        v4.new_output("stream", name="stdout", text="b"),
        v4.new_output("display_data", data={"application/vnd.jupyter.widget-view+json": {}, "text/plain": "x"}),
    ]
    cell = v4.new_code_cell("1", outputs=outputs, execution_count=17, metadata={"execution": {"started": "now"}})
    once = notebooks.normalised(v4.new_notebook(cells=[cell], metadata={"widgets": {}}))
    assert [o.text for o in once.cells[0].outputs] == ["ab"] and once.cells[0].execution_count == 1
    assert "widgets" not in once.metadata and not once.cells[0].metadata
    assert notebooks.text_of(notebooks.normalised(once)) == notebooks.text_of(once)


def test_course_doctor_finds_everything(capsys):
    from course_lib.cli import main

    assert main(["doctor"]) == 0
    assert "pocket-world-sft" in capsys.readouterr().out


def test_threads_can_be_fixed_and_are_measured_otherwise(monkeypatch):
    import torch

    from course_lib.machine import pick_threads

    monkeypatch.setenv("COURSE_THREADS", "1")
    assert pick_threads() == torch.get_num_threads() == 1
    monkeypatch.delenv("COURSE_THREADS")
    assert pick_threads() == torch.get_num_threads() >= 1
    torch.set_num_threads(1)
