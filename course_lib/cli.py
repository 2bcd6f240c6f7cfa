"""The `course` command: lessons (`lab`), a step's memory (`vram`) and time (`speed`), and the machine (`doctor`)."""

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

FIRST_LESSON = Path("notebooks", "00_start_here.ipynb")


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and where help is."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message} (try {self.prog} --help)\n")


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="course", description=__doc__.split(": ", 1)[1])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("lab", help="open JupyterLab at lesson 00; further words go to jupyter lab")
    commands.add_parser("doctor", help="examine this machine and the installation")
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
    if options.command == "doctor":
        return doctor()
    try:
        (vram if options.command == "vram" else speed)(vars(options))
        sys.stdout.flush()
    except ValueError as error:
        its_parser.error(" ".join(str(error).split()))
    except BrokenPipeError:  # whoever reads, such as `head`, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
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
    command.append("--LabApp.news_url=None")  # or Lab asks at its first start whether it may fetch news
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


def doctor() -> int:
    """Print what was found; 1 if something is missing."""
    from course_lib.machine import doctor as examine

    table = examine()
    print(table.to_string())
    return 0 if table.ok.all() else 1


if __name__ == "__main__":
    sys.exit(main())
