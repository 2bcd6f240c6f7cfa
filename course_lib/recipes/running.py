"""One run of a recipe, from its first check to the model and its card."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from course_lib.models import load_policy, load_reward_model
from course_lib.recipes.building import (
    device_of_process,
    held_out_prompts,
    judge_named,
    policy_of,
    records_of,
    refuse_full_disk,
    reward_of,
    trainer_of,
)
from course_lib.recipes.card import card
from course_lib.recipes.evaluating import answers, comparison, ranking
from course_lib.recipes.folder import RunFolder
from course_lib.recipes.launching import processes
from course_lib.recipes.methods import METHOD_KINDS
from course_lib.recipes.planning import CHECKPOINT_BYTES
from course_lib.recipes.settings import Recipe
from course_lib.recipes.writing import TellRows, Track, WriteMetrics, WriteSamples
from course_lib.trainers import Part, Trainer

MODEL_BYTES = 4


def run_recipe(recipe: Recipe, *, resume: bool = False) -> dict:
    """Run a recipe and leave its folder (see `RunFolder`); whatever can be refused is refused before it is made.

    Args:
        recipe: as `read_recipe` gives it.
        resume: go on with the run in `recipe.output` from its newest checkpoint.

    Returns:
        A summary: the folder, steps, the last metrics, what the evaluation found, and whether the run was interrupted.

    Raises:
        RecipeError, RecordError, OSError: what is named cannot be had, or does not fit; nothing was written.
        TrainingError: training had to stop; the checkpoints stay.
    """
    folder = RunFolder(recipe.output)
    folder.refuse_another_run(recipe, resume=resume)
    return _Execution(recipe, folder).run(resume)


class _Execution:
    """A recipe with all that it names."""

    def __init__(self, recipe: Recipe, folder: RunFolder):
        self.recipe, self.folder, self.state = recipe, folder, processes()
        self.kind, self.looks = METHOD_KINDS[recipe.method], recipe.evaluation
        device = device_of_process(recipe.hardware.strategy)
        records, self.held_out = records_of(recipe)
        policy, self.tokenizer = policy_of(recipe.model, recipe.method, device=device)
        judging = {"device": self.state.device, "dtype": recipe.model.dtype}
        reward = reward_of(recipe.reward, **judging) if self.kind.online else None
        self.trainer: Trainer = trainer_of(recipe, policy, self.tokenizer, records, self.held_out, reward)
        self.prompts = held_out_prompts(recipe, self.held_out)
        self.judge = judge_named(self.looks.judge, **judging) if self.looks.judge else None
        refuse_full_disk(folder.path, self._bytes_to_write())
        self.parts = self._parts()

    def _bytes_to_write(self) -> float:
        modules = self.trainer.trained().values()
        trained = sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)
        whole = sum(p.numel() for p in self.trainer.policy.parameters()) if self.recipe.model.lora_rank is None else 0
        checkpoints = self.recipe.training.keep_checkpoints + 1
        return CHECKPOINT_BYTES * trained * checkpoints + MODEL_BYTES * max(whole, trained)

    def _parts(self) -> list[Part]:
        parts: list[Part] = [WriteMetrics(self.folder)]
        if not sys.stderr.isatty():
            parts.append(TellRows())
        if self.recipe.trackers:
            parts.append(Track(self.recipe, self.folder))
        if shown := [] if self.recipe.method == "reward" else self.prompts[: self.looks.samples]:
            every = self.looks.every or 10**9
            parts.append(
                WriteSamples(self.folder, shown, every, self.tokenizer, max_new_tokens=self.looks.max_new_tokens)
            )
        return parts

    def run(self, resume: bool) -> dict:
        new = not self.folder.recipe.is_file()
        try:
            before = self._before()
            history = self.trainer.train(resume=resume, parts=self.parts)
        except BaseException:
            if new and self.state.is_main_process:
                self.folder.remove_if_nothing_was_trained()
            raise
        summary = {
            "recipe": self.recipe.name,
            "folder": str(self.folder.path),
            "interrupted": history.interrupted,
            "steps": history.rows[-1]["step"],
            "metrics": history.rows[-1],
        }
        if history.interrupted:
            return summary
        self.trainer.save_pretrained(self.folder.model)
        if self.state.is_main_process:
            summary |= {"model": str(self.folder.model), "evaluation": self._after(before)}
            text = card(self.recipe, summary, self._shown(before))
            Path(self.folder.model, "README.md").write_text(text)
        self.state.wait_for_everyone()
        return summary

    def _before(self) -> dict | None:
        """Begin the folder, with the answers before training; those of a run that is resumed are read again."""
        found = None
        if self.state.is_main_process:
            if self.folder.evaluation.is_file():
                return json.loads(self.folder.evaluation.read_text()).get("answers before")
            self.folder.begin(self.recipe)
            if self.prompts and self.recipe.method != "reward":
                found = answers(self.trainer.policy, self.tokenizer, self.prompts, self.looks, self.judge)
            self.folder.evaluation.write_text(json.dumps({"answers before": found}, indent=1))
        self.state.wait_for_everyone()
        return found

    def _after(self, before: dict | None) -> dict:
        """What the model that was written is worth: it is loaded again, as whoever uses it will."""
        if self.recipe.method == "reward":
            model, tokenizer = load_reward_model(str(self.folder.model), device=self.state.device)
            self.after = ranking(model, tokenizer, self.held_out) if self.held_out else None
        elif self.prompts:
            quantization = self.recipe.model.quantization
            model, tokenizer = load_policy(
                str(self.folder.model), quantization=quantization, device=self.state.device
            )  # fmt: skip
            self.after = answers(model, tokenizer, self.prompts, self.looks, self.judge)
        else:
            self.after = None
        found = comparison(before, self.after) if self.after else {}
        kept = {"found": found, "prompts": self.prompts, "answers before": before, "answers after": self.after}
        self.folder.evaluation.write_text(json.dumps(kept, indent=1, ensure_ascii=False))
        return found

    def _shown(self, before: dict | None) -> list[tuple]:
        """Prompt, answer before and answer after, of a few."""
        if not before or not self.after:
            return []
        rows = zip(self.prompts, before["answers"], self.after["answers"], strict=True)
        return list(rows)[: self.looks.samples]
