"""Rows of a batch laid side by side without padding, those of one prompt behind a single copy of it.

A packed row is [prompt | completion | completion | ... | prompt | completion | ... | padding]. A completion's tokens
see their prompt and themselves, and count their positions from the prompt's end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from course_lib.logprobs.completions import CompletionStates, scored_tokens
from course_lib.logprobs.forward import head_of, hidden_states, unwrapped
from course_lib.logprobs.shared import as_attention_mask

FILL = {"input_ids": 0, "position_ids": 0, "group": -1, "member": 0}  # of padding
WIDTH = 64  # tokens of a packed row, if no row of the batch is longer: attention costs the square of it


class PackedRows(NamedTuple):
    """Texts packed into R rows of W tokens.

    Attributes:
        input_ids, position_ids: (R, W).
        group: (R, W), which prompt a token belongs to; -1 for padding.
        member: (R, W), 0 for a prompt's tokens, else the number of the completion behind it.
    """

    input_ids: Tensor
    position_ids: Tensor
    group: Tensor
    member: Tensor


class Packed(NamedTuple):
    """A batch (B, T), packed so that its completions' tokens can be scored.

    Attributes:
        rows: the packed rows.
        source: (N,), for each scored token the place in the flattened packed rows that predicts it.
        target: (N,) its id.
        places: (N,) its place in the flattened (B, T).
        shape: (B, T).
    """

    rows: PackedRows
    source: Tensor
    target: Tensor
    places: Tensor
    shape: tuple[int, int]


class _Unit(NamedTuple):
    """A prompt, and the texts that stand behind this copy of it."""

    prompt: list[int]
    texts: list[int]
    size: int


def pack(input_ids: Tensor, attention_mask: Tensor, completion_mask: Tensor, *, width: int = WIDTH) -> Packed:
    """Lay a padded batch out without padding; the last token of each completion is predicted, and stands nowhere.

    Args:
        input_ids, attention_mask, completion_mask: (B, T), as for `completion_logps`.
        width: tokens of a packed row; where a text is longer, all packed rows are as long as it.

    Raises:
        ValueError: as `completion_logps`.
    """
    scored = scored_tokens(input_ids, attention_mask, completion_mask)
    texts = [_text(*row) for row in zip(input_ids.tolist(), attention_mask.tolist(), scored.tolist(), strict=True)]
    rows, stands = pack_texts([(prompt, rest[:-1]) for prompt, rest, _, _ in texts], width, device=input_ids.device)
    source, target, places, columns = [], [], [], input_ids.shape[1]
    for b, (_, rest, counted, there) in enumerate(texts):
        source += [stands[b][j] for j in counted]  # the token before the completion's j-th
        target += [rest[j] for j in counted]
        places += [b * columns + there[j] for j in counted]
    tensors = [torch.tensor(values, device=input_ids.device) for values in (source, target, places)]
    return Packed(rows, *tensors, tuple(input_ids.shape))


def pack_texts(
    texts: Sequence[tuple[list[int], list[int]]], width: int = WIDTH, *, device=None
) -> tuple[PackedRows, list[list[int]]]:
    """Texts, each a prompt and what follows it, in packed rows.

    Returns:
        `(rows, stands)`: for each text the places, in the flattened rows, of its prompt's last token (-1 without a
        prompt) and then of each token that follows.
    """
    room = max(width, *(len(prompt) + len(rest) for prompt, rest in texts))
    bins = _bins(_units(texts, room), room)
    wide = max(sum(unit.size for unit in row) for row in bins)
    table: dict[str, list[list[int]]] = {"input_ids": [], "position_ids": [], "group": [], "member": []}
    stands: list[list[int]] = [[] for _ in texts]
    for number, row in enumerate(bins):
        ids, positions, group, member = [], [], [], []
        for g, unit in enumerate(row):
            length, start = len(unit.prompt), number * wide + len(ids)
            ids, positions = ids + unit.prompt, positions + [*range(length)]
            group, member = group + [g] * unit.size, member + [0] * length
            for m, b in enumerate(unit.texts, start=1):
                rest, here = texts[b][1], number * wide + len(ids)
                stands[b] = [start + length - 1 if length else -1, *range(here, here + len(rest))]
                ids, positions = ids + rest, positions + [*range(length, length + len(rest))]
                member = member + [m] * len(rest)
        padding = wide - len(ids)
        for (name, fill), values in zip(FILL.items(), (ids, positions, group, member), strict=True):
            table[name].append(values + [fill] * padding)
    return PackedRows(*(torch.tensor(values, device=device) for values in table.values())), stands


def packed_states(model, packed: Packed) -> CompletionStates | None:
    """`completion_states` of a packed batch: for models for which `why_not_shared` has no objection.

    Returns:
        None where the output layer cannot be applied apart from the model.
    """
    if (head := head_of(model)) is None:
        return None
    hidden = hidden_states(model, head, **packed_inputs(packed.rows, model)).flatten(0, 1)
    return CompletionStates(hidden.index_select(0, packed.source), packed.target, packed.places, packed.shape, head)


def packed_inputs(rows: PackedRows, model) -> dict[str, Tensor]:
    """What a model is given of packed rows."""
    group, member = rows.group, rows.member
    width = group.shape[1]
    causal = torch.ones(width, width, dtype=torch.bool, device=group.device).tril()
    same = group.unsqueeze(2) == group.unsqueeze(1)  # padding sees padding, so no row is empty
    visible = causal & same & ((member.unsqueeze(1) == 0) | (member.unsqueeze(1) == member.unsqueeze(2)))
    mask = as_attention_mask(visible, unwrapped(model))
    return {"input_ids": rows.input_ids, "position_ids": rows.position_ids, "attention_mask": mask}


def spread(packed: Packed, read: Callable[[Tensor], Tensor], hidden: Tensor) -> Tensor:
    """`read` of the hidden states (R, W, H) that stand before the scored tokens, at their places in (B, T)."""
    values = read(hidden.flatten(0, 1).index_select(0, packed.source))
    return values.new_zeros(packed.shape).flatten().index_copy(0, packed.places, values).view(packed.shape)


def _text(ids: list[int], real: list[int], scored: list[bool]) -> tuple[list[int], list[int], list[int], list[int]]:
    """A row's prompt; what follows, up to the last scored token; which of it is scored; and its columns."""
    columns = [i for i, here in enumerate(real) if here]
    first = next(k for k, i in enumerate(columns) if scored[i])
    last = max(k for k, i in enumerate(columns) if scored[i])
    there = columns[first : last + 1]
    counted = [k for k, i in enumerate(there) if scored[i]]
    return [ids[i] for i in columns[:first]], [ids[i] for i in there], counted, there


def _units(texts: Sequence[tuple[list[int], list[int]]], room: int) -> list[_Unit]:
    """Texts with the same prompt together, as many behind one copy as there is room for."""
    by_prompt: dict[tuple[int, ...], list[int]] = {}
    for b, (prompt, _) in enumerate(texts):
        by_prompt.setdefault(tuple(prompt), []).append(b)
    units = []
    for prompt, members in by_prompt.items():
        held, size = [], len(prompt)
        for b in members:
            more = len(texts[b][1])
            if held and size + more > room:
                units.append(_Unit(list(prompt), held, size))
                held, size = [], len(prompt)
            held, size = [*held, b], size + more
        units.append(_Unit(list(prompt), held, size))
    return units


def _bins(units: list[_Unit], room: int) -> list[list[_Unit]]:
    """Packed rows, each unit in the first one with room for it, the largest units first."""
    bins: list[list[_Unit]] = []
    left: list[int] = []
    for unit in sorted(units, key=lambda unit: -unit.size):
        place = next((i for i, free in enumerate(left) if free >= unit.size), None)
        if place is None:
            bins.append([])
            left.append(room)
            place = len(bins) - 1
        bins[place].append(unit)
        left[place] -= unit.size
    return bins
