"""Training a scalar reward model on preference pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from course_lib.data import Encoded, collate_pairs
from course_lib.losses import bradley_terry_loss
from course_lib.models import sequence_rewards
from course_lib.trainers.base import Trainer


class RewardTrainer(Trainer):
    """Fit a reward model to pairs: `RewardTrainer(reward_model, tokenizer, records).train()`.

    The model is one of transformers for sequence classification with one label, as `load_reward_model`
    gives. Metrics: `loss`, `accuracy` (share of pairs in the right order), `margin` (mean reward difference).
    """

    record_kind = "preference"

    def length(self, row: tuple[Encoded, Encoded]) -> int:
        return max(side.length for side in row)

    def collate(self, indices: list[int]) -> dict[str, Tensor]:
        return collate_pairs([self.rows[i] for i in indices], self.pad)

    def terms(self, batch: dict[str, Tensor]) -> int:
        return len(batch["input_ids"]) // 2

    def loss(self, model, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        rewards = sequence_rewards(model, batch["input_ids"], batch["attention_mask"])
        chosen, rejected = rewards.chunk(2)
        difference = (chosen - rejected).detach()
        accuracy, margin = torch.stack([(difference > 0).float().mean(), difference.mean()]).tolist()
        loss = bradley_terry_loss(chosen, rejected, reduction="sum")
        return loss, {"accuracy": accuracy, "margin": margin}
