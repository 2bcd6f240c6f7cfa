"""Reward functions: `(prompts, completions)` to a tensor (B,). Pocket World's true one is `world.gold_reward`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from course_lib.data import collate_completions, encode_completion
from course_lib.logprobs import device_of
from course_lib.models import sequence_rewards


def learned_reward(model, tokenizer, *, batch_size: int = 256) -> Callable[[Sequence, Sequence], Tensor]:
    """A trained reward model as a reward function.

    Args:
        model: one of transformers for sequence classification with one label.
        tokenizer: its tokenizer.
        batch_size: responses scored together.

    Returns:
        A function of B prompts and B completions (both strings, or both chat messages) that gives their
        rewards, shape (B,), on the CPU.
    """

    @torch.inference_mode()
    def score(prompts: Sequence, completions: Sequence) -> Tensor:
        device = device_of(model)
        rows = [encode_completion(p, c, tokenizer) for p, c in zip(prompts, completions, strict=True)]
        order = sorted(range(len(rows)), key=lambda i: rows[i].length)
        rewards = torch.zeros(len(rows))
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            batch = collate_completions([rows[i] for i in indices], tokenizer.pad_token_id)
            inputs = batch["input_ids"].to(device), batch["attention_mask"].to(device)
            rewards[indices] = sequence_rewards(model, *inputs).cpu()
        return rewards

    return score
