"""What every loss checks, the precision it computes in, and how it reduces."""

from __future__ import annotations

import torch
from torch import Tensor

REDUCTIONS = ("mean", "sum", "none")


def check_shapes(**tensors: Tensor) -> None:
    """Raise `ValueError` unless all tensors have one shape and hold at least one value."""
    shapes = {name: tuple(t.shape) for name, t in tensors.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"these tensors must have one shape: {listed}")
    if 0 in next(iter(shapes.values())):
        raise ValueError("the batch is empty; pass at least one sequence")


def check_beta(beta: float) -> None:
    if not 0 < beta < float("inf"):
        raise ValueError(f"beta is the strength of the pull towards the reference, above 0 and finite; got {beta}")


def check_at_least_zero(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} must be at least 0 and finite; got {value}")


def check_smoothing(label_smoothing: float) -> None:
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing is a share of wrong labels, from 0 to below 0.5; got {label_smoothing}")


def check_clip_range(clip_range: float) -> None:
    if not 0 < clip_range < 1:
        raise ValueError(f"clip_range is how far a ratio may move from 1, above 0 and below 1; got {clip_range}")


def check_mask(mask: Tensor) -> Tensor:
    """`mask` as booleans; raise `ValueError` where a sequence has no completion token."""
    mask = mask.bool()
    empty = (~mask.any(dim=-1)).nonzero().flatten().tolist()
    if empty:
        raise ValueError(f"sequences {empty} have no completion token; give each a completion")
    return mask


def check_lengths(**lengths: Tensor) -> None:
    for name, values in lengths.items():
        if (values < 1).any():
            rows = (values < 1).nonzero().flatten().tolist()
            raise ValueError(f"{name} counts completion tokens, at least 1 each; rows {rows} are empty")


def exact(*tensors: Tensor) -> list[Tensor]:
    """The tensors in fp32 (fp64 stays): differences of large log-probabilities round badly in half precision."""
    return [t.to(torch.promote_types(t.dtype, torch.float32)) for t in tensors]


def check_reduction(reduction: str) -> None:
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction is one of {', '.join(REDUCTIONS)}; got {reduction!r}")


def reduce(losses: Tensor, reduction: str) -> Tensor:
    """`losses` (B,) as their mean, their sum, or as they are."""
    check_reduction(reduction)
    return losses if reduction == "none" else getattr(losses, reduction)()


def reduce_tokens(losses: Tensor, mask: Tensor, reduction: str) -> Tensor:
    """`losses` (B, T) as their mean or sum over the tokens of the mask, or as they are with zeros outside it."""
    check_reduction(reduction)
    losses = losses.masked_fill(~mask, 0.0)
    if reduction == "none":
        return losses
    return losses.sum() / mask.sum() if reduction == "mean" else losses.sum()
