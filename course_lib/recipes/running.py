"""One run of a recipe, from its first check to the model and its card."""

from __future__ import annotations

import json
import sys

from course_lib.models import load_policy, load_reward_model
from course_lib.recipes.building import (
    DTYPES,
    bytes_to_write,
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
from course_lib.recipes.folder import RunFolder, write_whole
from course_lib.recipes.launching import processes
from course_lib.recipes.methods import METHOD_KINDS
from course_lib.recipes.settings import Recipe
from course_lib.recipes.writing import TellRows, Track, WriteMetrics, WriteSamples
from course_lib.trainers import Part, Trainer


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
        judges = self.looks.judge and self.state.is_main_process  # who alone looks
        self.judge = judge_named(self.looks.judge, **judging) if judges else None
        if not folder.holds_a_checkpoint():
            refuse_full_disk(folder.path, self._bytes_to_write())
        self.parts = self._parts()

    def _bytes_to_write(self) -> float:
        modules = self.trainer.trained().values()
        trained = sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)
        whole = sum(p.numel() for p in self.trainer.policy.parameters()) if self.recipe.model.lora_rank is None else 0
        return bytes_to_write(trained, whole or trained, self.recipe.training.keep_checkpoints)

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
            after = self._after()
            found = comparison(before, after) if after else {}
            self._keep({"found": found, "answers before": before, "answers after": after})
            summary |= {"model": str(self.folder.model), "evaluation": found}
            text = card(self.recipe, summary, self._shown(before, after))
            write_whole(self.folder.model / "README.md", text)
        self.state.wait_for_everyone()
        return summary

    def _before(self) -> dict | None:
        """What the model is worth before it is trained, on the main process; all wait for that."""
        found = self._first_look() if self.state.is_main_process else None
        self.state.wait_for_everyone()
        return found

    def _first_look(self) -> dict | None:
        """Begin the folder, with the answers before training; those of a run that is resumed are read again."""
        if self.folder.evaluation.is_file():
            return json.loads(self.folder.evaluation.read_text(encoding="utf-8")).get("answers before")
        self.folder.begin(self.recipe)
        found = None
        if self.prompts and self.recipe.method != "reward":
            policy = self.trainer.policy
            rests = next(policy.parameters()).device  # in the CPU's memory, if its weights are to be sharded
            found = answers(
                _moved(policy, self.state.device), self.tokenizer, self.prompts, self.looks, self.judge
            )  # fmt: skip
            _moved(policy, rests)
        self._keep({"answers before": found})
        return found

    def _after(self) -> dict | None:
        """What the model that was written is worth: it is loaded again, as whoever uses it will."""
        settings, folder = self.recipe.model, str(self.folder.model)
        if self.recipe.method == "reward":
            model, tokenizer = load_reward_model(folder, device=self.state.device)
            return ranking(model, tokenizer, self.held_out) if self.held_out else None
        if not self.prompts:
            return None
        dtype = DTYPES[settings.dtype] or self.trainer.policy.dtype  # the arithmetic of the look before
        del self.trainer  # its model and optimiser need not stay beside the one that is looked at
        model, tokenizer = load_policy(
            folder, quantization=settings.quantization, dtype=dtype, attention=settings.attention,
            device=self.state.device,
        )  # fmt: skip
        return answers(model, tokenizer, self.prompts, self.looks, self.judge)

    def _keep(self, found: dict) -> None:
        text = json.dumps({"prompts": self.prompts} | found, indent=1, ensure_ascii=False)
        write_whole(self.folder.evaluation, text)

    def _shown(self, before: dict | None, after: dict | None) -> list[tuple]:
        """Prompt, answer before and answer after, of a few."""
        if not before or not after:
            return []
        rows = zip(self.prompts, before["answers"], after["answers"], strict=True)
        return list(rows)[: self.looks.samples]


def _moved(model, device):
    """The model on a device, unless its weights are in 4 or 8 bits, which stay where they were loaded."""
    return model if getattr(model, "is_quantized", False) else model.to(device)
