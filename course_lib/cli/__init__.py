"""The `course` command: lessons and exercises, runs from recipes, and what a training step costs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import Field, fields
from difflib import get_close_matches

from course_lib.cli.commands import COMMANDS, lab
from course_lib.sizing.settings import UNTIMED, Settings, SpeedSettings


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and where help is."""

    def error(self, message: str):
        self.exit(2, f"{self.prog}: {message} (try {self.prog} --help)\n")


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="course", description="Lessons, exercises, training runs, and what they cost.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("lab", help="open JupyterLab at lesson 00; further words go to jupyter lab")
    _add_json(commands.add_parser("doctor", help="examine this machine and the installation, and say what to change"))
    _add_json(commands.add_parser("progress", help="points and solved tasks, lesson by lesson"))
    _add_grading_options(commands)
    _add_recipe_options(commands)
    fetch_parser = commands.add_parser("fetch", help="fetch a real language model, once: smollm2, 98 MB")
    fetch_parser.add_argument("model", choices=["smollm2"])
    _add_json(fetch_parser)
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
    if options.command in ("train", "recipes"):  # argparse takes no key=value that stands behind an option
        options.changes += [word for word in rest if "=" in word and not word.startswith("-")]
        rest = [word for word in rest if word not in options.changes]
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
        goes_on = {"grade": "; the same command goes on from here", "train": "; --resume goes on from a checkpoint"}
        print("stopped" + goes_on.get(options.command, ""), file=sys.stderr)
        return 130
    return 0


def _unknown(words: list[str], parser: argparse.ArgumentParser) -> str:
    near = get_close_matches(words[0].split("=")[0], parser._option_string_actions, n=1)
    return f"unknown words: {' '.join(words)}" + (f"; did you mean {near[0]}?" if near else "")


def _add_grading_options(commands) -> None:
    grade_parser = commands.add_parser("grade", help="grade a folder of submissions, each in a sandbox")
    grade_parser.add_argument("folder", help="with FOLDER/LEARNER/04_dpo_from_scratch.ipynb and the like")
    grade_parser.add_argument("--out", metavar="FOLDER", help="for tables and reports (default: FOLDER-graded)")
    grade_parser.add_argument("--jobs", type=int, metavar="N", help="submissions at a time (default: one a core)")
    grade_parser.add_argument("--unsafe", action="store_true", help="go on without bubblewrap")
    check_parser = commands.add_parser("check-tasks", help="prove the graded tasks: for who writes them")
    check_parser.add_argument("lesson", nargs="?", help="a lesson, 04, or one task, 04.2 (default: all)")
    _add_json(grade_parser)
    _add_json(check_parser)


def _add_recipe_options(commands) -> None:
    list_parser = commands.add_parser("recipes", help="list the recipes, or print one with what each setting means")
    train_parser = commands.add_parser("train", help="run a recipe: tiny/dpo, or a YAML file of your own")
    change = "section.key=value, or key=value where one section has it, such as beta=0.3"
    list_parser.add_argument("recipe", nargs="?", help="such as tiny/dpo, or a .yaml file (default: list all)")
    train_parser.add_argument("recipe", help="such as tiny/dpo (`course recipes` lists them), or a .yaml file")
    list_parser.add_argument("--folder", action="store_true", help="print the folder of recipes and strategies")
    for parser in (list_parser, train_parser):
        parser.add_argument("changes", nargs="*", metavar="key=value", help=change)
    train_parser.add_argument("--dry-run", action="store_true", help="say what it would need, and whether it fits")
    train_parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in its folder")
    _add_json(list_parser)
    _add_json(train_parser)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print plain values as JSON")


def _add_estimate_options(parser: argparse.ArgumentParser, settings: type, without: Sequence[str] = ()) -> None:
    """A model, a method, and an option for each further field of the settings."""
    number = "" if without else ", or a number of parameters such as 8e9"
    parser.add_argument("model", help=f"a name such as llama-3-8b, or a checkpoint's folder{number}")
    algorithm, *others = fields(settings)
    parser.add_argument("algorithm", choices=algorithm.metadata["choices"], help=algorithm.metadata["help"])
    _add_json(parser)
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
