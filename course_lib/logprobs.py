"""Log-probabilities of completions: the only bridge between a model and a loss."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def completion_logps(
    model,
    input_ids: Tensor,
    attention_mask: Tensor,
    completion_mask: Tensor,
    *,
    chunk_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each completion token, given all tokens before it.

        logps[b, t] = ln p(input_ids[b, t] | input_ids[b, <t])     where mask[b, t], else 0

    The output layer runs only over the columns in which some row has a token to score.

    Args:
        model: a causal language model of transformers, or anything that wraps one.
        input_ids: (B, T) token ids, padded on either side.
        attention_mask: (B, T), 1 at real tokens and 0 at padding.
        completion_mask: (B, T), true where a token belongs to the completion (EOS included).
        chunk_size: score that many columns at a time and recompute their log-softmax in the backward pass;
            less memory, a little slower. By default all at once.

    Returns:
        `logps` (B, T) in nats, fp32, and the boolean `mask` (B, T) of the tokens that were scored: those of
        the completion, less padding and a row's first real token, which nothing predicts.

    Raises:
        ValueError: if the three tensors differ in shape, a row has no token to score, or chunk_size < 1.
    """
    mask = _scored(input_ids, attention_mask, completion_mask)
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size is a number of columns, at least 1; got {chunk_size}")
    columns = mask.any(dim=0).nonzero().squeeze(1)  # positions of tokens to score, never 0
    logits = _logits_at(model, input_ids, attention_mask, columns - 1)
    targets = input_ids[:, columns]
    if chunk_size is None:
        gathered = token_logps(logits, targets)
    else:
        parts = zip(logits.split(chunk_size, dim=1), targets.split(chunk_size, dim=1), strict=True)
        gathered = torch.cat([checkpoint(token_logps, *part, use_reentrant=False) for part in parts], dim=1)
    logps = gathered.new_zeros(input_ids.shape).index_copy(1, columns, gathered)
    return logps.masked_fill(~mask, 0.0), mask


def sequence_logps(
    model,
    input_ids: Tensor,
    attention_mask: Tensor,
    completion_mask: Tensor,
    *,
    average: bool = False,
    chunk_size: int | None = None,
) -> Tensor:
    """Log-probability of each completion: the sum over its tokens, EOS included, prompt and padding never.

        logp(y|x) = sum_t ln p(y_t | x, y_<t)

    Args and errors as in `completion_logps`; `average=True` divides by the number of completion tokens
    (what SimPO uses; the papers of DPO, IPO and KTO use the sum).

    Returns:
        Tensor (B,) in nats, fp32.
    """
    logps, mask = completion_logps(model, input_ids, attention_mask, completion_mask, chunk_size=chunk_size)
    total = logps.sum(dim=1)
    return total / mask.sum(dim=1) if average else total


def token_logps(logits: Tensor, targets: Tensor) -> Tensor:
    """`log_softmax(logits)[targets]` in fp32: logits (..., V), targets (...), result (...)."""
    logits = logits.float()
    return logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(dim=-1)


def position_ids(attention_mask: Tensor) -> Tensor:
    """Positions that count real tokens only, so that left padding shifts nothing: (B, T)."""
    return (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)


def forward_arguments(model) -> set[str]:
    """Names that the innermost transformers model's `forward` takes."""
    while inner := getattr(model, "module", None) or getattr(model, "_orig_mod", None):
        model = inner  # DistributedDataParallel, DeepSpeed; torch.compile
    if hasattr(model, "get_base_model"):  # PEFT
        model = model.get_base_model()
    return set(inspect.signature(model.forward).parameters)


def _scored(input_ids: Tensor, attention_mask: Tensor, completion_mask: Tensor) -> Tensor:
    shapes = {tuple(t.shape) for t in (input_ids, attention_mask, completion_mask)}
    if len(shapes) != 1 or input_ids.dim() != 2:
        raise ValueError(
            "input_ids, attention_mask and completion_mask must share one shape (B, T); got "
            f"{tuple(input_ids.shape)}, {tuple(attention_mask.shape)}, {tuple(completion_mask.shape)}"
        )
    real = attention_mask.bool()
    predicted = real & (real.long().cumsum(dim=1) > 1)
    mask = completion_mask.bool() & predicted
    empty = (~mask.any(dim=1)).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"rows {empty} of the batch have no completion token to score; give each a completion")
    return mask


def _logits_at(model, input_ids: Tensor, attention_mask: Tensor, columns: Tensor) -> Tensor:
    """Logits (B, len(columns), V) at the given positions, computed nowhere else if the model allows it."""
    takes = forward_arguments(model)
    extra = {}
    if "position_ids" in takes and not attention_mask.all():
        extra["position_ids"] = position_ids(attention_mask)
    if "use_cache" in takes:
        extra["use_cache"] = False
    if "logits_to_keep" in takes:
        return model(input_ids=input_ids, attention_mask=attention_mask, logits_to_keep=columns, **extra).logits
    return model(input_ids=input_ids, attention_mask=attention_mask, **extra).logits[:, columns]
