"""The frozen reference that a policy is held to, in three forms."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from course_lib.models.saving import unwrapped_adapters

KINDS = ("auto", "copy", "adapter-off", "precomputed")


@dataclass
class Reference:
    """A reference distribution. `kind` tells where its log-probabilities come from.

    "copy": a second, frozen model. "adapter-off": the policy itself with its LoRA adapters switched off.
    "precomputed": the policy itself before its first update, asked once for the whole data set.
    """

    kind: str
    frozen: torch.nn.Module | None = None

    @contextmanager
    def scoring(self, policy) -> Iterator[torch.nn.Module]:
        """A model that scores as the reference does, without gradients; for "precomputed" only before training."""
        with torch.no_grad():
            if self.kind == "adapter-off":
                with unwrapped_adapters(policy).disable_adapter():
                    yield policy
            else:
                yield self.frozen if self.kind == "copy" else policy


def reference_of(policy, *, kind: str = "auto") -> Reference:
    """The reference of a policy that is about to be trained.

    Args:
        policy: the model at its starting point.
        kind: "copy", "adapter-off", "precomputed", or "auto": adapters off where the policy is a base
            model with fresh LoRA adapters, precomputed otherwise (no second model in memory).

    Returns:
        `Reference`.

    Raises:
        ValueError: for an unknown kind, or "adapter-off" where switching the adapters off would not give
            the starting policy back.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is one of {', '.join(KINDS)}; got {kind!r}")
    if kind == "auto":
        kind = "adapter-off" if _has_fresh_adapters(policy) else "precomputed"
    if kind == "adapter-off" and not _has_fresh_adapters(policy):
        raise ValueError(
            "without its adapters this policy is not the model that training starts from: it has none, or they are "
            "trained already; use kind='precomputed' (least memory) or kind='copy'"
        )
    frozen = copy.deepcopy(policy).requires_grad_(False).eval() if kind == "copy" else None
    return Reference(kind, frozen)


def _has_fresh_adapters(policy) -> bool:
    """Whether the policy carries LoRA adapters that change nothing yet (all their B matrices are zero)."""
    if not hasattr(policy, "peft_config"):
        return False
    ups = [p for name, p in policy.named_parameters() if "lora_B" in name]
    return bool(ups) and not any(p.any() for p in ups)
