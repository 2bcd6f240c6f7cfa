"""Both completions of a pair in one row behind their common prompt, so that the prompt is computed once.

A row is [prompt | chosen | rejected | padding]; `segments` tells which is which (0, 1, 2, -1). A completion's
tokens see the prompt and themselves, and count their positions from the prompt's end.
"""

from __future__ import annotations

import torch
from torch import Tensor

from course_lib.logprobs.completions import completion_logps
from course_lib.logprobs.forward import (
    all_logits,
    head_of,
    hidden_states,
    takes,
    unwrapped,
)
from course_lib.logprobs.head import token_logps

PROMPT, CHOSEN, REJECTED, PADDING = 0, 1, 2, -1
SEEN_THROUGH = 0.1  # of what a missing mask would change: more than rounding makes, less than any leak through the mask


def pair_logps(
    model, input_ids: Tensor, segments: Tensor, position_ids: Tensor, *, chunk_size: int | None = None
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the chosen and of the rejected completions, both given their common prompt.

    Args:
        model: a causal language model for which `why_not_shared` has no objection.
        input_ids: (B, T) from `collate_shared`, rows of prompt, chosen, rejected, padding.
        segments: (B, T), 0 in the prompt, 1 in the chosen, 2 in the rejected completion, -1 in padding.
        position_ids: (B, T), each completion counted from the prompt's end.
        chunk_size: as in `completion_logps`.

    Returns:
        `(chosen, rejected)`, each (B,), in nats, fp32, summed over completion tokens.
    """
    logps, row, segment = _completion_tokens(model, input_ids, segments, position_ids, chunk_size)
    size = len(input_ids)
    side = (segment == REJECTED).long()
    return logps.new_zeros(2 * size).index_add(0, side * size + row, logps).chunk(2)


def _completion_tokens(
    model, input_ids: Tensor, segments: Tensor, position_ids: Tensor, chunk_size: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probability of each of the batch's N completion tokens, its row, and its segment, each (N,)."""
    inputs = {
        "input_ids": input_ids,
        "position_ids": position_ids,
        "attention_mask": _visible(segments, unwrapped(model)),
    }
    row, column = (segments > PROMPT).nonzero(as_tuple=True)
    first = segments[row, column] != segments[row, column - 1]
    last_of_prompt = (segments == PROMPT).sum(dim=1) - 1
    source = row * input_ids.shape[1] + torch.where(first, last_of_prompt[row], column - 1)
    targets = input_ids[row, column]
    head = head_of(model)
    if head is None:
        logps = token_logps(all_logits(model, **inputs).flatten(0, 1).index_select(0, source), targets)
    else:
        hidden = hidden_states(model, head, **inputs).flatten(0, 1).index_select(0, source)
        logps = head.logps(hidden, targets, chunk_size)
    return logps, row, segments[row, column]


@torch.no_grad()
def why_not_shared(model) -> str:
    """Why the model cannot score two completions behind one prompt; empty if it can.

    Tried on a few tokens: an attention that ignores the mask, or a state that runs through the whole row, shows.
    """
    inner = unwrapped(model)
    if not takes(model, "position_ids"):
        return "it takes no position_ids"
    config = inner.config.get_text_config()
    if config._attn_implementation not in ("sdpa", "eager"):
        return f"its attention ({config._attn_implementation}) takes no mask of its own"
    ids = (torch.arange(16, device=next(inner.parameters()).device)[None] * 7 + 3) % config.vocab_size
    segments = torch.tensor([[PROMPT] * 6 + [CHOSEN] * 5 + [REJECTED] * 5], device=ids.device)
    positions = torch.tensor([[*range(11), *range(6, 11)]], device=ids.device)
    was_training = model.training
    model.eval()
    try:
        together, _, _ = _completion_tokens(model, ids, segments, positions)
        alone = torch.cat([_last_five(model, part) for part in (ids[:, :11], torch.cat([ids[:, :6], ids[:, 11:]], 1))])
        as_one_text = torch.cat([_last_five(model, part) for part in (ids[:, :11], ids)])
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        return f"it refuses a mask of four dimensions ({error})"
    finally:
        model.train(was_training)
    error, without_mask = ((alone - other).abs().max() for other in (together, as_one_text))
    if error > SEEN_THROUGH * without_mask:
        return "its attention does not follow a mask of four dimensions"
    return ""


def fits_window(model, length: int) -> bool:
    """Whether rows of that many tokens stay inside the model's local attention, so that no local mask would apply."""
    config = unwrapped(model).config.get_text_config()
    windows = (getattr(config, name, None) for name in ("sliding_window", "window_size", "attention_chunk_size"))
    return all(length <= window for window in windows if window)


def _last_five(model, ids: Tensor) -> Tensor:
    mask = torch.arange(ids.shape[1], device=ids.device)[None] >= ids.shape[1] - 5
    return completion_logps(model, ids, torch.ones_like(ids), mask)[0][mask]


def _visible(segments: Tensor, inner) -> Tensor:
    """Attention mask (B, 1, T, T): boolean, or for eager attention added to the scores."""
    width = segments.shape[1]
    causal = torch.ones(width, width, dtype=torch.bool, device=segments.device).tril()
    here, there = segments.unsqueeze(2), segments.unsqueeze(1)
    visible = causal & ((there == PROMPT) | (there == here))  # padding sees padding, so no row is empty
    if inner.config.get_text_config()._attn_implementation == "sdpa":
        return visible.unsqueeze(1)
    hidden = torch.zeros_like(visible, dtype=inner.dtype).masked_fill(~visible, torch.finfo(inner.dtype).min)
    return hidden.unsqueeze(1)
