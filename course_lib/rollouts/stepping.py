"""The way to the next token: with a cache that has room, with the model's own, in equal lengths, or by whole passes."""

from __future__ import annotations

import logging
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

from course_lib.data import turn_end_ids
from course_lib.logprobs import alike, all_logits, device_of, position_ids, takes, unwrapped

logger = logging.getLogger(__name__)
_stepping: WeakKeyDictionary[nn.Module, type] = WeakKeyDictionary()  # found out once a model
NO_STATE = ("loss", "logits", "hidden_states", "attentions")  # what a forward returns besides its state


def stop_ids(model, tokenizer) -> set[int]:
    """Ids after which the model says nothing more, as its own `generate` has it.

    The tokenizer's EOS, the chat template's end of a turn, and all that the model's generation config names: instruct
    models end a turn with another token than a text.
    """
    found = turn_end_ids(tokenizer)
    inner = unwrapped(model)
    for config in (getattr(inner, "generation_config", None), inner.config.get_text_config()):
        named = getattr(config, "eos_token_id", None)
        found |= {named} if isinstance(named, int) else set(named or ())
    return found


class Cached:
    """Next-token logits of rows padded on the left. What the model remembers of them comes out and goes in again.

    Attributes:
        pads: whether rows of a batch may differ in length.
        reorders: whether rows can be repeated and can leave.
    """

    pads = True

    def __init__(self, model, rows: list[list[int]], pad: int, room: int):
        self.model, device, width = model, device_of(model), max(map(len, rows))
        named = takes(model, "past_key_values")
        self.state = {"past_key_values": DynamicCache(config=unwrapped(model).config)} if named else {}
        self.ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=device)
        self.mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=device)
        self.keep_last = {"logits_to_keep": 1} if takes(model, "logits_to_keep") else {}
        self.with_positions = takes(model, "position_ids")

    def logits(self) -> Tensor:
        """(B, V) in fp32."""
        inputs = self.state | self.where() | self.keep_last
        output = self.model(input_ids=self.ids, use_cache=True, return_dict=True, **inputs)
        # models name it past_key_values, cache_params or state; it is what they return and take
        self.state |= {name: output[name] for name in output if name not in NO_STATE and takes(self.model, name)}
        return output.logits[:, -1].float()

    def where(self) -> dict[str, Tensor]:
        """Which tokens are real, and their positions."""
        return {"attention_mask": self.mask} | self.positions()

    def positions(self) -> dict[str, Tensor]:
        return {"position_ids": position_ids(self.mask)[:, -self.ids.shape[1] :]} if self.with_positions else {}

    def append(self, ids: Tensor) -> None:
        """One more token a row, (B, 1)."""
        self.ids = ids
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(ids), 1)], dim=1)

    @property
    def reorders(self) -> bool:
        layers = getattr(self.state.get("past_key_values"), "layers", [])
        return len(self.state) == 1 and bool(layers) and all(hasattr(x, "batch_select_indices") for x in layers)

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows alone."""
        self.state["past_key_values"].batch_select_indices(rows)
        self.ids, self.mask = self.ids[rows], self.mask[rows]

    def repeat(self, times: int) -> None:
        """Each row that many times, one after another."""
        self.state["past_key_values"].batch_repeat_interleave(times)
        self.ids, self.mask = (x.repeat_interleave(times, dim=0) for x in (self.ids, self.mask))


class _Room(DynamicLayer):
    """A layer of the cache with room for all tokens to come: a step writes its keys and values, and copies nothing."""

    def __init__(self, room: int):
        super().__init__()
        self.room = room

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        start = self.get_seq_length()
        if not start:
            self.lazy_initialization(key_states, value_states)
            self.whole = [s.new_empty(*s.shape[:2], self.room, s.shape[-1]) for s in (key_states, value_states)]
        end = start + key_states.shape[-2]
        for whole, states in zip(self.whole, (key_states, value_states), strict=True):
            whole[:, :, start:end] = states
        self._show(end)
        return self.keys, self.values

    def _show(self, end: int) -> None:
        self.keys, self.values = (whole[:, :, :end] for whole in self.whole)

    def batch_select_indices(self, indices: Tensor) -> None:
        end = self.get_seq_length()
        for i, whole in enumerate(self.whole):
            kept = whole.new_empty(len(indices), *whole.shape[1:])
            kept[:, :, :end] = whole[:, :, :end].index_select(0, indices)  # what is not written yet is not copied
            self.whole[i] = kept
        self._show(end)

    def batch_repeat_interleave(self, repeats: int) -> None:
        end = self.get_seq_length()
        self.whole = [whole.repeat_interleave(repeats, dim=0) for whole in self.whole]
        self._show(end)


class Roomy(Cached):
    """The same with a cache that has room from the start, and a mask of its own that nothing has to be built from."""

    def __init__(self, model, rows: list[list[int]], pad: int, room: int):
        super().__init__(model, rows, pad, room)
        layers = DynamicCache(config=unwrapped(model).config).layers
        if not layers or any(type(layer) is not DynamicLayer for layer in layers):
            raise TypeError("the model keeps something else than all keys and values")
        width = self.ids.shape[1]
        self.state = {"past_key_values": Cache(layers=[_Room(width + room) for _ in layers])}
        real = torch.cat([self.mask.bool(), self.mask.new_ones(len(rows), room).bool()], dim=1)
        self.real, self.length = real, width
        self.position = self.mask.sum(dim=1, keepdim=True)

    def where(self) -> dict[str, Tensor]:
        queries, real = self.ids.shape[1], self.real[:, None, None, : self.length]
        if queries == 1 and self.length > 1:
            return {"attention_mask": real, "position_ids": self.position - 1}
        past = torch.ones(queries, queries, dtype=torch.bool, device=self.ids.device).tril()
        itself = torch.eye(queries, dtype=torch.bool, device=self.ids.device)  # padding sees itself, or it becomes NaN
        return {"attention_mask": (real & past) | itself} | {"position_ids": position_ids(self.mask)}

    def append(self, ids: Tensor) -> None:
        self.ids, self.length, self.position = ids, self.length + 1, self.position + 1

    def keep(self, rows: Tensor) -> None:
        super().keep(rows)
        self.real, self.position = self.real[rows], self.position[rows]

    def repeat(self, times: int) -> None:
        super().repeat(times)
        self.real, self.position = (x.repeat_interleave(times, dim=0) for x in (self.real, self.position))


class CachedUnpadded(Cached):
    """The same for rows of equal length, where a recurrent state would remember padding."""

    pads = False

    def where(self) -> dict[str, Tensor]:
        return self.positions()


class Whole:
    """Next-token logits from all tokens anew, padded on the right: slow, and right for every causal model."""

    pads = reorders = True

    def __init__(self, model, rows: list[list[int]], pad: int, room: int):
        self.model, self.rows, self.pad = model, [list(row) for row in rows], pad

    def logits(self) -> Tensor:
        device = device_of(self.model)
        lengths = torch.tensor([len(row) for row in self.rows], device=device)
        width = int(lengths.max())
        ids = torch.tensor([row + [self.pad] * (width - len(row)) for row in self.rows], device=device)
        mask = (torch.arange(width, device=device) < lengths[:, None]).long()
        columns, last = (lengths - 1).unique(return_inverse=True)
        logits = all_logits(self.model, columns, input_ids=ids, attention_mask=mask)
        return logits[torch.arange(len(last), device=device), last].float()

    def append(self, ids: Tensor) -> None:
        for row, token in zip(self.rows, ids[:, 0].tolist(), strict=True):
            row.append(token)

    def keep(self, rows: Tensor) -> None:
        self.rows = [self.rows[i] for i in rows.tolist()]

    def repeat(self, times: int) -> None:
        self.rows = [list(row) for row in self.rows for _ in range(times)]


def stepping_of(model, ids: list[int]) -> type:
    """The fastest way to the next token that gives this model's own logits; tried once, on a few of these ids."""
    inner = unwrapped(model)
    if inner not in _stepping:
        ways = (way for way in (Roomy, Cached, CachedUnpadded) if _agrees(way, model, (ids * 8)[:8]))
        _stepping[inner] = next(ways, Whole)
        if _stepping[inner] is Whole:
            name = type(inner).__name__
            logger.warning("sampling from %s without a cache, which is slow: with one it predicts other tokens", name)
    return _stepping[inner]


def _agrees(way: type, model, ids: list[int]) -> bool:
    """Whether this way predicts for each row, at its end and after further tokens, what the row alone predicts."""
    longer = [ids[:5], ids[:2]] if way.pads else [ids[:4], ids[1:5]]
    single = [ids[:1], ids[1:2]]  # a prompt of one token looks like a step, and must not meet the state of rows before
    then = ids[5:]
    alone = [_alone(model, row, then) for row in longer + single]  # first, for a pass without cache may clear the state
    try:
        stepped = [*_stepped(way, model, longer, then), *_stepped(way, model, single, then)]
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
        return False  # the model does not take what this way gives it
    return all(map(alike, stepped, alone))


def _stepped(way: type, model, rows: list[list[int]], then: list[int]) -> Tensor:
    """Logits (B, len(then), V) at the rows' ends and after each further token, step by step."""
    steps, seen = way(model, rows, rows[0][0], len(then)), []
    for token in then:
        seen.append(steps.logits())
        steps.append(torch.full((len(rows), 1), token, device=device_of(model)))
    return torch.stack(seen, dim=1)


def _alone(model, row: list[int], then: list[int]) -> Tensor:
    """Logits (len(then), V) at the row's end and after each further token, in one pass."""
    ids = torch.tensor([row + then[:-1]], device=device_of(model))
    return all_logits(model, input_ids=ids, attention_mask=torch.ones_like(ids))[0, len(row) - 1 :].float()
