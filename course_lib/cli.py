"""The `course` command: `course lab` opens the lessons, `course doctor` examines the machine."""

from __future__ import annotations

import argparse
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
    options, rest = parser.parse_known_args(arguments)
    if options.command == "lab":
        return lab(rest)
    if rest:
        parser.error(f"unknown words: {' '.join(rest)}")
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
