"""Supervised fine-tuning on demonstrations, and on plain text."""

from __future__ import annotations

from torch import Tensor

from course_lib.logprobs import completion_logps
from course_lib.losses import sft_loss
from course_lib.trainers.base import Trainer
from course_lib.trainers.loop import terms_of
from course_lib.trainers.together import summed


class SFTTrainer(Trainer):
    """Maximise the likelihood of completions: `SFTTrainer(policy, tokenizer, records).train()`.

    Records are `{"prompt", "completion"}`; rows `{"text"}` may stand among them and are trained on whole.
    Metrics: `loss` (nats a completion token), `num_tokens` (completion tokens a batch).
    """

    record_kind = "sft"
    tokens = 0.0  # of the batch at hand, all micro-batches and processes together

    def terms(self, batch: dict[str, Tensor]) -> int:
        return int(batch["completion_mask"].sum())

    def before_step(self, run, micro_batches: list[dict[str, Tensor]]) -> None:
        mine = sum(terms_of(self, batch) for batch in micro_batches)
        self.tokens = summed(run.accelerator, {"tokens": float(mine)})["tokens"]

    def loss(self, model, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        logps, mask = completion_logps(model, **batch, chunk_size=self.config.chunk_size)
        return sft_loss(logps, mask, reduction="sum"), {"num_tokens": self.tokens}
