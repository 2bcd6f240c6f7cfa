"""LoRA adapters folded into their weights while a model samples, and taken out again to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def merged_adapters(model) -> Iterator[None]:
    """Fold a PEFT model's LoRA adapters into the weights, and put the very same weights back afterwards.

    A merged model does one matrix product a layer where an adapter asks for three. Folding back by subtraction would
    leave rounding behind; so the weights are kept, which costs the memory of those that have adapters. Models without
    adapters are left as they are, and so are those whose weights are in 4 bits or in half precision: folded in, a small
    update would be rounded away, and another policy would speak than the one that is trained.
    """
    layers = [m for m in model.modules() if hasattr(m, "get_base_layer") and hasattr(m, "lora_A")]
    weights = [layer.get_base_layer().weight for layer in layers]
    wide = all(w.dtype in (torch.float32, torch.float64) for w in weights)
    if not layers or not wide or any(layer.merged for layer in layers):
        yield
        return
    kept = [w.detach().clone() for w in weights]
    active = [(layer, layer.merge(safe_merge=False)) for layer in layers if not layer.disable_adapters]
    try:
        yield
    finally:
        for layer, _ in active:
            layer.unmerge()
        with torch.no_grad():
            for weight, before in zip(weights, kept, strict=True):
                weight.copy_(before)
