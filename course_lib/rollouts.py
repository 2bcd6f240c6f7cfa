"""Batched sampling with a key-value cache."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import DynamicCache

from course_lib.data import encode_prompt, turn_end, turn_end_ids
from course_lib.logprobs import device_of, evaluating, heeds_left_padding, position_ids, takes, unwrapped
from course_lib.models import pad_id, refuse_unknown_ids

_steps_alike: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()  # found out once a model


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
    progress: bool = False,
) -> list[str]:
    """One completion for each prompt, up to the first token that ends a turn (see `stop_ids`).

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        prompts: a list of strings, or of dialogues (each a list of chat messages).
        max_new_tokens: where to stop if the model does not.
        temperature: 0 takes the most likely token each time (greedy); 1 samples from the model as it is.
        seed: of the draws; the same seed gives the same completions.
        batch_size: prompts sampled together; those of similar length share a batch.
        progress: show a progress bar.

    Returns:
        The completions as text without special tokens, in the order of the prompts.

    Raises:
        ValueError: for settings that cannot be meant, an empty prompt, a prompt that leaves no room in the model's
            context, token ids that the model does not have, or a model that cannot be sampled step by step.
        TypeError: if `prompts` is one string, one dialogue, or records.
    """
    _refuse_settings(max_new_tokens, temperature, seed, batch_size)
    _refuse_what_are_no_prompts(prompts)
    encoded = [_with_a_start(encode_prompt(p, tokenizer), i, tokenizer) for i, p in enumerate(prompts)]
    _refuse_overflow(model, encoded, max_new_tokens)
    refuse_unknown_ids(model, {i for row in encoded for i in row})
    if encoded and not _steps_agree(model):
        raise ValueError(
            f"{type(unwrapped(model)).__name__} cannot be sampled here: token by token, with the state that it carries "
            "over, it predicts something else than in one pass over the same text"
        )
    device = device_of(model)
    generator = torch.Generator(device).manual_seed(int(seed))
    stops, pad = stop_ids(model, tokenizer), pad_id(model, tokenizer)
    texts: list[str] = [""] * len(encoded)
    with evaluating(model):
        for rows in tqdm(_batches(model, encoded, batch_size), desc="sampling", disable=not progress):
            input_ids, mask = _pad_left([encoded[i] for i in rows], pad)
            inputs = input_ids.to(device), mask.to(device)
            tokens = _generate(model, *inputs, max_new_tokens, temperature, generator, stops, pad)
            decoded = tokenizer.batch_decode(tokens, skip_special_tokens=True)
            for i, text in zip(rows, decoded, strict=True):
                texts[i] = text if isinstance(prompts[i], str) else text.removeprefix(turn_end(tokenizer).lead)
    return texts


def stop_ids(model, tokenizer) -> set[int]:
    """Ids after which the model says nothing more, as its own `generate` has it.

    The tokenizer's EOS, the chat template's end of a turn, and all that the model's generation config names: instruct
    models end a turn with another token than a text.
    """
    found = turn_end_ids(tokenizer)
    for config in (getattr(model, "generation_config", None), getattr(model, "config", None)):
        named = getattr(config, "eos_token_id", None)
        found |= {named} if isinstance(named, int) else set(named or ())
    return found


def _batches(model, encoded: list[list[int]], batch_size: int) -> list[list[int]]:
    """Rows of similar length together; of equal length where the model cannot be padded."""
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
    if heeds_left_padding(model):
        return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    batches: list[list[int]] = []
    for i in order:
        if batches and len(batches[-1]) < batch_size and len(encoded[batches[-1][0]]) == len(encoded[i]):
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def _pad_left(rows: list[list[int]], pad: int) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def _generate(model, input_ids, mask, max_new_tokens, temperature, generator, stops: set[int], pad: int):
    """Token ids of each row's completion, the one that ends it left out."""
    ends = torch.tensor(sorted(stops), device=input_ids.device, dtype=torch.long)
    state, step_ids, new = _first_state(model), input_ids, []
    done = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
    for _ in range(max_new_tokens):
        logits, state = _step(model, step_ids, mask, state)
        step_ids = _next_token(logits.float(), temperature, generator).masked_fill(done[:, None], pad)
        new.append(step_ids)
        done |= torch.isin(step_ids[:, 0], ends)
        if done.all():
            break
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
    return [_up_to_the_end(row, stops) for row in torch.cat(new, dim=1).tolist()]


def _up_to_the_end(row: list[int], stops: set[int]) -> list[int]:
    return next((row[:i] for i, token in enumerate(row) if token in stops), row)


def _state_name(model) -> str:
    """The argument under which the model's forward takes back what it remembers of the text so far."""
    return next((name for name in ("past_key_values", "cache_params", "state") if takes(model, name)), "")


def _first_state(model):
    return DynamicCache(config=model.config) if _state_name(model) == "past_key_values" else None


def _step(model, step_ids: Tensor, mask: Tensor, state) -> tuple[Tensor, object]:
    """Logits (B, V) of what follows, and the state after these tokens; without a state, `step_ids` is all there is."""
    name, inputs = _state_name(model), {"input_ids": step_ids}
    if name == "past_key_values" or state is None:  # a recurrent state has forgotten the padding, and takes no mask
        inputs["attention_mask"] = mask
    if takes(model, "position_ids"):
        inputs["position_ids"] = position_ids(mask)[:, -step_ids.shape[1] :]
    if takes(model, "logits_to_keep"):
        inputs["logits_to_keep"] = 1
    if name and state is not None:
        inputs[name] = state
    output = model(**inputs, use_cache=True)
    return output.logits[:, -1], getattr(output, name)


@torch.no_grad()
def _steps_agree(model) -> bool:
    """Whether a step with the model's state predicts what one pass over all tokens does, tried once on a few."""
    inner = unwrapped(model)
    if inner not in _steps_alike:
        try:
            _steps_alike[inner] = _tried_steps(inner)
        except (TypeError, ValueError, AttributeError, RuntimeError):
            _steps_alike[inner] = False
    return _steps_alike[inner]


def _tried_steps(inner: nn.Module) -> bool:
    ids = torch.arange(1, 7, device=device_of(inner))[None] % inner.config.get_text_config().vocab_size
    with evaluating(inner):
        whole, _ = _step(inner, ids, torch.ones_like(ids), _first_state(inner))
        _, state = _step(inner, ids[:, :-1], torch.ones_like(ids[:, :-1]), _first_state(inner))
        stepped, _ = _step(inner, ids[:, -1:], torch.ones_like(ids), state)
        forgetful, _ = _step(inner, ids[:, -1:], torch.ones_like(ids[:, -1:]), _first_state(inner))
    error, without_state = ((other - whole).abs().max().float() for other in (stepped, forgetful))
    return bool(error <= 0.1 * without_state + 1e-4)  # rounding stays far below what a lost state would change


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


def _refuse_what_are_no_prompts(prompts) -> None:
    if isinstance(prompts, str):
        raise TypeError(f"sample takes a list of prompts; write [{prompts[:20]!r}] for one")
    first = next(iter(prompts), "")
    if isinstance(first, dict):
        advice = "[dialogue] for one dialogue" if "role" in first else '[record["prompt"] for record in records]'
        raise TypeError(f"sample takes a list of strings or of dialogues, not of dicts; write {advice}")
    for i, prompt in enumerate(prompts):
        if not isinstance(prompt, (str, list)):
            raise TypeError(f"prompt {i} is a {type(prompt).__name__}; give a string or a list of chat messages")


def _with_a_start(ids: list[int], row: int, tokenizer) -> list[int]:
    """The prompt's ids; an empty one begins with BOS, where the tokenizer has that."""
    if not ids and tokenizer.bos_token_id is None:
        raise ValueError(f"prompt {row} is empty, and the tokenizer has no BOS token to begin with; write something")
    return ids or [tokenizer.bos_token_id]


def _refuse_overflow(model, encoded: list[list[int]], max_new_tokens: int) -> None:
    room = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    for i, ids in enumerate(encoded):
        if room is not None and len(ids) + max_new_tokens > room:
            raise ValueError(
                f"prompt {i} has {len(ids)} tokens, and with max_new_tokens={max_new_tokens} the text would pass the "
                f"{room} positions that the model has; shorten the prompt or lower max_new_tokens"
            )
