"""Scalar rewards from a sequence-classification model."""

from __future__ import annotations

import torch
from torch import Tensor

from course_lib.logprobs import position_ids, takes, unwrapped


def sequence_rewards(model, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """The reward head's output at each row's last real token.

        r(x, y) = w . hidden(x, y)[last]

    Args:
        model: a decoder of transformers for sequence classification with one label, whose head is `score`
            (Llama, Qwen, Mistral, Gemma, GPT-2 and others), with adapters or without, wrapped or not.
        input_ids: (B, T), padded on either side.
        attention_mask: (B, T).

    Returns:
        Tensor (B,), fp32. The last token is found from the mask, so pad may equal EOS.

    Raises:
        ValueError: if the model has no such head.
    """
    head = getattr(unwrapped(model), "score", None)
    if head is None:
        raise ValueError(
            f"{type(unwrapped(model)).__name__} has no `score` head; load it with course_lib.load_reward_model"
        )
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
    if takes(model, "position_ids"):
        inputs["position_ids"] = position_ids(attention_mask)
    scores: list[Tensor] = []  # of every token; the model's own choice of one goes by pad tokens, which may be EOS
    hook = head.register_forward_hook(lambda layer, taken, given: scores.append(given))
    config = unwrapped(model).config
    pad = config.pad_token_id
    config.pad_token_id = 0 if pad is None else pad  # without one a batch is refused, though the mask tells all
    try:
        model(**inputs)  # through all wrappers, so that those of distributed training see the pass
    finally:
        config.pad_token_id = pad
        hook.remove()
    columns = attention_mask.shape[1] - 1 - attention_mask.flip(1).argmax(dim=1)
    return scores[0][torch.arange(len(columns), device=columns.device), columns].squeeze(-1).float()
