"""Training a scalar reward model on preference pairs."""

from __future__ import annotations

import logging

import torch
from torch import Tensor

from course_lib.data import Encoded, collate_pairs, collate_shared_ends, shared_length
from course_lib.logprobs import why_pairs_not_shared
from course_lib.losses import bradley_terry_loss
from course_lib.models import pair_rewards, sequence_rewards, why_rewards_not_shared
from course_lib.trainers.base import Trainer

logger = logging.getLogger(__name__)


class RewardTrainer(Trainer):
    """Fit a reward model to pairs: `RewardTrainer(reward_model, tokenizer, records).train()`.

    The model is one of transformers for sequence classification with one label, as `load_reward_model`
    gives. What both sides of a pair begin with is computed once, where the model's attention allows it. Metrics:
    `loss`, `accuracy` (share of pairs in the right order), `margin` (mean reward difference).
    """

    record_kind = "preference"
    shared = False

    def before_training(self, accelerator) -> None:
        reason = why_pairs_not_shared([self.policy], self.rows, why_not=why_rewards_not_shared)
        if reason:
            logger.warning("computing each prompt twice: %s", reason)
        self.shared = not reason

    def length(self, row: tuple[Encoded, Encoded]) -> int:
        return shared_length(row) if self.shared else max(side.length for side in row)

    def collate(self, indices: list[int]) -> dict[str, Tensor]:
        collate = collate_shared_ends if self.shared else collate_pairs
        return collate([self.rows[i] for i in indices], self.pad)

    def terms(self, batch: dict[str, Tensor]) -> int:
        return len(batch["input_ids"]) if "ends" in batch else len(batch["input_ids"]) // 2

    def loss(self, model, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        if "ends" in batch:
            rewards = pair_rewards(model, **batch)
        else:
            rewards = sequence_rewards(model, batch["input_ids"], batch["attention_mask"])
        chosen, rejected = rewards.chunk(2)
        difference = (chosen - rejected).detach()
        accuracy, margin = torch.stack([(difference > 0).float().mean(), difference.mean()]).tolist()
        loss = bradley_terry_loss(chosen, rejected, reduction="sum")
        return loss, {"accuracy": accuracy, "margin": margin}
