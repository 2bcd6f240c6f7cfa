"""What a recipe will need, before anything is loaded: rows and steps, memory, disk and time."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from course_lib.hub import is_reachable, offline_if_unreachable
from course_lib.machine import memory_bytes
from course_lib.memory import MemoryEstimate, estimate_memory
from course_lib.models import folder_or_name
from course_lib.recipes.building import bytes_to_write
from course_lib.recipes.files import RecipeError
from course_lib.recipes.methods import METHOD_KINDS
from course_lib.recipes.rows import Rows, rows_of
from course_lib.recipes.settings import Recipe
from course_lib.recipes.step import Batch
from course_lib.sizing import Architecture, architecture_of
from course_lib.sizing.hardware import GB, memory_of
from course_lib.speed import ThroughputEstimate


@dataclass(frozen=True)
class Plan:
    """What a run will need. Bytes are of one GPU, or of the CPU's memory; `hours` are of training, and of the
    reference's pass over the data; looks at held-out data come on top."""

    recipe: Recipe
    rows: Rows
    steps: int
    weights: int
    trained: int
    memory: MemoryEstimate
    device: str
    room: float
    disk: float
    speed: ThroughputEstimate | None
    reference_seconds: float = 0.0  # of scoring all rows by a precomputed reference, once

    @property
    def fits(self) -> bool:
        return self.memory.reserved <= self.room

    @property
    def hours(self) -> float | None:
        """None on a CPU, whose time is not estimated."""
        if self.speed is None:
            return None
        training = self.recipe.training
        rows = self.rows.training * getattr(training, "completions", 1)
        training_hours = self.speed.cost(examples=rows, epochs=training.epochs, price_per_gpu_hour=1).hours
        return training_hours + self.reference_seconds / 3600

    def to_dict(self) -> dict:
        """All figures as plain values."""
        speed = None if self.speed is None else {
            "tokens_per_second": self.speed.total_tokens_per_second, "hours": self.hours
        }  # fmt: skip
        return {
            "recipe": self.recipe.to_dict(),
            "rows": asdict(self.rows),
            "steps": self.steps,
            "weights": self.weights,
            "trained_weights": self.trained,
            "device": self.device,
            "memory": {"peak": self.memory.peak, "reserved": self.memory.reserved, "phase": self.memory.phase,
                       "room": self.room, "fits": self.fits},
            "disk": self.disk,
            "speed": speed,
        }  # fmt: skip

    def __str__(self) -> str:
        r, rows, memory = self.recipe, self.rows, self.memory
        each = f"each of {r.hardware.gpus} GPUs ({r.hardware.strategy})" if r.hardware.gpus > 1 else "one GPU"
        where = "the CPU" if self.device == "CPU" else f"{each}, {self.device}"
        found = "" if rows.measured else ", as the recipe says: they are not at hand"
        lines = {
            "method": r.method,
            "model": f"{r.model.name}: {_short(self.weights)} weights, {_short(self.trained)} of them trained",
            "data": f"{r.data.source}: {rows.training:,} rows, {rows.held_out:,} held out; "
            f"{rows.tokens:,} tokens on average, {rows.longest:,} at most{found}",
            "steps": f"{self.steps:,} of {r.training.batch_size:,} {_unit(r)}, {_epochs(r.training.epochs)}",
            "memory": f"{memory.peak / GB:.3g} GB at the peak ({memory.phase}), {memory.reserved / GB:.3g} GB with "
            f"allowances, of {self.room / GB:.3g} GB on {where}: {'fits' if self.fits else 'DOES NOT FIT'}",
            "disk": f"{self.disk / GB:.2g} GB for checkpoints and model, in {r.output}",
            "time": "not estimated on a CPU"
            if self.speed is None
            else f"{self.hours:.2g} hours at {self.speed.total_tokens_per_second:,.0f} tokens a second",
        }
        text = [f"{r.name}: {r.about}", *(f"  {name:8}{line}" for name, line in lines.items())]
        if not self.fits:
            text += ["  to fit:", *(f"    {line}" for line in memory.advice[1:])]
        return "\n".join(text)


def plan(recipe: Recipe) -> Plan:
    """What the recipe will need; local data are read, and nothing is downloaded but a config.

    Raises:
        RecipeError: the model's architecture is not to be had, or rows of data on the hub are not said.
        RecordError: local data that cannot be trained on.
    """
    architecture = architecture_named(recipe)
    rows = rows_of(recipe)
    batch = Batch.of(recipe, rows)
    memory = estimate_memory(architecture, METHOD_KINDS[recipe.method].estimated_as, **batch.memory_options())
    device, room = _room(recipe)
    weights = architecture.parameters("score" if recipe.method == "reward" else "lm")
    trained = _adapters(architecture, recipe.model.lora_rank) if recipe.model.lora_rank else weights
    if getattr(recipe.training, "critic", None) == "separate":
        trained *= 2
    speed = None if device == "CPU" else batch.throughput(architecture)
    return Plan(
        recipe=recipe,
        rows=rows,
        steps=batch.steps,
        weights=weights,
        trained=trained,
        memory=memory,
        device=device,
        room=room,
        disk=bytes_to_write(trained, trained if recipe.model.lora_rank else weights, recipe.training.keep_checkpoints),
        speed=speed,
        reference_seconds=0.0 if speed is None else batch.reference_seconds(architecture, speed),
    )


def architecture_named(recipe: Recipe) -> Architecture:
    """The numbers of the recipe's model: from the calculators' table, a folder's config, or the hub's."""
    name = recipe.model.architecture or recipe.model.name
    try:
        source = folder_or_name(name)
    except OSError as error:  # a model that is fetched first, and was not
        raise RecipeError(error) from error
    if Path(source, "adapter_config.json").is_file():
        raise RecipeError(f"{name} holds adapters: give model.architecture, the calculators' name of their base")
    try:
        with offline_if_unreachable():
            return architecture_of(source)
    except ValueError as error:
        if not Path(source).is_dir() and not is_reachable():
            raise RecipeError(
                f"{name!r} is no folder, and the hub cannot be reached: connect, use a shipped model or a folder, or "
                "for a dry run give model.architecture, such as llama-3-8b"
            ) from error
        raise


def _adapters(architecture: Architecture, rank: int) -> int:
    """Weights of LoRA adapters on all layers that get them."""
    return sum(w.count * rank * sum(w.shape) for w in architecture.weights_of_layers() if w.adapted)


def _room(recipe: Recipe) -> tuple[str, float]:
    if recipe.hardware.gpu:
        return recipe.hardware.gpu, memory_of(recipe.hardware.gpu)
    if torch.cuda.is_available():
        found = torch.cuda.get_device_properties(0)
        return found.name, float(found.total_memory)
    return "CPU", memory_bytes()


def _unit(recipe: Recipe) -> str:
    if METHOD_KINDS[recipe.method].records == "preference" or recipe.method.startswith("online-"):
        return "pairs"
    return "completions" if METHOD_KINDS[recipe.method].online else "rows"


def _epochs(number: float) -> str:
    return "one epoch" if number == 1 else f"{number:g} epochs"


def _short(number: float) -> str:
    return next(f"{number / size:.3g}{unit}" for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3), ("", 1))
                if number >= size or size == 1)  # fmt: skip
