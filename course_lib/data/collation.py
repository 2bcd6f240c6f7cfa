"""From encoded rows to padded batches, and batches bucketed by length.

Prompts are padded on the left and completions on the right, so all completions of a batch begin in the
same column and a model's output layer can be kept to the columns that are scored.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from course_lib.data.tokenization import Encoded


def collate_completions(rows: Sequence[Encoded], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Pad B rows into `input_ids`, `attention_mask` and `completion_mask`, each (B, T).

    Masks come from lengths and from `Encoded.scored`, never from token ids, so a pad token that equals EOS hides
    nothing.

    Raises:
        ValueError: if a completion is empty.
    """
    for i, row in enumerate(rows):
        if not row.completion_ids:
            raise ValueError(f"row {i} of the batch has an empty completion; drop it or write one")
    before = max(len(r.prompt_ids) for r in rows)
    after = max(len(r.completion_ids) for r in rows)
    input_ids, attention_mask, completion_mask = [], [], []
    for prompt, completion, scored in rows:
        left, right = before - len(prompt), after - len(completion)
        input_ids.append([pad_token_id] * left + [*prompt, *completion] + [pad_token_id] * right)
        attention_mask.append([0] * left + [1] * (len(prompt) + len(completion)) + [0] * right)
        completion_mask.append([False] * before + (scored or [True] * len(completion)) + [False] * right)
    return {
        "input_ids": _tensor(input_ids),
        "attention_mask": _tensor(attention_mask),
        "completion_mask": _tensor(completion_mask),
    }


def collate_pairs(pairs: Sequence[tuple[Encoded, Encoded]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Pad B pairs into one batch of 2B rows: the B chosen first, then the B rejected."""
    chosen, rejected = zip(*pairs, strict=True)
    return collate_completions([*chosen, *rejected], pad_token_id)


def collate_shared(pairs: Sequence[tuple[Encoded, Encoded]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """Put B pairs into B rows of [common | chosen | rejected | padding], for `pair_logps`.

    What both sides begin with, the prompt and the first tokens that their completions share, stands there once. A
    completion's last token stands nowhere: it is predicted, but nothing follows it. Tokens that do not count (see
    `Encoded`) stand in the row and have no target.

    Returns:
        `input_ids`, `segments` (0 common, 1 chosen, 2 rejected, -1 padding) and `position_ids`, each (B, T); and for
        each of the N scored tokens `source`, the place in the flattened rows that predicts it, `target`, its id,
        and `completion`, whose it is: b for the chosen and B + b for the rejected of row b, each (N,).

    Raises:
        ValueError: if a completion is empty, or a pair has no prompt in common.
    """
    width = max(shared_length(pair) for pair in pairs)
    rows: dict[str, list[list[int]]] = {"input_ids": [], "segments": [], "position_ids": []}
    scored: dict[str, list[int]] = {"source": [], "target": [], "completion": []}
    for i, (chosen, rejected) in enumerate(pairs):
        prompt = chosen.prompt_ids
        _refuse_unshared(i, chosen, rejected)
        same = _same_start(chosen.completion_ids, rejected.completion_ids)
        row, segments = [*prompt, *chosen.completion_ids[:same]], [0] * (len(prompt) + same)
        positions, common = [*range(len(row))], len(row)
        for side, encoded in enumerate((chosen, rejected)):
            ids, start = encoded.completion_ids, i * width
            inputs = ids[same:-1]
            places = [*range(len(prompt) - 1, common), *range(len(row), len(row) + len(inputs))]
            counted = [j for j in range(len(ids)) if encoded.scored is None or encoded.scored[j]]
            scored["source"] += [start + places[j] for j in counted]
            scored["target"] += [ids[j] for j in counted]
            scored["completion"] += [side * len(pairs) + i] * len(counted)
            row, segments = row + inputs, segments + [side + 1] * len(inputs)
            positions += range(common, common + len(inputs))
        _append_padded(rows, row, segments, positions, width, pad_token_id)
    return {name: _tensor(values) for name, values in (rows | scored).items()}


def collate_shared_ends(pairs: Sequence[tuple[Encoded, Encoded]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """B pairs in B rows as `collate_shared` puts them, for models that score a completion at its last token.

    All tokens stand in the row, the last ones too.

    Returns:
        `input_ids`, `segments` and `position_ids`, each (B, T), and `ends` (2B,): the places of the last tokens in the
        flattened rows, first of the B chosen, then of the B rejected completions.

    Raises:
        ValueError: as `collate_shared`.
    """
    width = max(shared_length(pair) for pair in pairs) + 2
    rows: dict[str, list[list[int]]] = {"input_ids": [], "segments": [], "position_ids": []}
    ends: list[list[int]] = [[], []]
    for i, (chosen, rejected) in enumerate(pairs):
        _refuse_unshared(i, chosen, rejected)
        same = _same_start(chosen.completion_ids, rejected.completion_ids)
        row = [*chosen.prompt_ids, *chosen.completion_ids[:same]]
        common, segments, positions = len(row), [0] * len(row), [*range(len(row))]
        for side, encoded in enumerate((chosen, rejected)):
            rest = encoded.completion_ids[same:]
            row, segments = row + rest, segments + [side + 1] * len(rest)
            positions += range(common, common + len(rest))
            ends[side].append(i * width + len(row) - 1)
        _append_padded(rows, row, segments, positions, width, pad_token_id)
    return {name: _tensor(values) for name, values in (rows | {"ends": ends[0] + ends[1]}).items()}


def shared_length(pair: tuple[Encoded, Encoded]) -> int:
    """Tokens of a pair in one row of `collate_shared`."""
    prompt, first, second = pair[0].prompt_ids, pair[0].completion_ids, pair[1].completion_ids
    return len(prompt) + len(first) + len(second) - 2 - _same_start(first, second)


def _refuse_unshared(i: int, chosen: Encoded, rejected: Encoded) -> None:
    prompt = chosen.prompt_ids
    if not (prompt and prompt == rejected.prompt_ids and chosen.completion_ids and rejected.completion_ids):
        raise ValueError(f"row {i} of the batch needs one prompt and two completions, none of them empty")


def _append_padded(rows: dict, row: list[int], segments: list[int], positions: list[int], width: int, pad: int) -> None:
    padding = width - len(row)
    rows["input_ids"].append(row + [pad] * padding)
    rows["segments"].append(segments + [-1] * padding)
    rows["position_ids"].append(positions + [0] * padding)


def _tensor(values: list) -> torch.Tensor:
    return torch.from_numpy(np.array(values))  # several times as fast as torch.tensor on lists of numbers


def _same_start(first: list[int], second: list[int]) -> int:
    """How many tokens two completions begin with alike, the last of either left out."""
    for i, (a, b) in enumerate(zip(first[:-1], second[:-1], strict=False)):
        if a != b:
            return i
    return min(len(first), len(second)) - 1


class LengthBuckets:
    """Batches of row indices, rows of similar length together, in an order drawn anew each epoch.

    Iterating twice gives two different epochs, counted by `epoch`, which can be set; the same seed gives the same
    ones. Rows are shuffled, sorted by length inside pools of about fifty batches, cut into batches whose sizes differ
    by one at most, and the batches shuffled. With `groups`, one number a row, each group is dealt out so: every batch
    holds its share of every group, and may be larger or smaller by a row a group.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        *,
        seed: int = 0,
        pool: int = 50,
        groups: Sequence[int] | None = None,
    ):
        # Not named `batch_size`: Accelerate would drop batches of any other size when it shares them out.
        self.lengths, self.width, self.seed, self.pool = list(lengths), batch_size, seed, pool
        groups = groups or [0] * len(self.lengths)
        self.members = [[i for i, g in enumerate(groups) if g == group] for group in sorted(set(groups))]
        self.epoch = 0

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.width)

    def __iter__(self) -> Iterator[list[int]]:
        draw = random.Random(f"{self.seed}-{self.epoch}")
        self.epoch += 1
        dealt = [self._dealt(draw.sample(members, len(members))) for members in self.members]
        batches = [[row for part in parts for row in part] for parts in zip(*dealt, strict=True)]
        draw.shuffle(batches)
        return iter(batches)

    def _dealt(self, order: list[int]) -> list[list[int]]:
        """A group's rows, shuffled, as one part for each batch."""
        width = self.pool * max(1, round(self.width * len(order) / len(self.lengths)))
        pools = (order[start : start + width] for start in range(0, len(order), width))
        order = [row for pool in pools for row in sorted(pool, key=self.lengths.__getitem__)]
        return even_parts(order, len(self))


def even_parts(rows: Sequence[int], parts: int) -> list[list[int]]:
    """The rows in order, cut into that many parts whose sizes differ by one at most."""
    cuts = [round(i * len(rows) / parts) for i in range(parts + 1)]
    return [list(rows[a:b]) for a, b in zip(cuts, cuts[1:], strict=False)]
