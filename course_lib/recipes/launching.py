"""Starting a recipe's processes: one here, several through Accelerate."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import warnings
from math import ceil
from pathlib import Path

import torch
from accelerate.state import PartialState

from course_lib.recipes.files import RecipeError
from course_lib.recipes.folder import RunFolder
from course_lib.recipes.settings import Recipe
from course_lib.trainers.run import PATIENCE
from course_lib.trainers.sharded import join_on_cpus

LAUNCHED = "COURSE_LAUNCHED"  # in the environment of processes that were started here: none of them starts more
STRATEGY_FILES = Path(__file__).with_name("strategies")


def quieten() -> None:
    """Keep libraries' bars and notices out of the run's own words; DeepSpeed prints its own to stdout."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    for old_name in ("`torch.distributed", "`is_gradient_checkpointing"):  # which DeepSpeed and peft still use
        warnings.filterwarnings("ignore", old_name, FutureWarning)
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")


def needs_launch(recipe: Recipe) -> bool:
    """Whether the recipe wants processes that a launcher starts, and none has started this one."""
    started = "LOCAL_RANK" in os.environ or LAUNCHED in os.environ
    return recipe.hardware.strategy != "single" and not started


def processes() -> PartialState:
    """This process among all that run the recipe, brought together if a launcher has started several.

    Raises:
        RecipeError: they cannot reach each other.
    """
    try:
        join_on_cpus(timeout=PATIENCE)
        return PartialState(timeout=PATIENCE) if "LOCAL_RANK" in os.environ else PartialState()
    except RuntimeError as error:
        raise RecipeError(
            f"the processes did not find each other ({error!s:.200}): GLOO_SOCKET_IFNAME, and on GPUs "
            "NCCL_SOCKET_IFNAME too, must name the network card by which the nodes reach each other"
        ) from error


def is_main_process() -> bool:
    """Whether this is the process that prints and writes."""
    return os.environ.get("RANK", "0") == "0"


def launch_command(recipe: Recipe, arguments: list[str]) -> list[str]:
    """The line that starts the recipe on this machine; `arguments` are those of `course train`.

    Raises:
        RecipeError: this machine has too few GPUs, or the recipe spans several machines.
    """
    hardware, found = recipe.hardware, torch.cuda.device_count()
    if (hardware.gpu or found) and found < min(hardware.gpus, hardware.gpus_per_node):
        raise RecipeError(
            f"{recipe.name} is made for {hardware.gpus} GPUs ({hardware.gpu or 'of any kind'}), and this machine has "
            f"{found or 'no'} GPUs: --dry-run says what it needs, and hardware.gpus=N with hardware.strategy=... makes "
            "it smaller"
        )
    if hardware.gpus > hardware.gpus_per_node:
        raise RecipeError(
            f"{recipe.name} spans {ceil(hardware.gpus / hardware.gpus_per_node)} nodes, and each must be started: "
            "docs/scaling.md has the lines, for a hostfile and for Slurm"
        )
    if "zero" in hardware.strategy and importlib.util.find_spec("deepspeed") is None:
        raise RecipeError('ZeRO needs DeepSpeed: pip install -c constraints.txt -e ".[deepspeed]"')
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    command += ["--config_file", str(STRATEGY_FILES / f"{hardware.strategy}.yaml")]
    command += ["--num_processes", str(hardware.gpus), "--main_process_port", "0"]
    return [*command, "-m", "course_lib", "train", *arguments]


def launch(recipe: Recipe, options: dict) -> int:
    """Start the recipe's processes in the place of this one, so that Ctrl-C and signals reach their launcher.

    Raises:
        RecipeError: what can be refused before they start.
    """
    RunFolder(recipe.output).refuse_another_run(recipe, resume=options["resume"])
    flags = [f"--{name}" for name in ("resume", "json") if options[name]]
    command = launch_command(recipe, [options["recipe"], *options["changes"], *flags])
    quieten()
    environment = os.environ | {LAUNCHED: "1"}
    environment.setdefault("PYTHONWARNINGS", "ignore")
    environment.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "280")  # seconds for a last checkpoint
    if os.name == "posix":
        sys.stdout.flush()
        os.execve(command[0], command, environment)
    return subprocess.call(command, env=environment)
