"""How long a training step takes and what bounds each phase of it: arithmetic, memory bandwidth or links.

A roofline: no phase is faster than its FLOPs, nor than its bytes, allow.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from math import ceil, isfinite

from course_lib.memory.estimate import MemoryEstimate, as_number, estimate_memory
from course_lib.sizing import phases
from course_lib.sizing.architectures import architecture_of
from course_lib.sizing.hardware import GB
from course_lib.sizing.settings import Settings, SpeedSettings
from course_lib.sizing.shapes import Architecture
from course_lib.speed.communication import communication
from course_lib.speed.passes import optimizer_work, passes_of
from course_lib.speed.work import Work


@dataclass(frozen=True)
class Phase:
    """One phase of a step on one GPU: FLOPs, bytes (of memory, or sent), seconds, and which of them they follow."""

    flops: float
    bytes: float
    seconds: float
    bound: str  # "arithmetic" | "bandwidth" | "communication"

    @property
    def intensity(self) -> float:
        """FLOPs a byte of memory traffic."""
        return self.flops / self.bytes if self.bytes else 0.0


@dataclass(frozen=True)
class Cost:
    """A run: optimiser steps (rollouts, for online methods), hours on the clock, GPU hours, and money."""

    steps: int
    hours: float
    gpu_hours: float
    money: float


@dataclass(frozen=True)
class ThroughputEstimate:
    """A step's phases. `tokens` and `tokens_per_second` are of one GPU, `total_tokens_per_second` of all together.

    `tokens` are those of all sequences in the step, prompts included. Each counts once, even if several models read
    it.
    """

    model: str
    settings: SpeedSettings
    phases: dict[str, Phase]
    link_seconds: float  # of communication, hidden behind passes or not
    memory: MemoryEstimate = field(repr=False)  # of a micro-batch
    fits: bool  # whether memory suffices, for the micro-batch and for all sequences that are decoded together

    @property
    def step_seconds(self) -> float:
        return sum(phase.seconds for phase in self.phases.values())

    @property
    def tokens(self) -> int:
        s = self.settings
        return s.rows * s.accumulation * s.sequence_length

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.step_seconds

    @property
    def total_tokens_per_second(self) -> float:
        return self.tokens_per_second * self.settings.gpus

    @property
    def examples(self) -> int:
        """Pairs, or sequences, in a step of all GPUs."""
        s = self.settings
        return s.batch_size * s.accumulation * s.gpus

    @property
    def flops(self) -> float:
        return sum(phase.flops for phase in self.phases.values())

    @property
    def bytes(self) -> float:
        """Of memory traffic, without what is sent."""
        return sum(phase.bytes for name, phase in self.phases.items() if name != phases.COMMUNICATION)

    @property
    def intensity(self) -> float:
        """FLOPs a byte of memory traffic, the whole step."""
        return self.flops / self.bytes

    @property
    def ridge(self) -> float:
        """The intensity at which this GPU, at these utilisations, turns from bandwidth-bound to arithmetic-bound."""
        s = self.settings
        return self.peak_flops * s.utilization / (s.machine.bandwidth * s.bandwidth_utilization)

    @property
    def peak_flops(self) -> float:
        """FLOP/s on the datasheet."""
        gpu = self.settings.machine
        return gpu.fp32 if self.settings.precision == "fp32" else gpu.bf16

    @property
    def achieved_utilization(self) -> float:
        """Share of the datasheet's FLOP/s over the whole step, recomputation counted."""
        return self.flops / self.step_seconds / self.peak_flops

    def cost(self, *, examples: int, price_per_gpu_hour: float, epochs: float = 1) -> Cost:
        """Steps, hours and money for `epochs` over `examples` pairs (pairwise methods) or sequences.

        Raises:
            ValueError: unless all three are above 0.
        """
        given = {"examples": examples, "price_per_gpu_hour": price_per_gpu_hour, "epochs": epochs}
        for name, value in given.items():
            if not (isfinite(value) and value > 0):
                raise ValueError(f"{name} is a number above 0; got {value}")
        steps = ceil(examples * epochs / self.examples)
        hours = steps * self.step_seconds / 3600
        gpu_hours = hours * self.settings.gpus
        return Cost(steps, hours, gpu_hours, gpu_hours * price_per_gpu_hour)

    def table(self):
        """A DataFrame: a row a phase, with seconds, TFLOP, GB, FLOPs a byte and what bounds it."""
        import pandas as pd

        rows = {
            name: {"seconds": p.seconds, "TFLOP": p.flops / 1e12, "GB": p.bytes / GB, "FLOP/byte": p.intensity,
                   "bound": p.bound}
            for name, p in self.phases.items()
        }  # fmt: skip
        return pd.DataFrame.from_dict(rows, orient="index")

    def to_dict(self) -> dict:
        """All of it as plain values, ready for JSON; seconds, FLOPs, bytes, tokens a second."""
        names = ("step_seconds", "tokens_per_second", "total_tokens_per_second", "flops", "bytes", "intensity",
                 "ridge", "achieved_utilization", "link_seconds", "examples", "fits")  # fmt: skip
        timed = {name: asdict(phase) | {"intensity": phase.intensity} for name, phase in self.phases.items()}
        found = {"model": self.model, "settings": asdict(self.settings), "phases": timed}
        return found | {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        s, peak = self.settings, self.memory.peak / GB
        many = f"{s.gpus} x " if s.gpus > 1 else ""
        lines = [
            f"{self.model}, {s.algorithm}, {many}{s.gpu} at {s.utilization:.0%} of peak FLOP/s and "
            f"{s.bandwidth_utilization:.0%} of bandwidth",
            f"step       {self.step_seconds:>12.4g} s, {self.examples} examples",
            f"tokens     {self.tokens_per_second:>12,.0f} a second and GPU, {self.total_tokens_per_second:,.0f} in all",
            f"arithmetic {self.achieved_utilization:>12.1%} of the peak over the whole step",
            f"intensity  {self.intensity:>12.1f} FLOPs a byte; the ridge is at {self.ridge:.0f}",
            f"memory     {peak:>12.1f} GB at the peak: {'fits' if self.fits else 'does NOT fit on this GPU'}",
            "",
            f"{'phase':<18}{'seconds':>10}{'TFLOP':>10}{'GB':>10}{'FLOP/byte':>11}  bound",
        ]
        for name, p in self.phases.items():
            numbers = f"{p.seconds:>10.4g}{p.flops / 1e12:>10.4g}{p.bytes / GB:>10.4g}{p.intensity:>11.4g}"
            lines.append(f"{name:<18}{numbers}  {p.bound}")
        return "\n".join(lines)


def estimate_throughput(
    model,
    algorithm: str,
    *,
    gpu: str = "H100-80GB",
    gpus: int = 1,
    gpus_per_node: int = 8,
    batch_size: int = 1,
    accumulation: int = 1,
    sequence_length: int = 1024,
    completion_length: int | None = None,
    rollout_batch: int | None = None,
    update_epochs: int = 1,
    shared_prompt: bool = False,
    precision: str = "bf16",
    optimizer: str = "adamw-fp32",
    lora_rank: int | None = None,
    adapter_precision: str = "fp32",
    quantization: str | None = None,
    reference: str | None = None,
    gradient_checkpointing: bool = False,
    attention: str = "flash",
    logits: str = "full",
    critic: str = "separate",
    reward_model: bool = True,
    zero_stage: int = 0,
    utilization: float = 0.4,
    bandwidth_utilization: float = 0.7,
    link_utilization: float = 0.7,
    overlap: float = 0.8,
) -> ThroughputEstimate:
    """Seconds of one training step on each GPU, phase by phase, and the tokens a second that follow.

        seconds of a phase = max(FLOPs / (peak FLOP/s * utilization), bytes / (bandwidth * bandwidth_utilization))
        forward  = 2 FLOPs a weight and token + attention's 4 * (heads * head size) a pair of token and key
        backward = twice the forward; with LoRA once, and twice the adapters' own; checkpointing repeats the layers
        decoding = for each token, all weights and the keys and values so far read from memory
        communication = what of (sent / bandwidth + hops * latency) does not hide behind the passes

    Settings not named here are as in `estimate_memory`. All GPUs are data-parallel: models are not split into tensor
    or pipeline stages, nor sharded within a part of the cluster alone.

    Args:
        model: a name, a transformers config, a checkpoint's folder or hub name; a bare number has no shapes.
        gpu: a name in `GPUS`, whose peak and bandwidth count.
        gpus: how many share the work by data parallelism; `gpus_per_node` of them in each node.
        batch_size: a micro-batch on one GPU: pairs for "reward", "dpo", "ipo", "simpo" and "orpo", else sequences.
        accumulation: micro-batches for one optimiser step.
        sequence_length: tokens of prompt and completion, none of them padding.
        completion_length: tokens of the completion; by default half of the sequence.
        rollout_batch: sequences that a GPU decodes together; by default all of a step.
        update_epochs: an online method's passes over each rollout.
        shared_prompt: whether a pair's prompt goes through once (as this course's trainers do), not twice, in time and
            in memory.
        utilization: share of the peak FLOP/s that the passes reach; 0.4 is what large runs report (Llama 3: 0.38
            to 0.43).
        bandwidth_utilization: share of the memory's bandwidth; 0.7 takes good kernels without launch overhead.
        link_utilization: share of the links' bandwidth.
        overlap: share of communication that can hide behind passes.

    Returns:
        `ThroughputEstimate`, of one GPU; all GPUs take equally long (`course_lib.speed.scaling` lets them differ).

    Raises:
        ValueError: for an unknown model, GPU or option, shares outside (0, 1], or settings that contradict.

    Source: Williams et al. 2009 (the roofline); Kaplan et al. 2020, section 2.1 (2 and 4 FLOPs a weight and token);
    Dao 2023, FlashAttention-2, section 3.1 (its backward); Grattafiori et al. 2024, The Llama 3 Herd, table 4.
    """
    options = dict(locals())
    model = options.pop("model")
    if as_number(model) is not None:
        raise ValueError(f"a number of parameters ({model}) has no layers to time: give a model's name or config")
    arch, settings = architecture_of(model), SpeedSettings(**options)
    memory = _memory(arch, settings)
    return ThroughputEstimate(arch.name, settings, *_timed(arch, settings), memory, _fits(arch, settings, memory))


def _memory(arch: Architecture, s: SpeedSettings, **change) -> MemoryEstimate:
    options = {f.name: getattr(s, f.name) for f in fields(Settings)} | {"completion_length": s.completion} | change
    return estimate_memory(arch, options.pop("algorithm"), **options)


def _fits(arch: Architecture, s: SpeedSettings, memory: MemoryEstimate) -> bool:
    if not (s.online and memory.fits(s.gpu)):
        return memory.fits(s.gpu)
    return _memory(arch, s, batch_size=s.decoded_together).phases[phases.ROLLOUT] <= s.machine.memory


def _timed(arch: Architecture, s: SpeedSettings) -> tuple[dict[str, Phase], float]:
    """The phases in order, and the seconds of all communication."""
    passes = passes_of(arch, s)
    found: dict[str, Phase] = {}
    for name in dict.fromkeys(each.phase for each in passes):
        found[name] = _phase(sum((p.work * p.times for p in passes if p.phase == name), Work()), s)
    room = sum(phase.seconds for name, phase in found.items() if name not in phases.SAMPLING)
    found[phases.OPTIMIZER] = _phase(optimizer_work(arch, s), s)
    sent, seconds = communication(arch, s, passes)
    if s.gpus > 1:
        found[phases.COMMUNICATION] = Phase(0.0, sent, seconds - min(s.overlap * seconds, room), "communication")
    return {name: found[name] for name in phases.TIMED if name in found}, seconds


def _phase(work: Work, s: SpeedSettings) -> Phase:
    arithmetic, bandwidth = work.arithmetic_seconds(s), work.bandwidth_seconds(s)
    bound = "arithmetic" if arithmetic >= bandwidth else "bandwidth"
    return Phase(work.flops, work.bytes, max(arithmetic, bandwidth), bound)
