"""How many bytes a GPU holds in each phase of a training step, by model and by kind, and which phase needs most.

GB is 1e9 bytes.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from numbers import Real

from course_lib.memory.states import model_states, states_of
from course_lib.memory.step import Parts, Step
from course_lib.sizing.architectures import architecture_of
from course_lib.sizing.hardware import CONTEXT_BYTES, FRAGMENTATION, GB, GIB, GPUS, memory_of
from course_lib.sizing.settings import OPTIONS, Settings, roles_of
from course_lib.sizing.shapes import Architecture, Weight

STATES = "states"  # stands where the phases do if the model is a bare number
SHAPED = ("fused", "adapter_precision", "quantization", "reference_order", "gradient_checkpointing", "attention",
          "batch_size", "sequence_length", "completion_length", "shared_prompt", "logits")  # fmt: skip
NEEDS_SHAPES = "give a model's name, its config or its folder"


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on each GPU. `parts` has, for each phase, the bytes of every (role, kind).

    `states` are weights, gradients and optimiser state together; `peak` is what PyTorch's
    `max_memory_allocated` would say; `reserved` adds allowances for the allocator's free blocks and the context.
    For a bare number of parameters nothing but the states is known: `phase`, `peak` and `reserved` are None, "states"
    stands in `phases`, and `fits` raises.
    """

    model: str
    settings: Settings
    states: float
    parts: dict[str, Parts]
    architecture: Architecture | None = field(default=None, repr=False)

    @property
    def phases(self) -> dict[str, float]:
        """Bytes of each phase, in order."""
        return {name: sum(parts.values()) for name, parts in self.parts.items()}

    @property
    def phase(self) -> str | None:
        """The phase that needs most."""
        return None if self.architecture is None else max(self.phases, key=self.phases.get)

    @property
    def peak(self) -> float | None:
        return None if self.architecture is None else self.phases[self.phase]

    @property
    def by_role(self) -> dict[str, float]:
        """Bytes of each model at the peak; of its states, where there is no peak."""
        return self._grouped(0)

    @property
    def by_kind(self) -> dict[str, float]:
        """Bytes of weights, gradients, optimizer, activations, logits and the rest at the peak.

        "optimizer" is its state; "update" what its step holds besides, for as long as it runs.
        """
        return self._grouped(1)

    @property
    def reserved(self) -> float | None:
        """`peak` with an allowance: 5% of what comes and goes for fragmentation, 0.8 GB for the CUDA context."""
        if self.peak is None:
            return None
        resting = sum(self.by_kind.get(kind, 0) for kind in ("weights", "gradients", "optimizer"))
        return self.peak + FRAGMENTATION * (self.peak - resting) + CONTEXT_BYTES

    def fits(self, gpu: str) -> bool:
        """Whether `reserved` fits on a GPU of `course_lib.sizing.GPUS`.

        Raises:
            ValueError: for an unknown GPU, and where a bare number of parameters leaves the peak unknown.
        """
        if self.reserved is None:
            raise ValueError(f"the peak of {self.model} parameters depends on the model's shapes: {NEEDS_SHAPES}")
        return self.reserved <= memory_of(gpu)

    @property
    def gpus_that_fit(self) -> list[str]:
        """Names of GPUs; none where the peak is not known."""
        return [] if self.peak is None else [gpu for gpu in GPUS if self.fits(gpu)]

    @cached_property
    def advice(self) -> list[str]:
        """What dominates, and the single changes that save most, each with the peak that it would lead to."""
        if self.peak is None:
            return []
        kind, size = max(self.by_kind.items(), key=lambda item: item[1])
        lines = [f"{kind} dominate: {size / GB:.1f} of {self.peak / GB:.1f} GB, in the phase {self.phase!r}"]
        found = sorted((self._changed(change), text) for text, change in self._changes())
        return lines + [f"{text}: {p / GB:.1f} GB" for p, text in found if p < 0.98 * self.peak][:5]

    def _changed(self, change: dict) -> float:
        return _estimate(self.architecture, replace(self.settings, **change)).peak

    def _changes(self) -> list[tuple[str, dict]]:
        s = self.settings
        options = [("a fused optimiser, fused=True", {"fused": True}, not s.fused and s.optimizer == "adamw"),
                   ("8-bit moments, optimizer='adamw-8bit'", {"optimizer": "adamw-8bit"}, s.optimizer != "adamw-8bit"),
                   ("a precomputed reference", {"reference": "precomputed"}, s.reference_kind == "copy"),
                   ("gradient_checkpointing=True", {"gradient_checkpointing": True}, not s.gradient_checkpointing),
                   ("logits='chunked'", {"logits": "chunked"}, s.logits != "chunked"),
                   ("attention='flash'", {"attention": "flash"}, s.attention == "eager"),
                   (f"batch_size={s.batch_size // 2}", {"batch_size": s.batch_size // 2}, s.batch_size > 1),
                   ("LoRA, lora_rank=16", {"lora_rank": 16, "reference": None}, not s.lora_rank),
                   ("QLoRA, quantization='nf4'", {"quantization": "nf4"}, s.lora_rank and not s.quantization),
                   ("a shared critic", {"critic": "shared"}, s.algorithm == "ppo" and s.critic == "separate"),
        ]  # fmt: skip
        more = {"zero_stage": 3, "gpus": max(8, 2 * s.gpus)}
        options.append((f"ZeRO-3 over {more['gpus']} GPUs", more, True))
        return [(text, change) for text, change, possible in options if possible]

    def _grouped(self, which: int) -> dict[str, float]:
        found: dict[str, float] = defaultdict(float)
        for names, size in self.parts[self.phase or STATES].items():
            found[names[which]] += size
        return {name: size for name, size in found.items() if size}

    def table(self):
        """A DataFrame of GB: a row a phase, a column a kind; what `course_lib.figures.memory_bars` draws."""
        import pandas as pd

        kinds = dict.fromkeys(kind for parts in self.parts.values() for _, kind in parts)
        rows = {
            phase: {k: sum(size for (_, kind), size in parts.items() if kind == k) / GB for k in kinds}
            for phase, parts in self.parts.items()
        }
        return pd.DataFrame.from_dict(rows, orient="index")

    def to_dict(self) -> dict:
        """All of it as plain values, ready for JSON; sizes in bytes."""
        names = ("states", "peak", "reserved", "phase", "phases", "by_role", "by_kind", "gpus_that_fit", "advice")
        return {"model": self.model, "settings": asdict(self.settings)} | {name: getattr(self, name) for name in names}

    def __str__(self) -> str:
        s, sharded = self.settings, f", each of {self.settings.gpus} GPUs" if self.settings.gpus > 1 else ""
        title = f"{self.model}, {s.algorithm}{sharded}"
        if self.peak is None:
            return "\n".join([title, *self._states_alone()])
        lines = [
            title,
            f"peak    {self.peak / GB:>12.2f} GB ({self.peak / GIB:.2f} GiB), {self.phase}",
            f"states  {self.states / GB:>12.2f} GB",
            f"reserved{self.reserved / GB:>12.2f} GB, with allowances for the allocator and the CUDA context",
            f"fits     {', '.join(self.gpus_that_fit) or 'no GPU in the table'}",
        ]
        for title, found in (("phase", self.phases), ("at the peak, by kind", self.by_kind), ("by role", self.by_role)):
            lines += ["", title, *(f"  {name:<20}{size / GB:>10.2f} GB" for name, size in found.items())]
        return "\n".join([*lines, "", *self.advice])

    def _states_alone(self) -> list[str]:
        lines = [f"states  {self.states / GB:>12.2f} GB ({self.states / GIB:.2f} GiB): all that a number tells"]
        for title, found in (("by kind", self.by_kind), ("by role", self.by_role)):
            lines += ["", title, *(f"  {name:<20}{size / GB:>10.2f} GB" for name, size in found.items())]
        return [*lines, "", f"For the peak, and what it fits on, {NEEDS_SHAPES}."]


def estimate_memory(
    model,
    algorithm: str,
    *,
    precision: str = "bf16",
    optimizer: str = "adamw-fp32",
    fused: bool = True,
    lora_rank: int | None = None,
    adapter_precision: str = "fp32",
    quantization: str | None = None,
    reference: str | None = None,
    reference_order: str = "after",
    gradient_checkpointing: bool = False,
    attention: str = "flash",
    batch_size: int = 1,
    sequence_length: int = 1024,
    completion_length: int | None = None,
    shared_prompt: bool = False,
    logits: str = "full",
    critic: str = "separate",
    reward_model: bool = True,
    zero_stage: int = 0,
    gpus: int = 1,
    offload: str | None = None,
) -> MemoryEstimate:
    """Bytes that one training step holds on each GPU, phase by phase.

        states = sum over models of weights + gradients + optimiser state
        peak   = max over phases of (weights + optimiser state + gradients made so far
                                     + activations kept + what the phase itself makes)

    Args:
        model: a name ("llama-3-8b"; `ARCHITECTURES` has them), a transformers config, a checkpoint's folder or hub
            name, or a number of parameters, for which the states alone are counted. A family that is not known is
            read from its config if all weights have a Llama's shapes; of what sees or hears, the language model.
        algorithm: "sft", "reward", "dpo", "ipo", "kto", "simpo", "orpo", "ppo", "rloo" or "grpo".
        precision: "bf16", "fp32", or "autocast" (fp32 weights under bf16 autocast). With `quantization`, of what
            is not quantised.
        optimizer: bytes a trained bf16 weight, with weight and gradient: "adamw-fp32" (fp32 moments) 12, "adamw"
            (torch's own) 8, "adamw-master" (fp32 master weights and moments) 16, "adamw-8bit" 6.03.
        fused: whether torch's own AdamW ("adamw") runs as one kernel, without intermediate tensors; those with fp32
            moments update one tensor at a time in fp32, and hold three more of the largest one meanwhile.
        lora_rank: of adapters on all linear layers, of a mixture of experts on attention's; None trains all weights.
        adapter_precision: "fp32" (PEFT's default) or "bf16".
        quantization: of the frozen linear layers, experts not among them: None, "nf4" with double quantisation
            (QLoRA), or "int8" (LLM.int8), whose layers keep their inputs, checkpointed or not.
        reference: "copy", "adapter-off" or "precomputed"; by default adapters off with LoRA, else a copy.
        reference_order: whether its forward comes "after" the policy's, whose activations are then held, or "before".
        gradient_checkpointing: keep each layer's input, and compute the rest again in the backward pass.
        attention: "flash" (or "sdpa", which runs it) or "eager"; with `shared_prompt` both give a kernel a mask.
        batch_size: per GPU: pairs for "reward", "dpo", "ipo", "simpo" and "orpo", else sequences.
        sequence_length: tokens of prompt and completion.
        completion_length: tokens of those that are scored (all by default); matters for `logits`.
        shared_prompt: whether both sides of a pair go through behind one copy of their prompt, as this course's
            trainers do unless told otherwise, where attention is "sdpa" or "eager"; needs a completion_length.
        logits: "full" (all positions), "completion" (scored positions), "chunked" (64 MiB at a time, as this
            course's trainers do).
        critic: PPO's, "separate" or "shared" (a value head on the actor).
        reward_model: whether online methods hold a reward model on the GPU; False where a function scores.
        zero_stage: what is sharded over `gpus`: 1 optimiser state, 2 gradients too, 3 weights too (as FSDP).
        gpus: how many share the work.
        offload: None, "optimizer" (its state lives on the CPU), or "parameters" (weights too; ZeRO-3).

    Dropout is taken to be off, as preference trainers switch it off; where it is on, it keeps a mask and a copy more.

    Returns:
        `MemoryEstimate`, bytes per GPU.

    Raises:
        ValueError: for an unknown model or option, or settings that contradict one another.

    Source: measured against real transformers models and bitsandbytes' layers under `course_lib.memory.tracker`
    (tests/test_memory.py); states: Rajbhandari et al. 2020, ZeRO, section 3; NF4: Dettmers et al. 2023, QLoRA,
    section 3; 8 bits: Dettmers et al. 2022, LLM.int8(), section 2.
    """
    options = dict(locals())
    source = options.pop("model")
    return _estimate(source, Settings(**options))


def _estimate(model, settings: Settings) -> MemoryEstimate:
    count = as_number(model)
    if count is not None:
        return _from_count(count, settings)
    arch = architecture_of(model)
    _check_architecture(arch, settings)
    states = {role: model_states(arch, role, settings) for role in roles_of(settings)}
    total = sum(sum(parts.values()) for parts in states.values())
    return MemoryEstimate(arch.name, settings, total, Step(arch, settings, states).phases(), arch)


def as_number(model) -> float | None:
    """A number of parameters, also where it is written as a text such as "8e9"."""
    if isinstance(model, bool) or not isinstance(model, (Real, str)):
        return None
    try:
        return float(model)
    except ValueError:
        return None


def _from_count(count: float, settings: Settings) -> MemoryEstimate:
    if not 1 <= count < float("inf"):
        raise ValueError(f"a number of parameters is at least 1; got {count}")
    if settings.lora_rank:
        raise ValueError("adapters depend on the shapes of the layers: give a model's name or config, not a number")
    vain = [name for name in SHAPED if getattr(settings, name) != OPTIONS[name].default]
    if vain:
        raise ValueError(f"{', '.join(vain)} cannot matter to a bare number of parameters: {NEEDS_SHAPES}")
    every = [Weight("all", (count,))]
    states = {role: states_of(every, [], role, settings) for role in roles_of(settings)}
    parts = {(role.name, kind): size for role, found in states.items() for kind, size in found.items()}
    return MemoryEstimate(f"{count:g}", settings, sum(parts.values()), {STATES: parts})


def _check_architecture(arch: Architecture, settings: Settings) -> None:
    if arch.positions and settings.sequence_length > arch.positions:
        raise ValueError(f"{arch.name} has {arch.positions} positions; sequence_length is {settings.sequence_length}")
    if arch.score_cap and settings.attention == "sdpa" or arch.family == "gpt-oss" and settings.attention == "sdpa":
        what = "caps on its scores" if arch.score_cap else "sinks"
        raise ValueError(f"PyTorch's sdpa knows no attention with {what}, as {arch.name} has: 'eager' or 'flash'")
    if settings.shared_prompt and arch.window and settings.passed_length > arch.window:
        raise ValueError(
            f"a pair's row of {settings.passed_length} tokens is longer than the window of {arch.name}, {arch.window}, "
            "where prompts are not shared: leave shared_prompt out"
        )
