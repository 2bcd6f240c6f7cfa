"""What each command does with its options: it calls one function and prints what that returns."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import asdict
from pathlib import Path

LAB_SETTINGS = Path(__file__).parent.with_name("lessons")  # Jupyter reads its folder labconfig
FIRST_LESSON = Path("notebooks", "00_start_here.ipynb")


def tell(text: str, indent: int) -> None:
    """Print lines no wider than the terminal, each broken one going on below, so far in."""
    width = shutil.get_terminal_size((100, 24)).columns
    for line in text.splitlines():
        print(textwrap.fill(line, max(width, 40), subsequent_indent=" " * indent, break_on_hyphens=False))


def lab(extra: list[str]) -> int:
    """Open JupyterLab at the first lesson; `extra` goes to `jupyter lab`."""
    root = course_folder()
    if root is None:
        print(f"there is no {FIRST_LESSON} here: run this in the course's folder, a clone of the repository")
        return 1
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={root}"]
    command.append("--LabApp.news_url=None")  # no news are fetched; that Lab may not ask either stands in LAB_SETTINGS
    paths = filter(None, [str(LAB_SETTINGS), os.environ.get("JUPYTER_CONFIG_PATH")])
    os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(paths)
    command.append(f"--LabApp.default_url=/lab/tree/{FIRST_LESSON.as_posix()}")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    command += extra
    if os.name == "posix":  # become the server, so that Ctrl-C and signals reach it
        os.chdir(root)
        os.execv(command[0], command)
    return subprocess.call(command, cwd=root)


def vram(options: dict) -> None:
    """Print a step's memory; `options` are `estimate_memory`'s, beside "json" and "command"."""
    from course_lib.memory import estimate_memory

    as_json, _ = options.pop("json"), options.pop("command")
    found = estimate_memory(options.pop("model"), options.pop("algorithm"), **options)
    print(json.dumps(found.to_dict(), indent=2) if as_json else found)


def speed(options: dict) -> None:
    """Print a step's time, and a run's cost if "examples" says how long it is; the rest as in `vram`."""
    from course_lib.speed import estimate_throughput

    as_json, _ = options.pop("json"), options.pop("command")
    examples, price = options.pop("examples"), options.pop("price_per_gpu_hour")
    found = estimate_throughput(options.pop("model"), options.pop("algorithm"), **options)
    if examples is not None and price is None:
        raise ValueError("a run's cost needs a price: give --price-per-gpu-hour")
    cost = None if examples is None else found.cost(examples=examples, price_per_gpu_hour=price)
    if as_json:
        print(json.dumps(found.to_dict() | ({} if cost is None else {"cost": asdict(cost)}), indent=2))
        return
    print(found)
    if cost:
        print(f"\n{examples:,.0f} examples: {cost.steps:,} steps, {cost.hours:.3g} hours, {cost.gpu_hours:,.4g} GPU "
              f"hours, {cost.money:,.2f} at {price:g} a GPU hour")  # fmt: skip


def fetch(options: dict) -> None:
    """Fetch SmolLM2 and say where it lies."""
    from course_lib.models import FetchError, fetch_smollm2

    try:
        folder = fetch_smollm2()
    except FetchError as error:
        raise ValueError(error) from error
    print(json.dumps({"folder": str(folder)}) if options["json"] else
          f'{folder}: load_policy("smollm2") takes it from here')  # fmt: skip


def progress(options: dict) -> None:
    """Print how far the graded tasks are."""
    from course_lib.grading.display import ProgressTable
    from course_lib.grading.records import by_lesson, progress_file

    if options["json"]:
        print(json.dumps({"file": str(progress_file()), "lessons": [asdict(row) for row in by_lesson()]}, indent=2))
    else:
        print(ProgressTable(by_lesson(), progress_file()))


def recipes(options: dict) -> None:
    """List the recipes, or print one in full."""
    if options["folder"]:
        print(Path(__file__).parent.with_name("recipes"))  # at once: scripts ask for it
        return
    if options["recipe"]:
        from course_lib.recipes import explained, read_recipe

        recipe = read_recipe(options["recipe"], options["changes"])
        print(json.dumps(recipe.to_dict(), indent=2) if options["json"] else explained(recipe))
        return
    from course_lib.recipes import abouts

    found = abouts()
    if options["json"]:
        print(json.dumps(found, indent=2))
    else:
        width = max(map(len, found))
        for name, about in found.items():
            tell(f"{name:{width}}  {about}", width + 2)


def train(options: dict) -> int:
    """Run a recipe, or with --dry-run say what it would need."""
    from course_lib import recipes as room

    if not options["dry_run"]:
        room.refuse_unreachable_model(options["recipe"], options["changes"])
    recipe = room.read_recipe(options["recipe"], options["changes"])
    if options["dry_run"]:
        found = room.plan(recipe)
        if options["json"]:
            print(json.dumps(found.to_dict(), indent=2))
        else:
            tell(str(found), 10)
        return 0 if found.fits else 1
    if room.needs_launch(recipe):
        return room.launch(recipe, options)
    from course_lib.machine import pick_threads
    from course_lib.trainers import TrainingError

    room.quieten()
    pick_threads()
    try:
        summary = room.run_recipe(recipe, resume=options["resume"])
    except (OSError, ImportError, TrainingError) as error:
        raise ValueError(error) from error
    if room.is_main_process():
        print(json.dumps(summary, indent=2) if options["json"] else room.told(summary))
    return 130 if summary["interrupted"] else 0


def grade(options: dict) -> None:
    """Grade a folder of submissions; print points, and where the reports are."""
    from course_lib.grading.batch import grade as grade_folder
    from course_lib.grading.tables import summary

    folder = Path(options["folder"])
    out = Path(options["out"]) if options["out"] else folder.with_name(f"{folder.resolve().name}-graded")
    found = grade_folder(folder, out, unsafe=options["unsafe"], jobs=options["jobs"])
    if options["json"]:
        print((out / "results.json").read_text())
        return
    print(summary(found))
    print(f"{out}: points.csv, gradebook.csv (nbgrader's form), results.json, and a page for each learner in reports/")


def check_tasks(options: dict) -> int:
    """Prove the bank of graded tasks; 1 if one is not proved."""
    from course_lib.grading.bank import all_tasks, tasks_of
    from course_lib.grading.proof import proof_of

    found = {}
    for task in tasks_of(options["lesson"]) if options["lesson"] else all_tasks().values():
        said, faults = proof_of(task)
        found[task.id] = {"proof": said, "faults": list(faults)}
        if not options["json"]:
            print(said, *faults, sep="\n    ", flush=True)
    if options["json"]:
        print(json.dumps(found, indent=2))
    return int(any(each["faults"] for each in found.values()))


def course_folder() -> Path | None:
    """The nearest folder above the working directory or this file that holds the lessons."""
    for start in (Path.cwd(), Path(__file__).resolve().parent):
        for folder in (start, *start.parents):
            if (folder / FIRST_LESSON).is_file():
                return folder
    return None


def doctor(options: dict) -> int:
    """Print what was found; 1 if something is missing."""
    from course_lib.machine import doctor as examine

    table = examine()
    if options["json"]:
        print(table.to_json(orient="index", indent=2))
        return 0 if table.ok.all() else 1
    width = max(map(len, table.index))
    for item, row in table.iterrows():
        mark = "ok" if row.ok else "!!"
        tell(f"{mark} {item:{width}}  {row.found}" + (f"  ({row.advice})" if row.advice else ""), width + 5)
    print("all that the lessons need is here" if table.ok.all() else "mend the lines with !!")
    return 0 if table.ok.all() else 1


COMMANDS = {
    "doctor": doctor, "fetch": fetch, "vram": vram, "speed": speed, "progress": progress, "grade": grade,
    "check-tasks": check_tasks, "recipes": recipes, "train": train,
}  # fmt: skip
