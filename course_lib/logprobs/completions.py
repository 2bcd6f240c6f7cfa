"""Log-probabilities of one completion a row."""

from __future__ import annotations

from torch import Tensor

from course_lib.logprobs.forward import all_logits, head_of, hidden_states, with_positions
from course_lib.logprobs.head import token_logps
from course_lib.logprobs.padding import padding_matters, real_first


def completion_logps(
    model,
    input_ids: Tensor,
    attention_mask: Tensor,
    completion_mask: Tensor,
    *,
    temperature: float = 1.0,
    chunk_size: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each completion token, given all tokens before it.

        logps[b, t] = ln p(input_ids[b, t] | input_ids[b, <t])     where mask[b, t], else 0,  p = softmax(logits / T)

    The output layer runs only where a token is scored, a chunk of tokens at a time, forward and backward:
    no (B, T, V) tensor exists. Where a model does not allow that (a sharded or replaced output layer), its own
    logits are used, and the reason is logged once. Where padding on the left would change scores (a state that runs
    through the row), each row is moved to the left edge first.

    Args:
        model: a causal language model of transformers, or anything that wraps one.
        input_ids: (B, T) token ids, padded on either side.
        attention_mask: (B, T), 1 at real tokens and 0 at padding.
        completion_mask: (B, T), true where a token belongs to the completion (EOS included).
        temperature: T, above 0: that of the distribution which the completions were drawn from. With another than 1
            the logits of all scored tokens are held at once.
        chunk_size: tokens scored at a time; by default as many as 64 MiB of logits hold.

    Returns:
        `logps` (B, T) in nats, fp32, and the boolean `mask` (B, T) of the tokens that were scored: those of
        the completion, less padding and a row's first real token, which nothing predicts.

    Raises:
        ValueError: if the three tensors differ in shape, a row has no token to score, chunk_size < 1, or
            temperature is not above 0.
    """
    mask = _scored(input_ids, attention_mask, completion_mask)
    if not temperature > 0:
        raise ValueError(f"temperature is above 0: at 0 nothing is drawn; got {temperature}")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size is a number of tokens, at least 1; got {chunk_size}")
    if not padding_matters(model, input_ids[attention_mask.bool()][:6]):
        return _logps(model, input_ids, attention_mask, mask, chunk_size, temperature), mask
    order = real_first(attention_mask)
    moved = (tensor.gather(1, order) for tensor in (input_ids, attention_mask, mask))
    return _logps(model, *moved, chunk_size, temperature).gather(1, order.argsort(dim=1)), mask


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


def _logps(
    model, input_ids: Tensor, attention_mask: Tensor, mask: Tensor, chunk_size: int | None, temperature: float = 1.0
) -> Tensor:
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask} | with_positions(model, attention_mask)
    head = head_of(model)
    if head is None:
        return _from_logits(model, inputs, mask, temperature)
    where = mask.flatten().nonzero().squeeze(1)  # never a row's first column, so the token before is in its row
    hidden = hidden_states(model, head, **inputs).flatten(0, 1).index_select(0, where - 1)
    targets = input_ids.flatten()[where]
    if temperature == 1:
        scored = head.logps(hidden, targets, chunk_size)
    else:
        scored = token_logps(head.logits(hidden) / temperature, targets)
    return scored.new_zeros(mask.numel()).index_copy(0, where, scored).view(mask.shape)


def _from_logits(model, inputs: dict[str, Tensor], mask: Tensor, temperature: float) -> Tensor:
    """The same log-probabilities by way of the logits of all columns that hold a scored token."""
    columns = mask.any(dim=0).nonzero().squeeze(1)
    logits = all_logits(model, columns - 1, **inputs)
    logps = token_logps(logits.float() / temperature, inputs["input_ids"][:, columns])
    return logps.new_zeros(mask.shape).index_copy(1, columns, logps).masked_fill(~mask, 0.0)


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
