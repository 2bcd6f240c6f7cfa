"""Run, normalise and check the lessons, so that running one again changes no byte and an edit changes its own lines.

python tools/notebooks.py run [NAME ...]    run, normalise, and write the measured budget into the header
python tools/notebooks.py normalise         normalise without running
python tools/notebooks.py check             exit 1 if a lesson is not normalised or run, over budget, or lacks alt text
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from course_lib.lessons.curriculum import OPTIONAL
from course_lib.lessons.needs import has_smollm2

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("notebooks", "solutions")
BUDGET = {"minutes": 3.0, "memory_gb": 4.0}
BUDGET_OF_A_REAL_MODEL = {"minutes": 15.0, "memory_gb": 6.0}  # for lessons that need one, which nobody has to run
CELL_TIMEOUT = 900  # seconds: many times what a cell takes on a quiet machine
MEASURED = re.compile(r"\*\*Measured:\*\* [\d.]+ minutes, [\d.]+ GB")
CHECKED = "nbval-check-output"  # the tag by which nbval knows cells whose outputs must stay
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def lessons(names: list[str]) -> list[Path]:
    """All lessons and solutions, or those whose path starts with one of `names`: "04", "solutions/04"."""
    found = [path for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.ipynb"))]
    spelled = {path: (path.name, path.relative_to(ROOT).as_posix()) for path in found}
    return [path for path in found if not names or any(s.startswith(n) for s in spelled[path] for n in names)]


def text_of(notebook) -> str:
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def normalised(notebook):
    """The notebook without what changes from run to run: counts, timings, progress bars, widget state."""
    notebook = nbformat.from_dict(json.loads(json.dumps(notebook)))
    notebook.metadata = nbformat.from_dict(
        {"kernelspec": KERNEL, "language_info": {"name": "python"}}
        | ({"course": notebook.metadata["course"]} if "course" in notebook.metadata else {})
    )
    count = 0
    for cell in notebook.cells:
        cell.metadata = {k: v for k, v in cell.metadata.items() if k == "tags"}
        if cell.cell_type == "code":
            count += 1
            cell.execution_count = count
            cell.outputs = [o for o in map(_normalised_output, _merged(cell.outputs)) if o is not None]
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = count
    return notebook


def _merged(outputs: list) -> list:
    """Neighbouring pieces of one stream become one output."""
    merged: list = []
    for output in outputs:
        previous = merged[-1] if merged else None
        if output.output_type == "stream" and previous and previous.get("name") == output.name:
            previous.text += output.text
        else:
            merged.append(output)
    return merged


def _normalised_output(output):
    if output.output_type == "stream":
        return None if output.name == "stderr" else output
    if output.output_type in ("display_data", "execute_result"):
        if "application/vnd.jupyter.widget-view+json" in output.data:
            return None
        alt = output.metadata.get("image/png", {}).get("alt")
        output.metadata = {"image/png": {"alt": alt}} if alt else {}
        if "image/png" in output.data:
            output.data["image/png"] = output.data["image/png"].replace("\n", "") + "\n"
            output.data.pop("text/plain", None)
    return output


def _only_a_widget(cell) -> bool:
    """Whether a cell only shows sliders: no output is kept of it, and nbclient can lose its reply. nbval runs it."""
    return bool(re.fullmatch(r"(widgets\.\w+_(explorer|labeller)|panel)\(.*\)", cell.source.strip(), flags=re.DOTALL))


def run(path: Path) -> None:
    """Run a lesson in a fresh kernel and write it back with its outputs and measured budget."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(notebook, timeout=CELL_TIMEOUT, resources={"metadata": {"path": str(path.parent)}})
    start = time.perf_counter()
    with client.setup_kernel():
        for index, cell in enumerate(notebook.cells):
            if not _only_a_widget(cell):
                client.execute_cell(cell, index)
        gigabytes = _peak_memory(client.km.provisioner.pid)
    minutes = (time.perf_counter() - start) / 60
    measured = {"minutes": math.ceil(2 * minutes) / 2, "memory_gb": math.ceil(5 * gigabytes) / 5}
    notebook.metadata["course"] = measured
    header = notebook.cells[0]
    header.source = MEASURED.sub(_measured_text(measured), header.source)
    path.write_text(text_of(normalised(notebook)), encoding="utf-8")
    print(f"{path.name}: {minutes:.2f} minutes, {gigabytes:.2f} GB", flush=True)


def _measured_text(measured: dict) -> str:
    return f"**Measured:** {measured['minutes']} minutes, {measured['memory_gb']} GB"


def _peak_memory(pid: int) -> float:
    """Peak resident memory of a process in GB (Linux)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024 / 1e9


def faults(path: Path) -> list[str]:
    """What a lesson needs before it can be committed."""
    text = path.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=4)
    found = []
    if text != text_of(normalised(notebook)):
        found.append("is not normalised: run `python tools/notebooks.py normalise`")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if sum(bool(cell.outputs) for cell in code) < len(code) / 2:
        found.append("has few outputs: run `python tools/notebooks.py run`")
    if any(output.output_type == "error" for cell in code for output in cell.outputs):
        found.append("has an error in its outputs")
    images = [output for cell in code for output in cell.outputs if "image/png" in output.get("data", {})]
    if silent := sum("image/png" not in image.metadata for image in images):
        found.append(f"lacks alternative text on {silent} of {len(images)} images: call figures.use_style(), run again")
    if not any(CHECKED in cell.metadata.get("tags", []) for cell in code):
        found.append(f"has no cell tagged {CHECKED}: its outputs are never compared")
    if path.parent.name == "solutions":
        return found
    measured = notebook.metadata.get("course")
    if not measured or _measured_text(measured) not in notebook.cells[0].source:
        found.append("does not show its measured budget in the first cell")
    else:
        budget = BUDGET_OF_A_REAL_MODEL if path.name[:2] in OPTIONAL else BUDGET
        found += [f"takes {measured[k]} {k}, over {limit}" for k, limit in budget.items() if measured[k] > limit]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=["run", "normalise", "check"])
    parser.add_argument("names", nargs="*", help="beginnings of file names; all lessons by default")
    options = parser.parse_args()
    os.environ.setdefault("COURSE_THREADS", "2")
    os.environ["COURSE_PROGRESS"] = os.path.join(tempfile.mkdtemp(), "progress.json")  # not that of whoever runs this
    bad, here = 0, has_smollm2()
    for path in lessons(options.names):
        if options.command == "run" and path.parent.name == "notebooks" and path.name[:2] in OPTIONAL and not here:
            print(f"{path.name}: left out, for it needs `course fetch smollm2`", flush=True)
        elif options.command == "run":
            run(path)
        elif options.command == "normalise":
            path.write_text(text_of(normalised(nbformat.read(path, as_version=4))), encoding="utf-8")
        else:
            for fault in faults(path):
                print(f"{path.name} {fault}")
                bad += 1
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
