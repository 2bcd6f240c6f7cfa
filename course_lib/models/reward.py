"""Scalar rewards from a sequence-classification model."""

from __future__ import annotations

import torch
from torch import Tensor

from course_lib.data import Encoded, collate_shared_ends
from course_lib.logprobs import (
    LEAK,
    PackedRows,
    device_of,
    evaluating,
    packed_inputs,
    position_ids,
    takes,
    unwrapped,
    visible_segments,
    why_no_own_mask,
)


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
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
    if takes(model, "position_ids"):
        inputs["position_ids"] = position_ids(attention_mask)
    columns = attention_mask.shape[1] - 1 - attention_mask.flip(1).argmax(dim=1)
    scores = _scores_of_tokens(model, inputs)
    return scores[torch.arange(len(columns), device=columns.device), columns].float()


def pair_rewards(model, input_ids: Tensor, segments: Tensor, position_ids: Tensor, ends: Tensor) -> Tensor:
    """Rewards of both completions of B pairs, what they begin with computed once: `pair_rewards(model, **batch)`.

    Args:
        model: as in `sequence_rewards`, one for which `why_rewards_not_shared` has no objection.
        input_ids, segments, position_ids: (B, T), and ends: (2B,), all from `collate_shared_ends`.

    Returns:
        Tensor (2B,), fp32: the chosen completions' rewards, then the rejected ones'.
    """
    mask = visible_segments(segments, unwrapped(model))
    inputs = {"input_ids": input_ids, "attention_mask": mask, "position_ids": position_ids}
    return _scores_of_tokens(model, inputs).flatten()[ends].float()


def packed_rewards(model, rows: PackedRows, ends: Tensor) -> Tensor:
    """Rewards of texts in packed rows, (B,) fp32; `ends` (B,) are the places of their last tokens in the rows.

    For models for which `why_rewards_not_shared` has no objection.
    """
    return _scores_of_tokens(model, packed_inputs(rows, model)).flatten()[ends].float()


@torch.no_grad()
def why_rewards_not_shared(model) -> str:
    """Why the model cannot reward two completions behind one prompt; empty if it can. Tried on a few tokens."""
    if reason := why_no_own_mask(model):
        return reason
    device, size = device_of(model), unwrapped(model).config.get_text_config().vocab_size
    ids = [(7 * i + 3) % size for i in range(16)]
    prompt, chosen, rejected = ids[:6], ids[6:11], ids[11:]
    batch = collate_shared_ends([(Encoded(prompt, chosen), Encoded(prompt, rejected))], 0)

    def alone(row: list[int]) -> Tensor:
        row = torch.tensor([row], device=device)
        return sequence_rewards(model, row, torch.ones_like(row))

    try:
        with evaluating(model):
            together = pair_rewards(model, **{name: values.to(device) for name, values in batch.items()})
            apart = torch.cat([alone(prompt + chosen), alone(prompt + rejected)])
            without_mask = (apart[1] - alone(ids)).abs().max()
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        return f"it refuses a mask of four dimensions ({error})"
    return "" if (together - apart).abs().max() <= LEAK * without_mask else (
        "its attention does not follow a mask of four dimensions"
    )  # fmt: skip


def _scores_of_tokens(model, inputs: dict[str, Tensor]) -> Tensor:
    """The reward head's output at every token, (B, T), from one pass through the model and all that wraps it."""
    head = getattr(unwrapped(model), "score", None)
    if head is None:
        raise ValueError(
            f"{type(unwrapped(model)).__name__} has no `score` head; load it with course_lib.load_reward_model"
        )
    scores: list[Tensor] = []  # of every token; the model's own choice of one goes by pad tokens, which may be EOS
    hook = head.register_forward_hook(lambda layer, taken, given: scores.append(given))
    config = unwrapped(model).config
    pad = config.pad_token_id
    config.pad_token_id = 0 if pad is None else pad  # without one a batch is refused, though the mask tells all
    cache = {"use_cache": False} if takes(model, "use_cache") else {}
    try:
        model(**inputs, **cache)  # through all wrappers, so that those of distributed training see the pass
    finally:
        config.pad_token_id = pad
        hook.remove()
    return scores[0].squeeze(-1)
