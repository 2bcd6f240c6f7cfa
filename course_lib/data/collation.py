"""From encoded rows to padded batches, and batches bucketed by length.

Prompts are padded on the left and completions on the right, so all completions of a batch begin in the
same column and a model's output layer can be kept to the columns that are scored.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import torch

from course_lib.data.tokenization import Encoded


def collate_completions(rows: Sequence[Encoded], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Pad B rows into `input_ids`, `attention_mask` and `completion_mask`, each (B, T).

    Masks come from lengths, never from token ids, so a pad token that equals EOS hides nothing.

    Raises:
        ValueError: if a completion is empty.
    """
    for i, row in enumerate(rows):
        if not row.completion_ids:
            raise ValueError(f"row {i} of the batch has an empty completion; drop it or write one")
    before = max(len(r.prompt_ids) for r in rows)
    after = max(len(r.completion_ids) for r in rows)
    input_ids = torch.full((len(rows), before + after), pad_token_id)
    attention_mask = torch.zeros_like(input_ids)
    completion_mask = torch.zeros_like(input_ids, dtype=torch.bool)
    for i, (prompt, completion) in enumerate(rows):
        start, end = before - len(prompt), before + len(completion)
        input_ids[i, start:end] = torch.tensor([*prompt, *completion])
        attention_mask[i, start:end] = 1
        completion_mask[i, before:end] = True
    return {"input_ids": input_ids, "attention_mask": attention_mask, "completion_mask": completion_mask}


def collate_pairs(pairs: Sequence[tuple[Encoded, Encoded]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Pad B pairs into one batch of 2B rows: the B chosen first, then the B rejected."""
    chosen, rejected = zip(*pairs, strict=True)
    return collate_completions([*chosen, *rejected], pad_token_id)


class LengthBuckets:
    """Batches of row indices, rows of similar length together, in an order drawn anew each epoch.

    Iterating twice gives two different epochs; the same seed gives the same epochs. Rows are shuffled,
    sorted by length inside pools of about fifty batches, cut into batches whose sizes differ by one at
    most, and the batches shuffled.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, *, seed: int = 0, pool: int = 50):
        # Not named `batch_size`: Accelerate would drop batches of any other size when it shares them out.
        self.lengths, self.rows, self.seed, self.pool = list(lengths), batch_size, seed, pool
        self.epoch = 0

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.rows)

    def __iter__(self) -> Iterator[list[int]]:
        draw = random.Random(f"{self.seed}-{self.epoch}")
        self.epoch += 1
        order = draw.sample(range(len(self.lengths)), len(self.lengths))
        width = self.pool * self.rows
        pools = (order[start : start + width] for start in range(0, len(order), width))
        order = [row for pool in pools for row in sorted(pool, key=self.lengths.__getitem__)]
        cuts = [round(i * len(order) / len(self)) for i in range(len(self) + 1)]
        batches = [order[a:b] for a, b in zip(cuts, cuts[1:], strict=False)]
        draw.shuffle(batches)
        return iter(batches)
