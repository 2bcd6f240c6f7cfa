"""A trained reward model as a reward function."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

from course_lib.data import Encoded, collate_completions, encode_completion
from course_lib.logprobs import device_of, evaluating, fits_window, pack_texts, unwrapped
from course_lib.models import (
    packed_rewards,
    pad_id,
    refuse_unknown_ids,
    sequence_rewards,
    why_rewards_not_shared,
)

RewardFunction = Callable[[Sequence, Sequence], Tensor]


def learned_reward(model, tokenizer, *, batch_size: int = 256) -> RewardFunction:
    """A trained reward model as a reward function.

    Args:
        model: one of transformers for sequence classification with one label, with adapters or without. It is
            used in evaluation mode, whatever mode it is in.
        tokenizer: its tokenizer.
        batch_size: responses scored together, at least 1.

    Returns:
        A function of B prompts and B completions (both strings, or both chat messages) that gives their
        rewards, shape (B,), on the CPU.

    Raises:
        ValueError: for a batch size below 1 or a model with more labels than one; by the function: for prompts and
            completions of different number, tokens that the model does not have, or a model without a reward head.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is at least 1; got {batch_size}")
    if (labels := unwrapped(model).config.num_labels) != 1:
        raise ValueError(f"a reward model has one label; this one has {labels}. Load it with num_labels=1")

    @cache
    def can_pack() -> bool:
        return not why_rewards_not_shared(model)

    @torch.no_grad()
    def score(prompts: Sequence, completions: Sequence) -> Tensor:
        if len(prompts) != len(completions):
            raise ValueError(f"there are {len(prompts)} prompts but {len(completions)} completions")
        rows = [encode_completion(p, c, tokenizer) for p, c in zip(prompts, completions, strict=True)]
        refuse_unknown_ids(model, (token for row in rows for token in (*row.prompt_ids, *row.completion_ids)))
        if not rows:
            return torch.zeros(0)
        packs = can_pack() and fits_window(model, max(row.length for row in rows))
        order, found = sorted(range(len(rows)), key=lambda i: rows[i].length), torch.zeros(len(rows))
        for start in range(0, len(order), batch_size):
            here = order[start : start + batch_size]
            with evaluating(model):
                found[here] = (_packed if packs else _padded)(model, tokenizer, [rows[i] for i in here]).cpu()
        return found

    score.models = (model,)  # whoever shares a run's models out over GPUs finds this one here
    return score


def _packed(model, tokenizer, rows: list[Encoded]) -> Tensor:
    device = device_of(model)
    packed, stands = pack_texts([(row.prompt_ids, row.completion_ids) for row in rows], device=device)
    return packed_rewards(model, packed, torch.tensor([stand[-1] for stand in stands], device=device))


def _padded(model, tokenizer, rows: list[Encoded]) -> Tensor:
    batch = collate_completions(rows, pad_id(model, tokenizer))
    return sequence_rewards(model, *(batch[name].to(device_of(model)) for name in ("input_ids", "attention_mask")))
