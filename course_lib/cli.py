"""The `course` command: `lab` opens the lessons, `vram` counts a step's memory, `doctor` examines the machine."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

FIRST_LESSON = Path("notebooks", "00_start_here.ipynb")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="course", description=__doc__.split(": ", 1)[1])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("lab", help="open JupyterLab at lesson 00; further words go to jupyter lab")
    commands.add_parser("doctor", help="examine this machine and the installation")
    vram_parser = commands.add_parser("vram", help="the GPU memory of a training step, as estimate_memory counts it")
    _add_memory_options(vram_parser)
    options, rest = parser.parse_known_args(arguments)
    if options.command == "lab":
        return lab(rest)
    if rest:
        parser.error(f"unknown words: {' '.join(rest)}")
    if options.command == "vram":
        try:
            return vram(vars(options))
        except ValueError as error:
            vram_parser.error(str(error))
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


def _add_memory_options(parser: argparse.ArgumentParser) -> None:
    """The arguments of `estimate_memory` under their own names."""
    from course_lib.memory.settings import CHOICES, Settings

    parser.add_argument("model", help="a name such as llama-3-8b, a checkpoint's folder, or a number such as 8e9")
    parser.add_argument("algorithm", choices=CHOICES["algorithm"])
    parser.add_argument("--json", action="store_true", help="print bytes as JSON")
    for field in dataclasses.fields(Settings)[1:]:
        choices = CHOICES.get(field.name)
        option: dict = {"default": field.default}
        if isinstance(field.default, bool):
            option["action"] = argparse.BooleanOptionalAction
        elif choices and isinstance(choices[-1], str):
            option["choices"] = [choice for choice in choices if choice is not None]
        else:
            option |= {"type": int, "metavar": "N"}
        parser.add_argument("--" + field.name.replace("_", "-"), **option)


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
