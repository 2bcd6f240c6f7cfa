"""What trainers on preference pairs share: a row is (chosen, rejected), a batch is B chosen then B rejected."""

from __future__ import annotations

from torch import Tensor

from course_lib.data import collate_pairs
from course_lib.data.tokenization import Encoded, encode_row
from course_lib.trainers.loop import Trainer


class PairTrainer(Trainer):
    """A trainer whose records are `{"prompt", "chosen", "rejected"}` and whose loss has one term a pair."""

    record_kind = "preference"

    def encode(self, record: dict) -> tuple[Encoded, Encoded]:
        chosen, rejected = encode_row(record, self.tokenizer)
        return chosen, rejected

    def length(self, row: tuple[Encoded, Encoded]) -> int:
        return max(len(e.prompt_ids) + len(e.completion_ids) for e in row)

    def collate(self, indices: list[int]) -> dict[str, Tensor]:
        return collate_pairs([self.rows[i] for i in indices], self.tokenizer.pad_token_id)

    def weight(self, batch: dict[str, Tensor]) -> int:
        return len(batch["input_ids"]) // 2
