"""Supervised fine-tuning on demonstrations, and on plain text."""

from __future__ import annotations

from torch import Tensor

from course_lib.logprobs import completion_logps
from course_lib.losses import sft_loss
from course_lib.trainers.base import Trainer


class SFTTrainer(Trainer):
    """Maximise the likelihood of completions: `SFTTrainer(policy, tokenizer, records).train()`.

    Records are `{"prompt", "completion"}`; rows `{"text"}` may stand among them and are trained on whole.
    Metrics: `loss` (nats a completion token), `num_tokens` (completion tokens a batch).
    """

    record_kind = "sft"

    def terms(self, batch: dict[str, Tensor]) -> int:
        return int(batch["completion_mask"].sum())

    def loss(self, model, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        logps, mask = completion_logps(model, **batch, chunk_size=self.config.chunk_size)
        return sft_loss(logps, mask, reduction="sum"), {"num_tokens": float(self.terms(batch))}
