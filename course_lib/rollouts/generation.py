"""Completions of encoded prompts, batch by batch; rows that are done leave the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from numbers import Integral

import torch
from torch import Tensor
from tqdm.auto import tqdm

from course_lib.logprobs import evaluating, unwrapped
from course_lib.models import pad_id, refuse_unknown_ids
from course_lib.rollouts.drawing import Decoding, row_uniforms
from course_lib.rollouts.stepping import stepping_of, stop_ids

LEAVE_BELOW = 0.75  # finished rows leave once fewer than this share of a batch goes on: leaving copies the cache


@dataclass
class Completion:
    """One row's tokens, the one that ended it included, and what each was drawn with.

    Attributes:
        ids: token ids, at least one.
        logps: ln of each token's probability under the distribution that it was drawn from.
        plain_logps: the same under the model itself, at temperature 1 with all tokens.
        ended: whether a token or string that ends a turn came; else the limit cut the row off.
    """

    ids: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)
    plain_logps: list[float] = field(default_factory=list)
    ended: bool = False


@torch.inference_mode()
def generate(
    model,
    tokenizer,
    encoded: Sequence[list[int]],
    decoding: Decoding,
    *,
    n: int = 1,
    max_new_tokens: int,
    seed: int,
    first: int = 0,
    batch_size: int,
    log_probabilities: bool = True,
    ends: Callable[[list[int]], bool] | None = None,
    progress: bool = False,
) -> list[Completion]:
    """`n` completions of each encoded prompt, those of a prompt one after another.

    A completion depends on the model, its prompt, the seed and its own number, of which the prompts' count from
    `first`, and on its neighbours and the batch's size only as far as floating point does.
    """
    refuse_settings(n=n, max_new_tokens=max_new_tokens, batch_size=batch_size, seed=seed)
    refuse_unknown_ids(model, {i for row in encoded for i in row})
    refuse_overflow(model, encoded, max_new_tokens)
    if not encoded:
        return []
    found: list[Completion] = [Completion()] * (n * len(encoded))
    with evaluating(model):
        way = stepping_of(model, max(encoded, key=len))
        batches = _batches(encoded, max(1, batch_size // n), way.pads)
        for rows in tqdm(batches, desc="sampling", disable=not progress):
            numbers = [n * i + j for i in rows for j in range(n)]
            steps, logits = _first(way, model, [encoded[i] for i in rows], n, pad_id(model, tokenizer), max_new_tokens)
            stops = torch.tensor(sorted(stop_ids(model, tokenizer)), device=logits.device, dtype=torch.long)
            uniforms = row_uniforms(seed, [n * first + number for number in numbers], max_new_tokens).to(logits.device)
            written = _write(steps, logits, decoding, uniforms, stops, log_probabilities, ends)
            for number, completion in zip(numbers, written, strict=True):
                found[number] = completion
    return found


def _first(way: type, model, rows: list[list[int]], n: int, pad: int, room: int) -> tuple:
    """Steps after the prompts, each `n` times, and the logits there; prompts are computed once where that can be."""
    steps = way(model, rows, pad, room)
    logits = steps.logits()
    if n == 1:
        return steps, logits
    if steps.reorders:
        steps.repeat(n)
        return steps, logits.repeat_interleave(n, dim=0)
    steps = way(model, [row for row in rows for _ in range(n)], pad, room)
    return steps, steps.logits()


def _write(steps, logits: Tensor, decoding, uniforms: Tensor, stops: Tensor, log_probabilities: bool, ends) -> list:
    """Token by token until all rows have ended or have `uniforms.shape[1]` tokens."""
    count, limit = uniforms.shape
    device = logits.device
    ids = torch.zeros(count, limit, dtype=torch.long, device=device)
    logps, plain_logps = torch.zeros(2, count, limit, device=device)
    lengths = torch.full((count,), limit, device=device)
    ended = torch.zeros(count, dtype=torch.bool, device=device)
    here = torch.arange(count, device=device)  # which row each row of the batch is: those that are done leave
    for position in range(limit):
        tokens, drawn = decoding.draw(logits, uniforms[here, position])
        ids[here, position] = tokens
        if log_probabilities:
            logps[here, position] = drawn
            plain_logps[here, position] = drawn if decoding.plain else _of(tokens, logits)
        done = torch.isin(tokens, stops)
        if ends:
            done |= torch.tensor([ends(row[: position + 1]) for row in ids[here].tolist()], device=device)
        new = done & ~ended[here]
        lengths[here[new]], ended[here[new]] = position + 1, True
        alive = ~ended[here]
        if position + 1 == limit or not alive.any():
            break
        steps.append(tokens[:, None])  # what follows an end is written nowhere
        if steps.reorders and alive.float().mean() <= LEAVE_BELOW:
            kept = alive.nonzero()[:, 0]
            steps.keep(kept)
            here = here[kept]
        logits = steps.logits()
    table = zip(ids.tolist(), logps.tolist(), plain_logps.tolist(), lengths.tolist(), ended.tolist(), strict=True)
    kept = log_probabilities
    return [Completion(row[:k], lp[: k * kept], plain[: k * kept], end) for row, lp, plain, k, end in table]


def _of(tokens: Tensor, logits: Tensor) -> Tensor:
    return logits.log_softmax(dim=-1).gather(-1, tokens[:, None])[:, 0]


def _batches(rows: Sequence[list[int]], size: int, pads: bool) -> list[list[int]]:
    """Rows of similar length together; of equal length where they cannot be padded."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    groups = [order] if pads else [list(group) for _, group in groupby(order, key=lambda i: len(rows[i]))]
    return [group[start : start + size] for group in groups for start in range(0, len(group), size)]


def refuse_settings(**settings) -> None:
    """Raise `ValueError` for counts below 1, and a seed below 0."""
    for name, value in settings.items():
        least = 0 if name == "seed" else 1
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} is a whole number, at least {least}; got {value!r}")


def refuse_overflow(model, encoded: Sequence[list[int]], max_new_tokens: int) -> None:
    """Raise `ValueError` for a prompt that leaves no room for so many tokens in the model's context."""
    room = getattr(unwrapped(model).config.get_text_config(), "max_position_embeddings", None)
    for i, ids in enumerate(encoded):
        if room and 0 < room < len(ids) + max_new_tokens:
            raise ValueError(
                f"prompt {i} has {len(ids)} tokens, and with max_new_tokens={max_new_tokens} the text would pass the "
                f"{room} positions that the model has; shorten the prompt or lower max_new_tokens"
            )
