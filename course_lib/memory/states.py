"""Weights, gradients and optimiser state, byte by byte."""

from __future__ import annotations

from course_lib.sizing.settings import Role, Settings
from course_lib.sizing.shapes import Architecture, Weight


def model_states(arch: Architecture, role: Role, settings: Settings) -> dict[str, float]:
    """Weights, gradients and optimiser state of one model, bytes per GPU."""
    adapters = adapters_of(arch, role, settings)
    return states_of(_own_weights(arch, role, settings), adapters, role, settings)


def trained_weights(arch: Architecture, role: Role, settings: Settings) -> list[Weight]:
    """Those that the optimiser updates: the adapters where there are any, else all."""
    return adapters_of(arch, role, settings) or _own_weights(arch, role, settings)


def adapters_of(arch: Architecture, role: Role, settings: Settings) -> list[Weight]:
    """A pair of matrices for each adapted layer, and a head that PEFT trains whole, beside the frozen one if any."""
    if not (role.trained and settings.lora_rank):
        return []
    adapted = [w for w in arch.weights(role.head) if w.adapted]
    adapters = [Weight("adapter", (settings.lora_rank, size), w.count) for w in adapted for size in w.shape]
    if role.head == "score" or settings.shared_critic:
        adapters.append(Weight("score", (1, arch.hidden_size)))
    return adapters


def _own_weights(arch: Architecture, role: Role, settings: Settings) -> list[Weight]:
    weights = arch.weights(role.head)
    if role.trained and settings.shared_critic and not settings.lora_rank:
        weights.append(Weight("score", (1, arch.hidden_size)))
    return weights


def states_of(weights: list[Weight], adapters: list[Weight], role: Role, settings: Settings) -> dict[str, float]:
    narrow = 4 if settings.adapter_precision == "fp32" else 2
    held = sum(w.count * weight_bytes(w, settings) for w in weights)
    held += sum(w.count * w.elements * _adapter_width(w, narrow, settings) for w in adapters)
    found = {"weights": held, "gradients": 0.0, "optimizer": 0.0}
    trained = [(w, settings.width) for w in weights] if not adapters else []
    trained += [(w, _adapter_width(w, narrow, settings)) for w in adapters]
    for weight, width in trained if role.trained else ():
        found["gradients"] += weight.count * weight.elements * width
        found["optimizer"] += weight.count * optimizer_bytes(weight.elements, width, settings.optimizer)
    shares = {"weights": 3, "gradients": 2, "optimizer": 1}  # the ZeRO stage from which on a kind is sharded
    found = {k: v / settings.gpus if settings.zero_stage >= shares[k] else v for k, v in found.items()}
    offloaded = {None: (), "optimizer": ("optimizer",), "parameters": ("optimizer", "weights")}[settings.offload]
    return {k: 0.0 if k in offloaded else v for k, v in found.items()}


def _adapter_width(weight: Weight, narrow: int, settings: Settings) -> int:
    return settings.width if weight.name == "score" else narrow


def weight_bytes(weight: Weight, settings: Settings) -> float:
    """Of one tensor; NF4 packs two weights a byte, a scale in 8 bits for 64 weights and one in 32 for 64 x 256.

    LLM.int8 has a byte a weight, and a scale in fp32 for each row.
    """
    n = weight.elements
    if not (settings.quantization and weight.linear):
        return n * settings.width
    if settings.quantization == "int8":
        return n + 4 * weight.shape[0]
    scales = -(-n // 64)
    tables = 4 * (16 + 256 + 1)  # the code's 16 values, the scales' 256, and the scales' mean
    return -(-n // 2) + scales + 4 * -(-scales // 256) + tables


def optimizer_bytes(n: float, width: int, optimizer: str) -> float:
    """Moments, and the fp32 master copy of weights that are not fp32 themselves, of one tensor of `n` elements."""
    if optimizer == "adamw":
        return 2 * width * n
    if optimizer == "adamw-8bit":  # bitsandbytes: 32 bits for small tensors, else 8 and a scale for 256 of them
        return 8 * n if n < 4096 else 2 * (n + 4 * -(-n // 256))
    return (12 if optimizer == "adamw-master" and width < 4 else 8) * n
