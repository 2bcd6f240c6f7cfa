"""What a run writes as it goes: metrics as JSON lines, to trackers too, and answers to read beside the curves."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from accelerate.tracking import filter_trackers, get_available_trackers

from course_lib.recipes.files import RecipeError
from course_lib.recipes.folder import RunFolder, write_whole
from course_lib.recipes.settings import Recipe
from course_lib.trainers import Part, Run, Samples

TOLD = ("loss", "eval_loss", "accuracy", "rewards/margins", "objective/scores", "objective/kl", "learning_rate")


class WriteMetrics(Part):
    """Every row of the history as a line of `metrics.jsonl`, from the first row on where a run is resumed."""

    def __init__(self, folder: RunFolder):
        self.folder, self.written = folder, 0

    def start(self, run: Run) -> None:
        if run.accelerator.is_main_process:
            self.folder.metrics.write_text("", encoding="utf-8")
        self.after_step(run)

    def after_step(self, run: Run) -> None:
        new, self.written = run.history.rows[self.written :], len(run.history.rows)
        if new and run.accelerator.is_main_process:
            with self.folder.metrics.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in new)


class TellRows(Part):
    """Rows of the history as lines on stderr, for runs whose output goes to a file, where a bar is no help."""

    def start(self, run: Run) -> None:
        self.told = len(run.history.rows)

    def after_step(self, run: Run) -> None:
        new, self.told = run.history.rows[self.told :], len(run.history.rows)
        for row in new if run.accelerator.is_main_process else []:
            shown = ", ".join(f"{k} {v:.4g}" for k, v in row.items() if k in TOLD)
            print(f"step {row['step']:,} of {run.steps:,}: {shown}", file=sys.stderr, flush=True)


class Track(Part):
    """The same rows to trackers that Accelerate knows: TensorBoard, Weights & Biases and others.

    Raises:
        RecipeError: when it is made, for a tracker whose package is not installed.
    """

    def __init__(self, recipe: Recipe, folder: RunFolder):
        self.recipe, self.folder, self.written = recipe, folder, 0
        missing = sorted(set(recipe.trackers) - {str(known.value) for known in get_available_trackers()})
        if missing:
            raise RecipeError(f"no package for trackers={missing}: pip install {' '.join(missing)}, or leave them out")

    def start(self, run: Run) -> None:
        accelerator = run.accelerator
        accelerator.log_with = filter_trackers(self.recipe.trackers, str(self.folder.path / "trackers"))
        settings = {"method": self.recipe.method, "model": self.recipe.model.name} | {
            k: v for k, v in self.recipe.training.to_dict().items() if isinstance(v, (bool, int, float, str))
        }
        accelerator.init_trackers(self.recipe.name.replace("/", "-"), config=settings)
        self.written = len(run.history.rows)  # what came before a resumed run's checkpoint is there already

    def after_step(self, run: Run) -> None:
        for row in run.history.rows[self.written :]:
            run.accelerator.log({k: v for k, v in row.items() if k != "step"}, step=row["step"])
        self.written = len(run.history.rows)

    def finish(self, run: Run) -> None:
        for tracker in run.accelerator.trackers:
            tracker.finish()


class WriteSamples(Samples):
    """Greedy answers to a few held-out prompts, every so many steps, as lines of `samples.jsonl`."""

    def __init__(self, folder: RunFolder, prompts: Sequence, every: int, tokenizer, *, max_new_tokens: int):
        super().__init__(prompts, every, tokenizer, max_new_tokens=max_new_tokens)
        self.folder = folder

    def start(self, run: Run) -> None:
        """Leave out what a run wrote after the checkpoint that it goes on from."""
        if run.accelerator.is_main_process and self.folder.samples.is_file():
            lines = self.folder.samples.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if json.loads(line)["step"] <= run.step]
            write_whole(self.folder.samples, "".join(f"{line}\n" for line in kept))

    def after_step(self, run: Run) -> None:
        before = len(self.rows)
        super().after_step(run)
        if run.accelerator.is_main_process:
            with self.folder.samples.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows[before:])
