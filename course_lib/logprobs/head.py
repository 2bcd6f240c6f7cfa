"""From hidden states to log-probabilities without ever holding the logits of a whole batch."""

from __future__ import annotations

import torch
from torch import Tensor

LOGITS_BYTES = 64 * 2**20  # fp32 logits held at once where no chunk size is given


def token_logps(logits: Tensor, targets: Tensor) -> Tensor:
    """`log_softmax(logits)[targets]` in fp32: logits (..., V), targets (...), result (...)."""
    logits = logits.float()
    return logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(dim=-1)


def linear_logps(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    chunk_size: int | None = None,
) -> Tensor:
    """`token_logps(hidden @ weight.T + bias, targets)`, chunk by chunk over the tokens.

    The backward pass computes each chunk's logits anew and turns them into the gradient in place, so no
    (N, V) tensor exists in either direction. A batch that fits into one chunk keeps its logits instead.

    Args:
        hidden: (N, H) final hidden states at the positions that predict the targets.
        weight: (V, H) of the output layer.
        targets: (N,) token ids.
        bias: (V,), or None.
        softcap: logits become softcap * tanh(logits / softcap), as in Gemma 2; None leaves them.
        chunk_size: tokens scored at a time; by default as many as 64 MiB of fp32 logits hold.

    Returns:
        Tensor (N,) in nats, fp32.

    Source of the idea: Wijmans et al. 2024, Cut your losses in large-vocabulary language models.
    """
    chunk = chunk_size or max(1, LOGITS_BYTES // (4 * len(weight)))
    device = hidden.device.type
    autocast = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocast else weight.dtype
    bias = bias if bias is None else bias.to(dtype)
    with torch.autocast(device, enabled=False):
        return _LinearLogps.apply(hidden.to(dtype), weight.to(dtype), bias, targets, chunk, softcap)


class _LinearLogps(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, bias, targets, chunk: int, softcap: float | None):
        parts, normalisers, logits = [], [], None
        for rows, wanted in zip(hidden.split(chunk), targets.split(chunk), strict=True):
            logits = plain_logits(rows, weight, bias, softcap)
            normalisers.append(logits.logsumexp(dim=-1))
            parts.append(logits.gather(-1, wanted.unsqueeze(-1)).squeeze(-1) - normalisers[-1])
        # one chunk holds all logits at once in any case, so keeping them costs no higher peak and saves a product
        kept = logits if len(parts) == 1 else None
        ctx.save_for_backward(hidden, weight, bias, targets, torch.cat(normalisers), kept)
        ctx.chunk, ctx.softcap = chunk, softcap
        return torch.cat(parts)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        hidden, weight, bias, targets, normalisers, kept = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        # fp32, because half precision would round each chunk's share away as the sum grows
        wide = torch.promote_types(weight.dtype, torch.float32)
        grad_hidden = torch.empty_like(hidden) if needs_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=wide) if needs_weight else None
        grad_bias = torch.zeros_like(bias, dtype=wide) if needs_bias else None
        for start in range(0, len(hidden), ctx.chunk):
            here = slice(start, start + ctx.chunk)
            logits = plain_logits(hidden[here], weight, bias, ctx.softcap) if kept is None else kept
            # d tanh(x) = 1 - tanh(x)^2, and logits / softcap is that tanh already
            slope = 1 - (logits / ctx.softcap) ** 2 if ctx.softcap else None
            # d ln p(target) / d logits = onehot(target) - softmax(logits); both terms are written into one buffer,
            # because a second (chunk, V) tensor would double the peak that chunks are there to lower
            grad_logits = (logits - normalisers[here, None]).exp_().mul_(-grad[here, None])
            grad_logits.scatter_add_(1, targets[here, None], grad[here, None])
            if slope is not None:
                grad_logits *= slope
            if needs_bias:
                grad_bias += grad_logits.sum(dim=0)
            grad_logits = grad_logits.to(weight.dtype)
            # rows of `hidden` belong to one chunk alone and are written in place; the weight gets a share from each
            if needs_hidden:
                torch.mm(grad_logits, weight, out=grad_hidden[here])
            if needs_weight:
                _add_product(grad_weight, grad_logits.T, hidden[here])
        return (
            grad_hidden,
            grad_weight.to(weight.dtype) if needs_weight else None,
            grad_bias.to(weight.dtype) if needs_bias else None,
            None,
            None,
            None,
        )


def plain_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, softcap: float | None) -> Tensor:
    """(n, V) in fp32."""
    logits = torch.nn.functional.linear(hidden, weight, bias).float()
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
