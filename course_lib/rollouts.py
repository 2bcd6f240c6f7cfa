"""Batched sampling with a key-value cache, or whatever else a model keeps between two tokens."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from numbers import Integral, Real
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import DynamicCache

from course_lib.data import encode_prompt, turn_end, turn_end_ids
from course_lib.logprobs import alike, all_logits, device_of, evaluating, position_ids, takes, unwrapped
from course_lib.models import pad_id, refuse_unknown_ids

logger = logging.getLogger(__name__)
_stepping: WeakKeyDictionary[nn.Module, type] = WeakKeyDictionary()  # found out once a model
NO_STATE = ("loss", "logits", "hidden_states", "attentions")  # what a forward returns besides its state


@torch.inference_mode()
def sample(
    model,
    tokenizer,
    prompts: Sequence,
    *,
    max_new_tokens: int = 48,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 256,
    skip_special_tokens: bool = True,
    progress: bool = False,
) -> list[str]:
    """One completion for each prompt, up to the first token that ends a turn (see `stop_ids`).

    Args:
        model: a causal language model; also one with a recurrent state, such as Mamba, RWKV and hybrids of them.
        tokenizer: its tokenizer.
        prompts: a list of strings, or of dialogues (each a list of chat messages).
        max_new_tokens: where to stop if the model does not.
        temperature: 0 takes the most likely token each time (greedy); 1 samples from the model as it is.
        seed: of the draws; the same seed gives the same completions.
        batch_size: prompts sampled together; those of similar length share a batch.
        skip_special_tokens: leave special tokens out of the text. With False those that the model said before it
            ended are shown, so that they can be scored.
        progress: show a progress bar.

    Returns:
        The completions as text without the token that ends them, in the order of the prompts.

    Raises:
        ValueError: for settings that cannot be meant, an empty prompt, a prompt that leaves no room in the model's
            context, or token ids that the model does not have.
        TypeError: if `prompts` is one string, one dialogue, or records.
    """
    _refuse_settings(max_new_tokens, temperature, seed, batch_size)
    prompts = _as_prompts(prompts)
    encoded = [_with_a_start(encode_prompt(p, tokenizer), i, tokenizer) for i, p in enumerate(prompts)]
    _refuse_overflow(model, encoded, max_new_tokens)
    refuse_unknown_ids(model, {i for row in encoded for i in row})
    if not encoded:
        return []
    device, stops, pad = device_of(model), stop_ids(model, tokenizer), pad_id(model, tokenizer)
    generator = torch.Generator(device).manual_seed(int(seed))
    texts: list[str] = [""] * len(encoded)
    with evaluating(model):
        stepping = _stepping_of(model, max(encoded, key=len))
        for rows in tqdm(_batches(encoded, batch_size, stepping.pads), desc="sampling", disable=not progress):
            steps = stepping(model, [encoded[i] for i in rows], pad)
            tokens = _generate(steps, max_new_tokens, temperature, generator, stops, pad)
            decoded = tokenizer.batch_decode(tokens, skip_special_tokens=skip_special_tokens)
            for i, text in zip(rows, decoded, strict=True):
                texts[i] = text if isinstance(prompts[i], str) else text.removeprefix(turn_end(tokenizer).lead)
    return texts


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


class _Cached:
    """Next-token logits of rows padded on the left. What the model remembers of them comes out and goes in again."""

    pads = True

    def __init__(self, model, rows: list[list[int]], pad: int):
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


class _CachedUnpadded(_Cached):
    """The same for rows of equal length, where a recurrent state would remember padding."""

    pads = False

    def where(self) -> dict[str, Tensor]:
        return self.positions()


class _Whole:
    """Next-token logits from all tokens anew, padded on the right: slow, and right for every causal model."""

    pads = True

    def __init__(self, model, rows: list[list[int]], pad: int):
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


def _stepping_of(model, ids: list[int]) -> type:
    """The fastest way to the next token that gives this model's own logits; tried once, on a few of these ids."""
    inner = unwrapped(model)
    if inner not in _stepping:
        ways = (way for way in (_Cached, _CachedUnpadded) if _agrees(way, model, (ids * 8)[:8]))
        _stepping[inner] = next(ways, _Whole)
        if _stepping[inner] is _Whole:
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
    steps, seen = way(model, rows, rows[0][0]), []
    for token in then:
        seen.append(steps.logits())
        steps.append(torch.full((len(rows), 1), token, device=device_of(model)))
    return torch.stack(seen, dim=1)


def _alone(model, row: list[int], then: list[int]) -> Tensor:
    """Logits (len(then), V) at the row's end and after each further token, in one pass."""
    ids = torch.tensor([row + then[:-1]], device=device_of(model))
    return all_logits(model, input_ids=ids, attention_mask=torch.ones_like(ids))[0, len(row) - 1 :].float()


def _batches(rows: list[list[int]], batch_size: int, pads: bool) -> list[list[int]]:
    """Rows of similar length together; of equal length where they cannot be padded."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    groups = [order] if pads else [list(group) for _, group in groupby(order, key=lambda i: len(rows[i]))]
    return [group[start : start + batch_size] for group in groups for start in range(0, len(group), batch_size)]


def _generate(steps, max_new_tokens: int, temperature: float, generator, stops: set[int], pad: int) -> list[list[int]]:
    """Token ids of each row's completion, the one that ends it left out."""
    new, done = [], torch.tensor(False, device=generator.device)
    ends = torch.tensor(sorted(stops), device=generator.device, dtype=torch.long)
    for _ in range(max_new_tokens):
        ids = _next_token(steps.logits(), temperature, generator).masked_fill(done, pad)
        new.append(ids)
        done = done | torch.isin(ids, ends)
        if done.all():
            break
        steps.append(ids)
    return [_up_to_the_end(row, stops) for row in torch.cat(new, dim=1).tolist()]


def _up_to_the_end(row: list[int], stops: set[int]) -> list[int]:
    return next((row[:i] for i, token in enumerate(row) if token in stops), row)


def _next_token(logits: Tensor, temperature: float, generator) -> Tensor:
    if temperature == 0:
        return logits.argmax(dim=-1, keepdim=True)
    return torch.multinomial((logits / temperature).softmax(dim=-1), 1, generator=generator)


def _refuse_settings(max_new_tokens, temperature, seed, batch_size) -> None:
    for name, value, least in (("max_new_tokens", max_new_tokens, 1), ("batch_size", batch_size, 1), ("seed", seed, 0)):
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise ValueError(f"{name} is a whole number, at least {least}; got {value!r}")
    if not isinstance(temperature, Real) or not 0 <= temperature < float("inf"):
        raise ValueError(f"need temperature >= 0 and finite; got {temperature!r}")


def _as_prompts(prompts) -> list:
    """The prompts as a list, each a string or a dialogue."""
    if isinstance(prompts, str):
        raise TypeError(f"sample takes a list of prompts; for one write [{prompts[:20]!r}]")
    if isinstance(prompts, Mapping) or not isinstance(prompts, Iterable):
        raise TypeError(f"sample takes a list of strings or of dialogues; got a {type(prompts).__name__}")
    prompts = list(prompts)
    for i, prompt in enumerate(prompts):
        if isinstance(prompt, Mapping):
            advice = "[dialogue] for one dialogue" if "role" in prompt else '[r["prompt"] for r in records] for records'
            raise TypeError(f"sample takes a list of strings or of dialogues, not of dicts; write {advice}")
        if not isinstance(prompt, str) and not _is_dialogue(prompt):
            raise TypeError(f"prompt {i} is neither a string nor a list of chat messages: {prompt!r:.80}")
    return prompts


def _is_dialogue(prompt) -> bool:
    return isinstance(prompt, list) and bool(prompt) and all(isinstance(m, Mapping) and "role" in m for m in prompt)


def _with_a_start(ids: list[int], row: int, tokenizer) -> list[int]:
    """The prompt's ids; an empty one begins with BOS, where the tokenizer has that."""
    if not ids and tokenizer.bos_token_id is None:
        raise ValueError(f"prompt {row} is empty, and the tokenizer has no BOS token to begin with; write something")
    return ids or [tokenizer.bos_token_id]


def _refuse_overflow(model, encoded: list[list[int]], max_new_tokens: int) -> None:
    room = getattr(unwrapped(model).config.get_text_config(), "max_position_embeddings", None)
    for i, ids in enumerate(encoded):
        if room and 0 < room < len(ids) + max_new_tokens:
            raise ValueError(
                f"prompt {i} has {len(ids)} tokens, and with max_new_tokens={max_new_tokens} the text would pass the "
                f"{room} positions that the model has; shorten the prompt or lower max_new_tokens"
            )
