"""Both completions of a pair in one row behind what they have in common, so that it is computed once.

A row is [common | chosen | rejected | padding], as `collate_shared` makes it. A completion's tokens see the common
part and themselves, and count their positions from its end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from course_lib.data import Encoded, collate_shared, shared_length
from course_lib.logprobs.completions import completion_logps
from course_lib.logprobs.forward import all_logits, device_of, evaluating, head_of, hidden_states, takes, unwrapped
from course_lib.logprobs.head import token_logps

# A mask leaks if scores differ from those of the completion alone by more than this share of what no mask at all would
# change. Rounding stays far below it, in half precision too.
LEAK = 0.1


def pair_logps(
    model,
    input_ids: Tensor,
    segments: Tensor,
    position_ids: Tensor,
    source: Tensor,
    target: Tensor,
    completion: Tensor,
    *,
    chunk_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the chosen and of the rejected completions of B pairs: `pair_logps(model, **batch)`.

    Args:
        model: a causal language model for which `why_not_shared` has no objection.
        input_ids, segments, position_ids: (B, T), and source, target, completion: (N,), all from `collate_shared`.
        chunk_size: as in `completion_logps`.

    Returns:
        `(chosen, rejected)`, each (B,), in nats, fp32, summed over completion tokens.
    """
    logps = _completion_tokens(model, input_ids, segments, position_ids, source, target, chunk_size)
    return logps.new_zeros(2 * len(input_ids)).index_add(0, completion, logps).chunk(2)


def _completion_tokens(model, input_ids, segments, position_ids, source, target, chunk_size=None) -> Tensor:
    """Log-probability of each of the N completion tokens, (N,)."""
    inputs = {
        "input_ids": input_ids,
        "position_ids": position_ids,
        "attention_mask": visible_segments(segments, unwrapped(model)),
    }
    head = head_of(model)
    if head is None:
        return token_logps(all_logits(model, **inputs).flatten(0, 1).index_select(0, source), target)
    return head.logps(hidden_states(model, head, **inputs).flatten(0, 1).index_select(0, source), target, chunk_size)


def why_pairs_not_shared(
    models: Sequence, pairs: Sequence[tuple[Encoded, Encoded]], *, why_not: Callable[..., str] | None = None
) -> str:
    """Why these pairs cannot be scored behind prompts that are computed once, by all the models; empty if they can.

    `why_not` asks the same of one model; by default `why_not_shared`.
    """
    if not all(chosen.prompt_ids for chosen, _ in pairs):
        return "some prompts are empty"
    longest = max(map(shared_length, pairs))
    for model in models:
        if reason := (why_not or why_not_shared)(model):
            return reason
        if not fits_window(model, longest):
            return "rows are longer than the window that its attention sees"
    return ""


@torch.no_grad()
def why_not_shared(model) -> str:
    """Why the model cannot score two completions behind one prompt; empty if it can.

    Tried on a few tokens: an attention that ignores the mask, or a state that runs through the whole row, shows.
    """
    if reason := why_no_own_mask(model):
        return reason
    inner = unwrapped(model)
    config, device = inner.config.get_text_config(), device_of(inner)
    ids = [(7 * i + 3) % config.vocab_size for i in range(16)]
    prompt, chosen, rejected = ids[:6], ids[6:11], ids[11:]
    batch = collate_shared([(Encoded(prompt, chosen), Encoded(prompt, rejected))], 0)
    batch = {name: values.to(device) for name, values in batch.items() if name != "completion"}
    try:
        with evaluating(model):
            together = _completion_tokens(model, **batch)
            alone, as_one_text = (
                torch.cat([_last_five(model, torch.tensor([row], device=device)) for row in (prompt + chosen, other)])
                for other in (prompt + rejected, ids)
            )
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        return f"it refuses a mask of four dimensions ({error})"
    error, without_mask = ((alone - other).abs().max() for other in (together, as_one_text))
    if error > LEAK * without_mask:
        return "its attention does not follow a mask of four dimensions"
    return ""


def why_no_own_mask(model) -> str:
    """Why a model cannot be given positions and a mask of four dimensions, as far as its looks tell; else empty."""
    if not takes(model, "position_ids"):
        return "it takes no position_ids"
    attention = unwrapped(model).config.get_text_config()._attn_implementation
    return "" if attention in ("sdpa", "eager") else f"its attention ({attention}) takes no mask of its own"


def fits_window(model, length: int) -> bool:
    """Whether rows of that many tokens stay inside the model's local attention, so that no local mask would apply."""
    config = unwrapped(model).config.get_text_config()
    windows = (getattr(config, name, None) for name in ("sliding_window", "window_size", "attention_chunk_size"))
    return all(length <= window for window in windows if window)


def _last_five(model, ids: Tensor) -> Tensor:
    mask = torch.arange(ids.shape[1], device=ids.device)[None] >= ids.shape[1] - 5
    return completion_logps(model, ids, torch.ones_like(ids), mask)[0][mask]


def visible_segments(segments: Tensor, inner) -> Tensor:
    """Attention mask (B, 1, T, T) of rows of segments: boolean, or for eager attention added to the scores."""
    width = segments.shape[1]
    causal = torch.ones(width, width, dtype=torch.bool, device=segments.device).tril()
    here, there = segments.unsqueeze(2), segments.unsqueeze(1)
    return as_attention_mask(causal & ((there == 0) | (there == here)), inner)  # padding sees padding: no row is empty


def as_attention_mask(visible: Tensor, inner) -> Tensor:
    """What is visible, (B, T, T), as (B, 1, T, T) for the model's attention: boolean, or added to the scores."""
    if inner.config.get_text_config()._attn_implementation == "sdpa":
        return visible.unsqueeze(1)
    hidden = torch.zeros_like(visible, dtype=inner.dtype).masked_fill(~visible, torch.finfo(inner.dtype).min)
    return hidden.unsqueeze(1)
