"""Log-probabilities of one completion a row."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from course_lib.logprobs.forward import Head, all_logits, head_of, hidden_states, with_positions
from course_lib.logprobs.head import token_logps
from course_lib.logprobs.padding import padding_matters, real_first


@dataclass(frozen=True)
class CompletionStates:
    """The final hidden states that predict the N completion tokens of a batch, row by row.

    Attributes:
        hidden: (N, H), what the output layer is given.
        targets: (N,) ids of the tokens.
        places: (N,) of the tokens in the flattened (B, T).
        shape: (B, T).
    """

    hidden: Tensor
    targets: Tensor
    places: Tensor
    shape: tuple[int, int]
    head: Head

    def logps(self, *, temperature: float = 1.0, chunk_size: int | None = None) -> Tensor:
        """ln p of each token, (N,) nats; see `completion_logps`."""
        if temperature == 1:
            return self.head.logps(self.hidden, self.targets, chunk_size)
        return token_logps(self.head.logits(self.hidden) / temperature, self.targets)

    def entropies(self, *, temperature: float = 1.0) -> Tensor:
        """Entropy of the distribution that each token was drawn from, (N,) nats; holds all N logits at once."""
        logps = (self.head.logits(self.hidden) / temperature).log_softmax(dim=-1)
        return -(logps.exp() * logps).sum(dim=-1)

    def spread(self, values: Tensor) -> Tensor:
        """(N,) values at their tokens' places in (B, T), and 0 elsewhere."""
        return values.new_zeros(self.shape).flatten().index_copy(0, self.places, values).view(self.shape)


def completion_states(
    model, input_ids: Tensor, attention_mask: Tensor, completion_mask: Tensor
) -> CompletionStates | None:
    """What predicts each completion token, from one pass through the model; arguments as in `completion_logps`.

    Returns:
        None where the model does not allow its output layer to be applied apart (the reason is logged once).

    Raises:
        ValueError: if the three tensors differ in shape, or a row has no token to score.
    """
    mask = scored_tokens(input_ids, attention_mask, completion_mask)
    if (head := head_of(model)) is None:
        return None
    shape = tuple(mask.shape)
    columns = torch.arange(shape[1], device=mask.device).expand(shape)
    if padding_matters(model, input_ids[attention_mask.bool()][:6]):
        columns = real_first(attention_mask)
        input_ids, attention_mask, mask = (t.gather(1, columns) for t in (input_ids, attention_mask, mask))
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask} | with_positions(model, attention_mask)
    where = mask.flatten().nonzero().squeeze(1)  # never a row's first column, so the token before is in its row
    hidden = hidden_states(model, head, **inputs).flatten(0, 1).index_select(0, where - 1)
    places = where // shape[1] * shape[1] + columns.flatten()[where]
    return CompletionStates(hidden, input_ids.flatten()[where], places, shape, head)


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
    mask = scored_tokens(input_ids, attention_mask, completion_mask)
    if not temperature > 0:
        raise ValueError(f"temperature is above 0: at 0 nothing is drawn; got {temperature}")
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size is a number of tokens, at least 1; got {chunk_size}")
    states = completion_states(model, input_ids, attention_mask, completion_mask)
    if states is None:
        return _from_logits(model, input_ids, attention_mask, mask, temperature), mask
    return states.spread(states.logps(temperature=temperature, chunk_size=chunk_size)), mask


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


def _from_logits(model, input_ids: Tensor, attention_mask: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """The same log-probabilities by way of the logits of all columns that hold a scored token."""
    order = None
    if padding_matters(model, input_ids[attention_mask.bool()][:6]):
        order = real_first(attention_mask)
        input_ids, attention_mask, mask = (t.gather(1, order) for t in (input_ids, attention_mask, mask))
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask} | with_positions(model, attention_mask)
    columns = mask.any(dim=0).nonzero().squeeze(1)
    logits = all_logits(model, columns - 1, **inputs)
    logps = token_logps(logits.float() / temperature, input_ids[:, columns])
    logps = logps.new_zeros(mask.shape).index_copy(1, columns, logps).masked_fill(~mask, 0.0)
    return logps if order is None else logps.gather(1, order.argsort(dim=1))


def scored_tokens(input_ids: Tensor, attention_mask: Tensor, completion_mask: Tensor) -> Tensor:
    """(B, T) booleans: the completions' tokens, less padding and a row's first real token, which nothing predicts."""
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
