"""The `course` command: lessons (`lab`), a step's memory (`vram`) and time (`speed`), and the machine (`doctor`)."""

from __future__ import annotations

import argparse
import inspect
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

FIRST_LESSON = Path("notebooks", "00_start_here.ipynb")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="course", description=__doc__.split(": ", 1)[1])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("lab", help="open JupyterLab at lesson 00; further words go to jupyter lab")
    commands.add_parser("doctor", help="examine this machine and the installation")
    vram_parser = commands.add_parser("vram", help="the GPU memory of a training step, as estimate_memory counts it")
    speed_parser = commands.add_parser("speed", help="the time of a training step, as estimate_throughput counts it")
    _add_estimate_options(vram_parser, "estimate_memory")
    _add_estimate_options(speed_parser, "estimate_throughput")
    speed_parser.add_argument("--examples", type=int, metavar="N", help="pairs or sequences: adds the run's cost")
    speed_parser.add_argument("--price-per-gpu-hour", type=float, metavar="MONEY")
    options, rest = parser.parse_known_args(arguments)
    if options.command == "lab":
        return lab(rest)
    if rest:
        parser.error(f"unknown words: {' '.join(rest)}")
    if options.command in ("vram", "speed"):
        run, its_parser = (vram, vram_parser) if options.command == "vram" else (speed, speed_parser)
        try:
            status = run(vars(options))
            sys.stdout.flush()
            return status
        except ValueError as error:
            its_parser.error(str(error))
        except BrokenPipeError:  # whoever reads, such as `head`, has read enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
    return doctor()


def lab(extra: list[str]) -> int:
    """Open JupyterLab at the first lesson; `extra` goes to `jupyter lab`."""
    root = course_folder()
    if root is None:
        print(f"there is no {FIRST_LESSON} here: run this in the course's folder, a clone of the repository")
        return 1
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={root}"]
    command.append(f"--LabApp.default_url=/lab/tree/{FIRST_LESSON.as_posix()}")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    command += extra
    if os.name == "posix":  # become the server, so that Ctrl-C and signals reach it
        os.chdir(root)
        os.execv(command[0], command)
    return subprocess.call(command, cwd=root)


def vram(options: dict) -> int:
    """Print a step's memory; `options` are `estimate_memory`'s, beside "json" and "command"."""
    from course_lib.memory import estimate_memory

    as_json, _ = options.pop("json"), options.pop("command")
    found = estimate_memory(options.pop("model"), options.pop("algorithm"), **options)
    print(json.dumps(found.to_dict(), indent=2) if as_json else found)
    return 0


def speed(options: dict) -> int:
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
        return 0
    print(found)
    if cost:
        print(f"\n{examples:,.0f} examples: {cost.steps:,} steps, {cost.hours:.3g} hours, {cost.gpu_hours:,.4g} GPU "
              f"hours, {cost.money:,.2f} at {price:g} a GPU hour")  # fmt: skip
    return 0


def _add_estimate_options(parser: argparse.ArgumentParser, estimate: str) -> None:
    """The arguments of a function of `course_lib.memory` under their own names."""
    from course_lib import memory
    from course_lib.sizing.settings import CHOICES

    parser.add_argument("model", help="a name such as llama-3-8b, a folder, or (vram alone) a number such as 8e9")
    parser.add_argument("algorithm", choices=CHOICES["algorithm"])
    parser.add_argument("--json", action="store_true", help="print plain values as JSON")
    function: Callable = getattr(memory, estimate)
    for name, parameter in list(inspect.signature(function).parameters.items())[2:]:
        choices, default = CHOICES.get(name), parameter.default
        option: dict = {"default": default}
        if isinstance(default, bool):
            option["action"] = argparse.BooleanOptionalAction
        elif choices and isinstance(choices[-1], str):
            option["choices"] = [choice for choice in choices if choice is not None]
        elif not isinstance(default, str):
            option |= (
                {"type": float, "metavar": "SHARE"} if isinstance(default, float) else {"type": int, "metavar": "N"}
            )
        parser.add_argument("--" + name.replace("_", "-"), **option)


def course_folder() -> Path | None:
    """The nearest folder above the working directory or this file that holds the lessons."""
    for start in (Path.cwd(), Path(__file__).resolve().parent):
        for folder in (start, *start.parents):
            if (folder / FIRST_LESSON).is_file():
                return folder
    return None


def doctor() -> int:
    """Print what was found; 1 if something is missing."""
    from course_lib.machine import doctor as examine

    table = examine()
    print(table.to_string())
    return 0 if table.ok.all() else 1


if __name__ == "__main__":
    sys.exit(main())
