"""Training without dropout, where two passes through one model must agree."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def without_dropout(*models: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode, which switches off every kind of dropout.

    A module that checkpoints its activations does so in training mode only, so it stays in that mode, and its own
    shares of dropout are set to 0 meanwhile.
    """
    shares = []
    for module in (module for model in models for module in model.modules()):
        module.training = getattr(module, "gradient_checkpointing", False)
        if module.training:
            shares += [(module, n, v) for n, v in vars(module).items() if "drop" in n and isinstance(v, float)]
    for module, name, _ in shares:
        setattr(module, name, 0.0)
    try:
        yield
    finally:
        for module, name, share in shares:
            setattr(module, name, share)
