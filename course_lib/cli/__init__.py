"""The `course` command: lessons (`lab`), exercises (`progress`, `grade`), and what a step costs (`vram`, `speed`)."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import Field, asdict, fields
from difflib import get_close_matches
from pathlib import Path

from course_lib.sizing.settings import UNTIMED, Settings, SpeedSettings

LAB_SETTINGS = Path(__file__).with_name("lessons")  # Jupyter reads its folder labconfig
FIRST_LESSON = Path("notebooks", "00_start_here.ipynb")


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and where help is."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message} (try {self.prog} --help)\n")


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="course", description="Lessons, exercises, and what a training step costs.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("lab", help="open JupyterLab at lesson 00; further words go to jupyter lab")
    commands.add_parser("doctor", help="examine this machine and the installation")
    commands.add_parser("progress", help="points and solved tasks, lesson by lesson")
    _add_grading_options(commands)
    fetch_parser = commands.add_parser("fetch", help="fetch a real language model, once: smollm2, 98 MB")
    fetch_parser.add_argument("model", choices=["smollm2"])
    vram_parser = commands.add_parser("vram", help="the GPU memory of a training step, as estimate_memory counts it")
    speed_parser = commands.add_parser("speed", help="the time of a training step, as estimate_throughput counts it")
    _add_estimate_options(vram_parser, Settings)
    _add_estimate_options(speed_parser, SpeedSettings, without=UNTIMED)
    speed_parser.add_argument("--examples", type=int, metavar="N", help="pairs or sequences: adds the run's cost")
    speed_parser.add_argument("--price-per-gpu-hour", type=float, metavar="MONEY", help="for the run's cost")
    options, rest = parser.parse_known_args(arguments)
    if options.command == "lab":
        return lab(rest)
    its_parser = commands.choices[options.command]
    if rest:
        its_parser.error(_unknown(rest, its_parser))
    try:
        code = COMMANDS[options.command](vars(options))
        sys.stdout.flush()
        return code or 0
    except ValueError as error:
        its_parser.error(" ".join(str(error).split()))
    except BrokenPipeError:  # whoever reads, such as `head`, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print(
            "stopped; the same command goes on from here" if options.command == "grade" else "stopped", file=sys.stderr
        )
        return 130
    return 0


def _unknown(words: list[str], parser: argparse.ArgumentParser) -> str:
    near = get_close_matches(words[0].split("=")[0], parser._option_string_actions, n=1)
    return f"unknown words: {' '.join(words)}" + (f"; did you mean {near[0]}?" if near else "")


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


def fetch(_: dict) -> None:
    """Fetch SmolLM2 and say where it lies."""
    from course_lib.models import FetchError, fetch_smollm2

    try:
        print(f'{fetch_smollm2()}: load_policy("smollm2") takes it from here')
    except FetchError as error:
        raise ValueError(error) from error


def progress(_: dict) -> None:
    """Print how far the graded tasks are."""
    from course_lib.grading.display import ProgressTable
    from course_lib.grading.records import by_lesson, progress_file

    print(ProgressTable(by_lesson(), progress_file()))


def grade(options: dict) -> None:
    """Grade a folder of submissions; print points, and where the reports are."""
    from course_lib.grading.batch import grade as grade_folder
    from course_lib.grading.tables import summary

    folder = Path(options["folder"])
    out = Path(options["out"]) if options["out"] else folder.with_name(f"{folder.resolve().name}-graded")
    print(summary(grade_folder(folder, out, unsafe=options["unsafe"], jobs=options["jobs"])))
    print(f"{out}: points.csv, gradebook.csv (nbgrader's form), results.json, and a page for each learner in reports/")


def check_tasks(options: dict) -> int:
    """Prove the bank of graded tasks; 1 if one is not proved."""
    from course_lib.grading.bank import all_tasks, tasks_of
    from course_lib.grading.proof import proof_of

    bad = 0
    for task in tasks_of(options["lesson"]) if options["lesson"] else all_tasks().values():
        said, faults = proof_of(task)
        print(said, *faults, sep="\n    ", flush=True)
        bad += len(faults)
    return min(bad, 1)


def _add_grading_options(commands) -> None:
    grade_parser = commands.add_parser("grade", help="grade a folder of submissions, each in a sandbox")
    grade_parser.add_argument("folder", help="with FOLDER/LEARNER/04_dpo_from_scratch.ipynb and the like")
    grade_parser.add_argument("--out", metavar="FOLDER", help="for tables and reports (default: FOLDER-graded)")
    grade_parser.add_argument("--jobs", type=int, metavar="N", help="submissions at a time (default: one a core)")
    grade_parser.add_argument("--unsafe", action="store_true", help="go on without bubblewrap")
    check_parser = commands.add_parser("check-tasks", help="prove the graded tasks: for who writes them")
    check_parser.add_argument("lesson", nargs="?", help="a lesson, 04, or one task, 04.2 (default: all)")


def _add_estimate_options(parser: argparse.ArgumentParser, settings: type, without: Sequence[str] = ()) -> None:
    """A model, a method, and an option for each further field of the settings."""
    number = "" if without else ", or a number of parameters such as 8e9"
    parser.add_argument("model", help=f"a name such as llama-3-8b, or a checkpoint's folder{number}")
    algorithm, *others = fields(settings)
    parser.add_argument("algorithm", choices=algorithm.metadata["choices"], help=algorithm.metadata["help"])
    parser.add_argument("--json", action="store_true", help="print plain values as JSON")
    for each in others:
        if each.name not in without:
            parser.add_argument("--" + each.name.replace("_", "-"), **_option(each))


def _option(setting: Field) -> dict:
    """What argparse has to know of one field of the settings."""
    known, default = setting.metadata, setting.default
    shown = known.get("none", "None") if default is None else default
    option = {"default": default, "help": f"{known['help']} (default: {shown})".replace("%", "%%")}
    if isinstance(default, bool):
        return option | {"action": argparse.BooleanOptionalAction}
    if "choices" in known:
        choices = [choice for choice in known["choices"] if choice is not None]
        return option | {"choices": choices, "type": type(choices[0])}
    if "count" in known:
        return option | {"type": int, "metavar": "N"}
    return option | ({"type": float, "metavar": "SHARE"} if isinstance(default, float) else {"metavar": "NAME"})


def course_folder() -> Path | None:
    """The nearest folder above the working directory or this file that holds the lessons."""
    for start in (Path.cwd(), Path(__file__).resolve().parent):
        for folder in (start, *start.parents):
            if (folder / FIRST_LESSON).is_file():
                return folder
    return None


def doctor(_: dict | None = None) -> int:
    """Print what was found; 1 if something is missing."""
    from course_lib.machine import doctor as examine

    table = examine()
    print(table.to_string())
    return 0 if table.ok.all() else 1


COMMANDS = {
    "doctor": doctor, "fetch": fetch, "vram": vram, "speed": speed, "progress": progress, "grade": grade,
    "check-tasks": check_tasks,
}  # fmt: skip

if __name__ == "__main__":
    sys.exit(main())
