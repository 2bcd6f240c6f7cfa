"""Running a model's body once, whatever wraps it, and stopping before its output layer."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from course_lib.logprobs.head import linear_logps, token_logps

logger = logging.getLogger(__name__)
_scores_plainly: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()  # found out once a model
_told: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


@dataclass
class Head:
    """A model's output layer: `weight` (V, H), `bias` (V,) or None, and Gemma's cap on logits."""

    layer: nn.Linear
    softcap: float | None

    def logps(self, hidden: Tensor, targets: Tensor, chunk_size: int | None = None) -> Tensor:
        """As `linear_logps`."""
        return linear_logps(
            hidden, self.layer.weight, targets, bias=self.layer.bias, softcap=self.softcap, chunk_size=chunk_size
        )


def position_ids(attention_mask: Tensor) -> Tensor:
    """Positions that count real tokens only, so that left padding shifts nothing: (B, T)."""
    return (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)


def unwrapped(model) -> nn.Module:
    """The transformers model inside DistributedDataParallel, DeepSpeed, torch.compile and PEFT."""
    while inner := getattr(model, "module", None) or getattr(model, "_orig_mod", None):
        model = inner
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def forward_arguments(model) -> set[str]:
    """Names that the innermost transformers model's `forward` takes."""
    return set(inspect.signature(unwrapped(model).forward).parameters)


def head_of(model) -> Head | None:
    """The output layer, if it can be applied apart from the model; else None, and the reason is logged once."""
    inner = unwrapped(model)
    reason = _why_no_head(model, inner)
    if reason and _told.get(inner) != reason:
        _told[inner] = reason
        logger.warning("computing all logits of %s: %s", type(inner).__name__, reason)
    return None if reason else _head(inner)


def hidden_states(model, head: Head, **inputs) -> Tensor:
    """The input of the output layer, (B, T, H), from one pass through the model and all that wraps it."""
    with _caught(head.layer) as caught:
        model(**inputs, **_without_cache(model))
    return caught[0]


def all_logits(model, columns: Tensor | None = None, **inputs) -> Tensor:
    """Logits (B, T, V), or (B, len(columns), V) at some positions, computed nowhere else if the model allows it."""
    extra = _without_cache(model)
    if columns is None:
        return model(**inputs, **extra).logits
    if "logits_to_keep" in forward_arguments(model):
        return model(**inputs, logits_to_keep=columns, **extra).logits
    return model(**inputs, **extra).logits[:, columns]


def with_positions(model, attention_mask: Tensor) -> dict[str, Tensor]:
    """`position_ids` as a keyword, where there is padding and the model takes them."""
    if "position_ids" not in forward_arguments(model) or attention_mask.all():
        return {}
    return {"position_ids": position_ids(attention_mask)}


def _without_cache(model) -> dict[str, bool]:
    return {"use_cache": False} if "use_cache" in forward_arguments(model) else {}


def _head(inner: nn.Module) -> Head:
    return Head(inner.get_output_embeddings(), getattr(inner.config, "final_logit_softcapping", None))


@contextmanager
def _caught(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Let the layer pass its input through, and keep it: the model then computes no logits.

    The pass goes through the model's own `forward`, so the wrappers of distributed training see it.
    """
    caught: list[Tensor] = []

    def keep(hidden: Tensor) -> Tensor:
        caught.append(hidden)
        return hidden

    layer.forward = keep
    try:
        yield caught
    finally:
        del layer.forward


def _why_no_head(model, inner: nn.Module) -> str:
    """Why hidden states cannot be scored apart from the model; empty if they can."""
    layer = inner.get_output_embeddings() if hasattr(inner, "get_output_embeddings") else None
    if hasattr(model, "_orig_mod"):
        return "a compiled model cannot be stopped before its output layer"
    if type(layer) is not nn.Linear:
        return f"its output layer is a {type(layer).__name__}, not a plain nn.Linear"
    if "forward" in vars(layer):
        return "something else has replaced the forward of its output layer"
    if type(layer.weight) is not nn.Parameter or hasattr(layer.weight, "ds_id"):
        return "its output layer is sharded between devices"
    if inner not in _scores_plainly:
        _scores_plainly[inner] = _scores_alike(inner)
    return "" if _scores_plainly[inner] else "it changes its logits after the output layer"


@torch.no_grad()
def _scores_alike(inner: nn.Module) -> bool:
    """Whether hidden states times the output layer give the model's own log-probabilities, tried on a few tokens."""
    device = next(inner.parameters()).device
    ids = torch.arange(8, device=device).view(2, 4) % inner.config.get_text_config().vocab_size
    head, was_training = _head(inner), inner.training
    inner.eval()
    try:
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        own = token_logps(all_logits(inner, **inputs)[:, :-1], ids[:, 1:])
        apart = head.logps(hidden_states(inner, head, **inputs)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    finally:
        inner.train(was_training)
    return same_up_to_rounding(own.flatten(), apart, inner.dtype)


def same_up_to_rounding(a: Tensor, b: Tensor, dtype: torch.dtype) -> bool:
    """Whether two log-probabilities that went through a model of that precision are the same number."""
    tolerance = 1e-5 if dtype in (torch.float32, torch.float64) else 2e-2
    return a.shape == b.shape and torch.allclose(a, b, rtol=tolerance, atol=tolerance)
