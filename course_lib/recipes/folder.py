"""The folder of a run: the recipe in full, versions, metrics, samples, evaluation, checkpoints and the model."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from pathlib import Path

import yaml

from course_lib.machine import description
from course_lib.recipes.files import RecipeError
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
        before, now = _flat(yaml.safe_load(self.recipe.read_text())), _flat(json.loads(json.dumps(recipe.to_dict())))
        changed = [k for k in now if before.get(k) != now[k] and _matters(k)]
        if changed:
            raise RecipeError(
                f"{self.path} holds another run: "
                + "; ".join(f"{k} was {before.get(k)!r} and is {now[k]!r}" for k in changed[:4])
                + ". Go back to what it was, or give output=FOLDER"
            )

    def begin(self, recipe: Recipe) -> None:
        """Make the folder, with the recipe in full and the versions that run it."""
        self.path.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(recipe.to_dict(), sort_keys=False, allow_unicode=True, width=100)
        head = f"# {recipe.name}, in full: `course train {self.recipe.as_posix()} output=FOLDER` runs it again"
        self.recipe.write_text(f"{head}\n{text}")
        self.versions.write_text(json.dumps(versions(), indent=2) + "\n")

    def remove_if_nothing_was_trained(self) -> None:
        """Leave no folder behind a run that failed before its first checkpoint."""
        if not any(self.path.glob("checkpoints/step-*")):
            shutil.rmtree(self.path, ignore_errors=True)


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
    return section in ("method", "model", "data", "reward", "training") and name not in MAY_CHANGE_ON_RESUME


def _flat(values: dict, before: str = "") -> dict:
    found = {}
    for key, value in values.items():
        name = f"{before}{key}"
        found |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return found
