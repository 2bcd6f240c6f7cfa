"""Scores of a reference kept on disk between runs: under a name that changes with all that they depend on."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

logger = logging.getLogger(__name__)


def read_scores(path: Path, rows: int) -> Tensor | None:
    """The scores kept there, (rows, 2), if they are there and whole; what is damaged is warned of and passed over."""
    if not path.exists():
        return None
    try:
        scores = _read(path, rows)
        logger.info("reference scores read from %s", path)
        return scores
    except (OSError, ValueError, SafetensorError) as error:
        logger.warning("the reference scores in %s are damaged (%s) and computed anew", path, error)
        return None


def fingerprint(policy, scored: str) -> str:
    """One name for a model, its adapters' settings, and what it scores; any of them changed gives another name."""
    digest = hashlib.sha256(policy.config.to_json_string().encode())
    digest.update(repr(_adapters_in_use(policy)).encode())
    for name, adapter in sorted(getattr(policy, "peft_config", {}).items()):
        digest.update(repr((name, sorted(adapter.to_dict().items(), key=str))).encode())
    for name, tensor in sorted(policy.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    digest.update(scored.encode())
    return digest.hexdigest()[:32]


def _adapters_in_use(policy) -> list:
    if not hasattr(policy, "peft_config"):
        return []
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in policy.modules() if isinstance(module, BaseTunerLayer)]
    return [(layer.active_adapters, layer.disable_adapters, layer.merged_adapters) for layer in layers]


def _read(path: Path, rows: int) -> Tensor:
    with safe_open(path, framework="pt") as file:
        scores, checksum = file.get_tensor("scores"), (file.metadata() or {}).get("checksum")
    if scores.shape != (rows, 2):
        raise ValueError(f"they are of shape {tuple(scores.shape)}, not {(rows, 2)}")
    if checksum != _checksum(scores):
        raise ValueError("they do not match their checksum")
    if not scores.isfinite().all():
        raise ValueError("not all of them are finite")
    return scores


def can_write(path: Path) -> bool:
    """Whether scores can be kept there; else a warning says why, and the run goes on without."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = _beside(path)
        probe.touch()
        probe.unlink()
        return True
    except OSError as error:
        logger.warning("reference scores will not be kept: %s cannot be written (%s)", path.parent, error)
        return False


def write_scores(path: Path, scores: Tensor) -> None:
    """Keep scores, whole or not at all; a cache never stops a run."""
    unfinished = _beside(path)
    try:
        save_file({"scores": scores}, unfinished, metadata={"checksum": _checksum(scores)})
        unfinished.replace(path)
    except (OSError, SafetensorError) as error:
        unfinished.unlink(missing_ok=True)
        logger.warning("reference scores were not kept: %s could not be written (%s)", path, error)


def _beside(path: Path) -> Path:
    return path.with_suffix(f".{os.getpid()}")


def _checksum(scores: Tensor) -> str:
    return hashlib.sha256(scores.contiguous().numpy().tobytes()).hexdigest()
