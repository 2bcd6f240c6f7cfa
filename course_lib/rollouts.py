"""Batched sampling with a key-value cache."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import DynamicCache

from course_lib.data.tokenization import encode_prompt
from course_lib.logprobs import position_ids, takes


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
    """One completion for each prompt.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        prompts: strings, or chat messages.
        max_new_tokens: where to stop if the model does not.
        temperature: 0 takes the most likely token each time (greedy); 1 samples from the model as it is.
        seed: of the draws; the same seed gives the same completions.
        batch_size: prompts sampled together; those of similar length share a batch.
        progress: show a progress bar.

    Returns:
        The completions as text without special tokens, in the order of the prompts.

    Raises:
        ValueError: for a negative temperature or max_new_tokens below 1.
    """
    if temperature < 0 or max_new_tokens < 1:
        raise ValueError(f"need temperature >= 0 and max_new_tokens >= 1; got {temperature} and {max_new_tokens}")
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(seed)
    encoded = [encode_prompt(p, tokenizer) for p in prompts]
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
    texts: list[str] = [""] * len(encoded)
    was_training = model.training
    model.eval()
    for start in tqdm(range(0, len(order), batch_size), desc="sampling", disable=not progress):
        rows = order[start : start + batch_size]
        input_ids, mask = _pad_left([encoded[i] for i in rows], tokenizer.pad_token_id)
        tokens = _generate(
            model, input_ids.to(device), mask.to(device), max_new_tokens, temperature, generator, tokenizer
        )
        decoded = tokenizer.batch_decode(tokens, skip_special_tokens=True)
        for i, text in zip(rows, decoded, strict=True):
            texts[i] = text
    model.train(was_training)
    return texts


def _pad_left(rows: list[list[int]], pad: int) -> tuple[Tensor, Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def _generate(model, input_ids, mask, max_new_tokens, temperature, generator, tokenizer) -> list[list[int]]:
    """Token ids of each row's completion, EOS left out."""
    eos = tokenizer.eos_token_id
    keep_last = {"logits_to_keep": 1} if takes(model, "logits_to_keep") else {}
    with_positions = takes(model, "position_ids")
    cache, step_ids, new = DynamicCache(config=model.config), input_ids, []
    done = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
    for _ in range(max_new_tokens):
        positions = {"position_ids": position_ids(mask)[:, -step_ids.shape[1] :]} if with_positions else {}
        output = model(
            input_ids=step_ids, attention_mask=mask, past_key_values=cache, use_cache=True, **positions, **keep_last
        )
        step_ids = _next_token(output.logits[:, -1].float(), temperature, generator).masked_fill(done[:, None], eos)
        new.append(step_ids)
        done |= step_ids[:, 0] == eos
        if done.all():
            break
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
    return [row[: row.index(eos)] if eos in row else row for row in torch.cat(new, dim=1).tolist()]


def _next_token(logits: Tensor, temperature: float, generator) -> Tensor:
    if temperature == 0:
        return logits.argmax(dim=-1, keepdim=True)
    return torch.multinomial((logits / temperature).softmax(dim=-1), 1, generator=generator)
