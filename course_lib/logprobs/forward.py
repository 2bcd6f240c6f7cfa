"""Running a model's body once, whatever wraps it, and stopping before its output layer."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from course_lib.logprobs.head import linear_logps, plain_logits

logger = logging.getLogger(__name__)
_scores_plainly: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()  # found out once a model
_told: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


@dataclass
class Head:
    """A model's output layer: `weight` (V, H), `bias` (V,) or None, and Gemma's cap on logits."""

    layer: nn.Linear
    softcap: float | None

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., V) in fp32, of all tokens at once."""
        return self._run(lambda x: plain_logits(x, self.layer.weight, self.layer.bias, self.softcap), hidden)

    def logps(self, hidden: Tensor, targets: Tensor, chunk_size: int | None = None) -> Tensor:
        """As `linear_logps`."""

        def score(x: Tensor) -> Tensor:
            bias, options = self.layer.bias, {"softcap": self.softcap, "chunk_size": chunk_size}
            return linear_logps(x, self.layer.weight, targets, bias=bias, **options)

        return self._run(score, hidden)

    def _run(self, function: Callable[[Tensor], Tensor], hidden: Tensor) -> Tensor:
        """`function` of the hidden states. Where ZeRO-3 holds the layer's weight in shards it runs as the layer's own
        forward, around which DeepSpeed puts the weight together, in the backward pass too."""
        if not hasattr(self.layer.weight, "ds_id"):
            return function(hidden)
        self.layer.forward = function
        try:
            return self.layer(hidden)
        finally:
            del self.layer.forward


def position_ids(attention_mask: Tensor) -> Tensor:
    """Positions that count real tokens only, so that left padding shifts nothing: (B, T)."""
    return (attention_mask.long().cumsum(dim=-1) - 1).clamp(min=0)


def unwrapped(model) -> nn.Module:
    """The transformers model inside DistributedDataParallel, DeepSpeed, torch.compile and PEFT."""
    while inner := getattr(model, "module", None) or getattr(model, "_orig_mod", None):
        model = inner
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def device_of(model) -> torch.device:
    """Where the model's first weight lies."""
    return next(model.parameters()).device


def takes(model, name: str) -> bool:
    """Whether the innermost model's `forward` takes an argument of that name, or hands all of them on."""
    forward = unwrapped(model).forward
    parameters = _parameters(getattr(forward, "__func__", forward))
    hands_on = any(p.kind is p.VAR_KEYWORD for p in parameters.values()) and "input_ids" not in parameters
    return hands_on or name in parameters


@lru_cache(maxsize=256)
def _parameters(function) -> Mapping[str, inspect.Parameter]:
    """Asked at every step of sampling, and slow to find out."""
    return inspect.signature(function).parameters


def head_of(model) -> Head | None:
    """The output layer, if it can be applied apart from the model; else None, and the reason is logged once.

    Raises:
        ValueError: if the model has adapters that put virtual tokens before the prompt.
    """
    _refuse_virtual_tokens(model)
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
    if takes(model, "logits_to_keep"):
        return model(**inputs, logits_to_keep=columns, **extra).logits
    return model(**inputs, **extra).logits[:, columns]


def with_positions(model, attention_mask: Tensor) -> dict[str, Tensor]:
    """`position_ids` as a keyword, where there is padding and the model takes them."""
    if not takes(model, "position_ids") or attention_mask.all():
        return {}
    return {"position_ids": position_ids(attention_mask)}


def _without_cache(model) -> dict[str, bool]:
    return {"use_cache": False} if takes(model, "use_cache") else {}


def _refuse_virtual_tokens(model) -> None:
    adapters = getattr(model, "peft_config", None)
    adapters = adapters.values() if isinstance(adapters, dict) else ()
    for adapter in adapters:
        if adapter.is_prompt_learning:
            raise ValueError(
                f"{adapter.peft_type.value} adapters put virtual tokens before the prompt, which shifts positions; "
                "train LoRA adapters instead: load_policy(..., lora_rank=16)"
            )


def _head(inner: nn.Module) -> Head:
    return Head(inner.get_output_embeddings(), getattr(inner.config, "final_logit_softcapping", None))


@contextmanager
def _caught(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Let the layer pass its input through, and keep it: the model then computes no logits.

    The pass goes through the model's own `forward`, so the wrappers of distributed training see it.
    """
    caught: list[Tensor] = []
    here = threading.get_ident()

    def keep(hidden: Tensor) -> Tensor:
        if threading.get_ident() != here:  # another thread is sampling from the same model
            return type(layer).forward(layer, hidden)
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
    shape = getattr(layer.weight, "ds_shape", layer.weight.shape)  # ZeRO-3's shards come together in `Head._run`
    if type(layer.weight) is not nn.Parameter or shape != (layer.out_features, layer.in_features):
        return "its output layer is sharded between devices"
    if inner not in _scores_plainly:
        _scores_plainly[inner] = _scores_alike(inner)
    return "" if _scores_plainly[inner] else "it changes its logits after the output layer"


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards each module is in the mode it was in, which may differ from its neighbours'."""
    before = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, was_training in before.items():
            module.training = was_training


@torch.no_grad()
def _scores_alike(inner: nn.Module) -> bool:
    """Whether hidden states times the output layer give the model's own logits, tried on a few tokens.

    Both come from equal hidden states, so they differ by one rounding of the largest logit.
    """
    device = device_of(inner)
    ids = torch.arange(8, device=device).view(2, 4) % inner.config.get_text_config().vocab_size
    head, inputs = _head(inner), {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with evaluating(inner):
        own = all_logits(inner, **inputs)
        apart = head.logits(hidden_states(inner, head, **inputs).to(head.layer.weight.dtype))
    rounding = max(torch.finfo(t.dtype).eps for t in (own, head.layer.weight))
    return own.shape == apart.shape and (own - apart).abs().max() <= 8 * rounding * own.abs().max() + 1e-5
