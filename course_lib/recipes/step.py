"""A recipe's optimiser step, or rollout, as the calculators see it."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import torch

from course_lib.recipes.methods import METHOD_KINDS
from course_lib.recipes.rows import Rows
from course_lib.recipes.settings import STRATEGIES, Recipe
from course_lib.sizing import Architecture
from course_lib.speed import ThroughputEstimate, estimate_throughput
from course_lib.trainers.rollout_batches import RolloutBatches


@dataclass(frozen=True)
class Batch:
    """A recipe's batch as the calculators see it."""

    recipe: Recipe
    rows: Rows
    micro: int  # rows that go through a GPU's model together
    accumulation: int  # micro-batches of a step, or of a rollout

    @classmethod
    def of(cls, recipe: Recipe, rows: Rows) -> Batch:
        training, gpus = recipe.training, recipe.hardware.gpus
        micro = ceil(training.batch_size / (gpus * training.accumulation))
        if recipe.method.startswith("online-"):
            micro *= 2  # its batch counts pairs
        if METHOD_KINDS[recipe.method].online:
            drawn = min(training.prompts_per_rollout, rows.training) * training.completions
            micro = min(micro, ceil(drawn / gpus))
            return cls(recipe, rows, micro, ceil(drawn / (gpus * micro)))
        return cls(recipe, rows, micro, training.accumulation)

    @property
    def steps(self) -> int:
        training = self.recipe.training
        if not METHOD_KINDS[self.recipe.method].online:
            return max(1, round(ceil(self.rows.training / training.batch_size) * training.epochs))
        pairs = self.recipe.method.startswith("online-")
        batches = RolloutBatches(
            self.rows.training,
            collect=None,
            prompts_per_rollout=training.prompts_per_rollout,
            rows_per_prompt=1 if pairs else training.completions,
            batch_size=training.batch_size,
            update_epochs=training.update_epochs,
            accumulation=1,
            seed=0,
        )
        return max(1, round(len(batches) * training.epochs))

    def memory_options(self) -> dict:
        """Settings of `estimate_memory` for the longest rows."""
        recipe, training = self.recipe, self.recipe.training
        stage, offload = STRATEGIES[recipe.hardware.strategy]
        half = recipe.model.dtype == "bf16" or (recipe.model.lora_rank and self.on_gpu and not recipe.model.dtype)
        engine = "zero" in recipe.hardware.strategy  # DeepSpeed keeps fp32 masters of the weights that it trains
        precision = "bf16" if half or (engine and training.mixed_precision == "bf16") else "fp32"
        if precision == "fp32" and training.mixed_precision == "bf16":
            precision = "autocast"
        optimizer = "adamw-master" if engine and precision == "bf16" else training.optimizer
        longest = self.rows.longest
        return {
            "precision": precision,
            "optimizer": optimizer,
            "lora_rank": recipe.model.lora_rank,
            "quantization": recipe.model.quantization,
            "reference": self.reference,
            "gradient_checkpointing": training.gradient_checkpointing,
            "attention": "eager" if recipe.model.attention == "eager" else "sdpa",
            "batch_size": self.micro,
            "sequence_length": longest,
            "completion_length": min(longest - 1, max(1, round(longest * self.completion_share))),
            "shared_prompt": self.shares_prompt,
            "logits": "chunked",
            "critic": getattr(training, "critic", "separate"),
            "reward_model": any(part.model for part in recipe.reward.values()),
            "zero_stage": stage,
            "gpus": recipe.hardware.gpus,
            "offload": offload,
        }

    @property
    def shares_prompt(self) -> bool:
        """Whether the trainers compute a pair's prompt once; windows and flash attention's own kernel forbid it."""
        model, training = self.recipe.model, self.recipe.training
        kind = METHOD_KINDS[self.recipe.method]
        usual = model.attention in (None, "sdpa", "eager")
        return kind.records == "preference" and usual and getattr(training, "share_prompt", True)

    @property
    def completion_share(self) -> float:
        return self.rows.completion_tokens / self.rows.tokens

    @property
    def on_gpu(self) -> bool:
        return self.recipe.hardware.gpu is not None or torch.cuda.is_available()

    @property
    def reference(self) -> str | None:
        """Where the trainers would have it: adapters off, precomputed, or for new samples a copy."""
        kind = METHOD_KINDS[self.recipe.method]
        if self.recipe.model.lora_rank or kind.estimated_as in ("sft", "reward", "simpo", "orpo"):
            return None
        return "copy" if kind.online else "precomputed"

    def reference_seconds(self, architecture: Architecture, speed: ThroughputEstimate) -> float:
        """Of one pass of a precomputed reference over all rows: what a copy would add to each step of an epoch."""
        if self.reference != "precomputed":
            return 0.0
        copied = self.throughput(architecture, reference="copy")
        added = copied.step_seconds - speed.step_seconds
        return added * ceil(self.rows.training / speed.examples)

    def throughput(self, architecture: Architecture, **changes) -> ThroughputEstimate:
        """Of rows of average length."""
        options = {k: v for k, v in self.memory_options().items() if k != "offload"} | changes
        options |= {"sequence_length": self.rows.tokens, "completion_length": self.rows.completion_tokens,
                    "accumulation": self.accumulation, "gpus_per_node": self.recipe.hardware.gpus_per_node}  # fmt: skip
        if METHOD_KINDS[self.recipe.method].online:
            options["update_epochs"] = self.recipe.training.update_epochs
        if self.recipe.hardware.gpu:
            options["gpu"] = self.recipe.hardware.gpu
        return estimate_throughput(architecture, METHOD_KINDS[self.recipe.method].estimated_as, **options)
