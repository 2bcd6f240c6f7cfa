"""The arithmetic and the memory traffic of one pass through a model.

Counted are matrix products, with 2 FLOPs a weight and token, and what they read and write in the GPU's memory.
Elementwise operations are taken to be fused into them: what that misses, the stated utilisations have to cover.
"""

from __future__ import annotations

from dataclasses import dataclass

from course_lib.memory.states import weight_bytes
from course_lib.sizing.settings import Role, SpeedSettings
from course_lib.sizing.shapes import Architecture, Weight


@dataclass(frozen=True)
class Work:
    """FLOPs, those of them that are in fp32 though the model is not, and bytes read and written."""

    flops: float = 0.0
    bytes: float = 0.0
    fp32_flops: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.bytes + other.bytes, self.fp32_flops + other.fp32_flops)

    def __mul__(self, times: float) -> Work:
        return Work(self.flops * times, self.bytes * times, self.fp32_flops * times)

    def arithmetic_seconds(self, s: SpeedSettings) -> float:
        gpu = s.machine
        peak = gpu.fp32 if s.precision == "fp32" else gpu.bf16
        return ((self.flops - self.fp32_flops) / peak + self.fp32_flops / gpu.fp32) / s.utilization

    def bandwidth_seconds(self, s: SpeedSettings) -> float:
        return self.bytes / (s.machine.bandwidth * s.bandwidth_utilization)


@dataclass(frozen=True)
class Batch:
    """What goes through at once: tokens, the keys that they attend to in all, and tokens that reach the head."""

    tokens: float
    keys: float  # in a layer, on average over all
    scored: float


def attended(arch: Architecture, s: SpeedSettings, length: int) -> float:
    """Keys that the tokens of one sequence meet in all: those before each and itself, or, "eager", every one.

    On average over the layers; tokens of a sliding one meet those in its window.
    """
    if s.attention == "eager":
        return length**2
    seen = min(length, arch.window)
    every, near = length * (length + 1) / 2, seen * (seen + 1) / 2 + (length - seen) * seen
    return every + (near - every) * arch.sliding_layers / arch.layers


def training_batch(arch: Architecture, s: SpeedSettings) -> Batch:
    """A micro-batch; where a pair shares its prompt, the prompt goes through once, and both completions see it."""
    prompt, completion = s.prompt, s.completion
    if s.shared_prompt:
        length = prompt + 2 * completion
        blind = completion**2 if s.attention != "eager" else 0  # the second completion does not see the first
        tokens, keys = s.batch_size * length, s.batch_size * (attended(arch, s, length) - blind)
    else:
        tokens, keys = s.rows * s.sequence_length, s.rows * attended(arch, s, s.sequence_length)
    scored = s.rows * min(completion, s.sequence_length - 1 or 1)
    return Batch(tokens, keys, tokens if s.logits == "full" else scored)


def forward(arch: Architecture, s: SpeedSettings, role: Role, batch: Batch, *, adapters: bool = True) -> Work:
    """One forward pass: 2 FLOPs a weight and token, and 4 an element of a query and key that it meets."""
    return body(arch, s, role, batch, adapters=adapters) + _head(arch, s, role, batch)


def body(arch: Architecture, s: SpeedSettings, role: Role, batch: Batch, *, adapters: bool = True) -> Work:
    """A forward pass without the head, as checkpointing runs it again."""
    work = _layers(arch, s, batch) + _attention(arch, s, batch)
    return work + _adapters(arch, s, batch) if adapters and has_adapters(s, role) else work


def backward(arch: Architecture, s: SpeedSettings, role: Role, batch: Batch) -> Work:
    """Twice the forward: gradients of inputs and of weights. Frozen weights need the first alone.

    Flash attention computes its scores again: 5 products where the forward had 2.
    """
    frozen = has_adapters(s, role)
    work = (_layers(arch, s, batch) + _head(arch, s, role, batch)) * (1 if frozen else 2)
    work += _attention(arch, s, batch) * (2 if s.attention == "eager" else 2.5)
    return work + _adapters(arch, s, batch) * 2 if frozen else work


def has_adapters(s: SpeedSettings, role: Role) -> bool:
    return role.trained and s.lora_rank is not None


def prefill(arch: Architecture, s: SpeedSettings, role: Role, rows: int) -> Work:
    """The prompts' forward pass, with the logits of each one's last token."""
    return forward(arch, s, role, Batch(rows * s.prompt, rows * attended(arch, s, s.prompt), rows))


def decode(arch: Architecture, s: SpeedSettings, role: Role, rows: int) -> Work:
    """All steps after the prefill, a token a row each: every step reads all weights, and keys and values so far."""
    steps = s.completion - 1
    keys = rows * sum(arch.cached_tokens(s.prompt + step) for step in range(1, steps + 1))
    cached = Work(4 * arch.queries * keys * arch.layers, 2 * s.compute * arch.keys * keys * arch.layers)
    return forward(arch, s, role, Batch(rows, 0, rows)) * steps + cached


def _layers(arch: Architecture, s: SpeedSettings, batch: Batch) -> Work:
    """The linear layers: weights once, and each one's inputs and outputs."""
    work = Work()
    for weight in arch.weights_of_layers():
        if weight.name in ("linear", "experts"):
            work += _matrix(arch, s, weight, batch.tokens) * weight.count
    return work


def _matrix(arch: Architecture, s: SpeedSettings, weight: Weight, tokens: float) -> Work:
    used = arch.experts_per_token / arch.experts if len(weight.shape) == 3 else 1
    touched = 1 - (1 - used) ** tokens if used < 1 else 1  # experts that some token chose, if each is as likely
    copies = arch.experts_per_token if used < 1 else 1
    held = weight_bytes(weight, s)
    if s.quantization == "nf4" and weight.linear:
        held += 2 * s.compute * weight.elements  # unpacked, then read; 8 bits are multiplied as they are
    through = s.compute * copies * sum(weight.shape[-2:]) * tokens
    return Work(2 * weight.elements * used * tokens, held * touched + through)


def _attention(arch: Architecture, s: SpeedSettings, batch: Batch) -> Work:
    traffic = s.compute * 2 * (arch.queries + arch.keys) * batch.tokens
    if s.attention == "eager":  # scores written, read, made probabilities, written, read
        traffic += 4 * s.compute * arch.heads * batch.keys
    return Work(4 * arch.queries * batch.keys, traffic) * arch.layers


def _head(arch: Architecture, s: SpeedSettings, role: Role, batch: Batch) -> Work:
    if role.head != "lm":
        return Work(2 * arch.hidden_size * batch.tokens)
    weights = arch.vocab_size * arch.hidden_size
    logits = (2 * s.compute + 4 + 8) * arch.vocab_size  # written, cast to fp32, made log-probabilities
    return Work(2 * weights * batch.scored, s.width * weights + logits * batch.scored)


def _adapters(arch: Architecture, s: SpeedSettings, batch: Batch) -> Work:
    """Two thin products beside every linear layer; fp32 ones run at fp32's speed unless autocast casts them."""
    sides = sum(w.count * sum(w.shape) for w in arch.weights_of_layers() if w.adapted)
    flops = 2 * s.lora_rank * sides * batch.tokens
    width = 4 if s.adapter_precision == "fp32" and s.precision != "autocast" else s.compute
    return Work(flops, width * sides * batch.tokens, flops if width == 4 else 0)
