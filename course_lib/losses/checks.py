"""What every loss checks and how it reduces."""

from __future__ import annotations

from torch import Tensor

REDUCTIONS = ("mean", "sum", "none")


def check_shapes(**tensors: Tensor) -> None:
    """Raise `ValueError` unless all tensors have one shape and hold at least one value."""
    shapes = {name: tuple(t.shape) for name, t in tensors.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"these tensors must have one shape, one value a sequence: {listed}")
    if 0 in next(iter(shapes.values())):
        raise ValueError("the batch is empty; pass at least one sequence")


def check_beta(beta: float) -> None:
    if not 0 < beta < float("inf"):
        raise ValueError(f"beta is the strength of the pull towards the reference, above 0 and finite; got {beta}")


def check_reduction(reduction: str) -> None:
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction is one of {', '.join(REDUCTIONS)}; got {reduction!r}")


def reduce(losses: Tensor, reduction: str) -> Tensor:
    """`losses` (B,) as their mean, their sum, or as they are."""
    check_reduction(reduction)
    return losses if reduction == "none" else getattr(losses, reduction)()
