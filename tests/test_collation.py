"""Batches that score only the tokens that count, against a plain forward pass; epochs that can be gone on with."""

import pytest
import torch
from conftest import tiny_llama

from course_lib.data import Encoded, LengthBuckets, collate_completions, collate_shared
from course_lib.logprobs import pair_logps, sequence_logps

HOLES = [
    (
        Encoded([7, 8, 9], [10, 11, 12, 13, 1], [True, True, False, False, True]),
        Encoded([7, 8, 9], [10, 11, 20, 21, 22, 1], [True, True, False, True, True, True]),
    ),
    (Encoded([3], [4, 5, 1], [False, False, True]), Encoded([3], [4, 6, 1])),
    (Encoded([5, 6], [20, 1]), Encoded([5, 6], [20, 21, 22, 1], [False, True, False, True])),
]


def plain_logp(model, row: Encoded) -> torch.Tensor:
    """Each scored token's log-probability from one forward pass over the row alone."""
    ids = torch.tensor([*row.prompt_ids, *row.completion_ids])
    logps = model(input_ids=ids[None]).logits[0].log_softmax(-1)
    start = len(row.prompt_ids)
    counts = row.scored or [True] * len(row.completion_ids)
    return sum(logps[start + i - 1, ids[start + i]] for i, counted in enumerate(counts) if counted)


@pytest.fixture(scope="module")
def expected():
    model = tiny_llama(40)
    with torch.no_grad():
        return model, [torch.stack([plain_logp(model, row) for row in side]) for side in zip(*HOLES, strict=True)]


def test_masks_with_holes_score_only_what_counts(expected):
    model, sides = expected
    for rows, logps in zip(zip(*HOLES, strict=True), sides, strict=True):
        batch = collate_completions(rows, pad_token_id=0)
        assert batch["completion_mask"].sum(1).tolist() == [row.scored_tokens for row in rows]
        torch.testing.assert_close(sequence_logps(model, **batch), logps)


def test_shared_rows_score_only_what_counts(expected):
    model, sides = expected
    batch = collate_shared(HOLES, pad_token_id=0)
    shared = pair_logps(model, **batch)
    for found, logps in zip(shared, sides, strict=True):
        torch.testing.assert_close(found, logps)


def test_an_epoch_set_again_gives_the_same_batches():
    buckets = LengthBuckets(range(100), 8, seed=3)
    epochs = [list(buckets) for _ in range(3)]
    again = LengthBuckets(range(100), 8, seed=3)
    again.epoch = 2
    assert list(again) == epochs[2] != epochs[1]
