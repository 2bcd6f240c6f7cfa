"""The folder of a run: the recipe in full, versions, metrics, samples, evaluation, checkpoints and the model."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
from pathlib import Path

import yaml

from course_lib.machine import description
from course_lib.recipes.files import RecipeError, parsed
from course_lib.recipes.settings import Recipe
from course_lib.trainers.method import MAY_CHANGE_ON_RESUME

PACKAGES = ("course-lib", "torch", "transformers", "peft", "accelerate", "datasets", "bitsandbytes", "deepspeed")


class RunFolder:
    """Where a run writes: `recipe.yaml`, `versions.json`, `metrics.jsonl`, `samples.jsonl`, `evaluation.json`,
    `checkpoints/` and, in the end, `model/`."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.recipe, self.versions = self.path / "recipe.yaml", self.path / "versions.json"
        self.metrics, self.samples = self.path / "metrics.jsonl", self.path / "samples.jsonl"
        self.evaluation, self.model = self.path / "evaluation.json", self.path / "model"
        self.is_new = False

    def refuse_another_run(self, recipe: Recipe, *, resume: bool) -> None:
        """See that the folder is free, or with `resume` that it holds this run.

        Raises:
            RecipeError: it is not; it says what differs, and what to do.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RecipeError(f"{self.path} is a file, and the run needs a folder: give output=FOLDER")
        taken = self.path.is_dir() and any(self.path.iterdir())
        if not taken:
            return
        if not resume:
            raise RecipeError(f"{self.path} is not empty: --resume goes on with a run, output=FOLDER begins elsewhere")
        if not self.recipe.is_file():
            raise RecipeError(f"{self.path} holds no run to go on with: it has no recipe.yaml")
        text = self.recipe.read_text(encoding="utf-8")
        before, now = _flat(parsed(text, str(self.recipe)) or {}), _flat(json.loads(json.dumps(recipe.to_dict())))
        changed = [k for k in {**before, **now} if before.get(k) != now.get(k) and _matters(k)]
        if changed:
            raise RecipeError(
                f"{self.path} holds another run: "
                + "; ".join(f"{k} was {before.get(k)!r} and is {now.get(k)!r}" for k in changed[:4])
                + ". Go back to what it was, or give output=FOLDER"
            )

    def begin(self, recipe: Recipe) -> None:
        """Make the folder, with the recipe in full and the versions that run it."""
        self.is_new = not self.path.is_dir()
        self.path.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(recipe.to_dict(), sort_keys=False, allow_unicode=True, width=100)
        head = f"# {recipe.name}, in full: `course train {self.recipe.as_posix()} output=FOLDER` runs it again"
        write_whole(self.recipe, f"{head}\n{text}")
        write_whole(self.versions, json.dumps(versions(), indent=2) + "\n")

    def holds_a_checkpoint(self) -> bool:
        return any(self.path.glob("checkpoints/step-*"))

    def remove_if_nothing_was_trained(self) -> None:
        """Leave nothing behind a run that failed before its first step; a folder that was there before stays."""
        trained = self.metrics.is_file() and self.metrics.stat().st_size
        if trained or self.holds_a_checkpoint():
            return
        for path in (self.recipe, self.versions, self.metrics, self.samples, self.evaluation):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.path / "checkpoints", ignore_errors=True)
        if self.is_new:
            shutil.rmtree(self.path, ignore_errors=True)


def write_whole(path: Path, text: str) -> None:
    """Write a file so that whoever reads it finds the old text or the new one, and never a half."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    unfinished.write_text(text, encoding="utf-8")
    os.replace(unfinished, path)


def versions() -> dict:
    """The machine, and the packages that matter, by name."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"packages": found, "machine": description()}


def _matters(key: str) -> bool:
    """Whether a run with another value of this key would be another run."""
    section, _, name = key.partition(".")
    if section == "evaluation":  # answers before and after are compared
        return name in ("prompts", "judge", "max_new_tokens")
    return section in ("method", "model", "data", "reward", "training") and name not in MAY_CHANGE_ON_RESUME


def _flat(values: dict, before: str = "") -> dict:
    found = {}
    for key, value in values.items():
        name = f"{before}{key}"
        found |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return found
