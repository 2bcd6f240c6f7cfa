"""What `estimate_memory` can be asked, and which models a method holds. Stands beside the flow; arithmetic only."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

from course_lib.sizing.hardware import GPU, gpu_named

PAIRWISE = ("reward", "dpo", "ipo", "simpo", "orpo")
ONLINE = ("ppo", "rloo", "grpo")
REFERENCED = ("dpo", "ipo", "kto", *ONLINE)
CHOICES = {
    "algorithm": ("sft", "reward", "dpo", "ipo", "kto", "simpo", "orpo", "ppo", "rloo", "grpo"),
    "precision": ("bf16", "fp32", "autocast"),
    "optimizer": ("adamw-fp32", "adamw", "adamw-master", "adamw-8bit"),
    "adapter_precision": ("fp32", "bf16"),
    "quantization": (None, "nf4"),
    "reference": (None, "copy", "adapter-off", "precomputed"),
    "reference_order": ("after", "before"),
    "attention": ("flash", "sdpa", "eager"),
    "logits": ("full", "completion", "chunked"),
    "zero_stage": (0, 1, 2, 3),
    "offload": (None, "optimizer", "parameters"),
    "critic": ("separate", "shared"),
    "reward_model": (True, False),
    "fused": (True, False),
    "gradient_checkpointing": (True, False),
}
OPTIONAL = {"lora_rank": ", or None to train all weights", "completion_length": ", or None for all tokens",
            "rollout_batch": ", or None for all of a step"}  # fmt: skip


@dataclass(frozen=True)
class Numerics:
    """How a model is held and computed: bytes an element, what is trained, and how attention runs."""

    width: int = 2  # of weights outside the quantised ones, and of the residual stream
    compute: int = 2  # of matrix products: 2 under autocast
    trained: bool = True
    lora_rank: int | None = None
    adapter_width: int = 4
    quantized: bool = False
    eager: bool = False

    @property
    def full(self) -> bool:
        """Whether all weights are trained."""
        return self.trained and self.lora_rank is None


@dataclass(frozen=True)
class Settings:
    """What `estimate_memory` was asked."""

    algorithm: str
    precision: str = "bf16"
    optimizer: str = "adamw-fp32"
    fused: bool = True
    lora_rank: int | None = None
    adapter_precision: str = "fp32"
    quantization: str | None = None
    reference: str | None = None
    reference_order: str = "after"
    gradient_checkpointing: bool = False
    attention: str = "flash"
    batch_size: int = 1
    sequence_length: int = 1024
    completion_length: int | None = None
    logits: str = "full"
    critic: str = "separate"
    reward_model: bool = True
    zero_stage: int = 0
    gpus: int = 1
    offload: str | None = None

    def __post_init__(self):
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            if not any(type(value) is type(choice) and value == choice for choice in allowed):
                raise ValueError(f"{name} is one of {', '.join(map(repr, allowed))}; got {value!r}")
        self._check_counts("batch_size", "sequence_length", "gpus", "lora_rank", "completion_length")
        self._check_combination()

    def _check_counts(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not (_is_count(value) or (value is None and name in OPTIONAL)):
                raise ValueError(f"{name} is a whole number, at least 1{OPTIONAL.get(name, '')}; got {value!r}")

    def _check_combination(self) -> None:
        if self.quantization and self.lora_rank is None:
            raise ValueError("4-bit weights cannot be trained: give lora_rank to train adapters on them (QLoRA)")
        if self.reference == "adapter-off" and self.lora_rank is None:
            raise ValueError("without adapters there are none to switch off: give lora_rank, or reference='copy'")
        if self.completion_length and self.completion_length > self.sequence_length:
            raise ValueError(
                f"a completion of {self.completion_length} tokens is longer than the sequence of prompt and "
                f"completion, {self.sequence_length}"
            )
        if self.zero_stage and self.gpus == 1 and not self.offload:
            raise ValueError(
                f"ZeRO stage {self.zero_stage} on one GPU shards nothing: raise gpus, or give offload='optimizer'"
            )
        if self.offload and not self.zero_stage:
            raise ValueError(f"offloading is a part of ZeRO: give a zero_stage with offload={self.offload!r}")
        if self.offload == "parameters" and self.zero_stage != 3:
            raise ValueError("only ZeRO stage 3 fetches weights when they are needed: offload='parameters' needs it")

    @property
    def reference_kind(self) -> str:
        """Where the reference's log-probabilities come from: "copy", "adapter-off", "precomputed", or "none"."""
        if self.algorithm not in REFERENCED:
            return "none"
        return self.reference or ("adapter-off" if self.lora_rank else "copy")

    @property
    def shared_critic(self) -> bool:
        """Whether the actor carries a value head."""
        return self.algorithm == "ppo" and self.critic == "shared"

    @property
    def rows(self) -> int:
        """Sequences that go through the policy together."""
        return self.batch_size * (2 if self.algorithm in PAIRWISE else 1)

    @property
    def scored(self) -> int:
        """Completion tokens of all rows, whose log-probabilities enter the loss."""
        return self.rows * min(self.completion_length or self.sequence_length, self.sequence_length - 1 or 1)

    def numerics(self, trained: bool) -> Numerics:
        """How a model of these settings computes; sharded fp32 weights are gathered, and computed, in bf16."""
        mixed = self.precision == "autocast"
        width = 2 if self.precision == "bf16" or (mixed and self.zero_stage == 3) else 4
        return Numerics(
            width=width,
            compute=2 if mixed else width,
            trained=trained,
            lora_rank=self.lora_rank if trained else None,
            adapter_width=4 if self.adapter_precision == "fp32" else 2,
            quantized=self.quantization is not None,
            eager=self.attention == "eager",
        )

    @property
    def width(self) -> int:
        """Bytes of a weight that is neither quantised nor an adapter's."""
        return 2 if self.precision == "bf16" else 4


@dataclass(frozen=True)
class SpeedSettings(Settings):
    """What `estimate_throughput` was asked: a step, the machines that run it, and how well they do."""

    gpu: str = "H100-80GB"
    gpus_per_node: int = 8
    accumulation: int = 1
    rollout_batch: int | None = None
    update_epochs: int = 1
    shared_prompt: bool = False
    utilization: float = 0.4
    bandwidth_utilization: float = 0.7
    link_utilization: float = 0.7
    overlap: float = 0.8

    def __post_init__(self):
        super().__post_init__()
        gpu_named(self.gpu)
        self._check_counts("gpus_per_node", "accumulation", "rollout_batch", "update_epochs")
        for name in ("utilization", "bandwidth_utilization", "link_utilization"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share of the datasheet's figure, in (0, 1]; got {getattr(self, name)}")
        if not 0 <= self.overlap <= 1:
            raise ValueError(f"overlap is the share of communication that can hide, in [0, 1]; got {self.overlap}")
        if self.shared_prompt and self.algorithm not in PAIRWISE:
            raise ValueError(f"{self.algorithm} has no pairs that share a prompt: leave shared_prompt out")
        if self.algorithm in ONLINE and self.reference == "precomputed":
            raise ValueError("samples are new each step, so their reference cannot be precomputed: reference='copy'")
        if self.algorithm in ONLINE and self.completion == self.sequence_length:
            raise ValueError("a rollout starts from a prompt: completion_length has to be under sequence_length")
        if self.algorithm not in ONLINE and (self.rollout_batch or self.update_epochs > 1):
            raise ValueError(f"{self.algorithm} has no rollouts: leave rollout_batch and update_epochs out")

    @property
    def machine(self) -> GPU:
        return gpu_named(self.gpu)

    @property
    def online(self) -> bool:
        return self.algorithm in ONLINE

    @property
    def completion(self) -> int:
        """Tokens of a completion: half of the sequence unless said."""
        return self.completion_length or max(1, self.sequence_length // 2)

    @property
    def prompt(self) -> int:
        return self.sequence_length - self.completion

    @property
    def decoded_together(self) -> int:
        """Sequences of one rollout batch on a GPU: all of a step unless said."""
        return min(self.rollout_batch or self.rows * self.accumulation, self.rows * self.accumulation)

    @property
    def compute(self) -> int:
        """Bytes of a number in matrix products."""
        return 4 if self.precision == "fp32" else 2


def _is_count(value) -> bool:
    real = isinstance(value, Real) and not isinstance(value, bool)
    return real and 1 <= value <= 1e12 and value == int(value)


@dataclass(frozen=True)
class Role:
    """One model of a pipeline: what it is called, its head, and whether it is trained."""

    name: str
    head: str
    trained: bool


def roles_of(settings: Settings) -> list[Role]:
    """The models of the pipeline, the trained one first."""
    algorithm = settings.algorithm
    if algorithm == "reward":
        return [Role("reward", "score", True)]
    roles = [Role("actor" if algorithm == "ppo" else "policy", "lm", True)]
    if algorithm == "ppo" and settings.critic == "separate":
        roles.append(Role("critic", "score", True))
    if algorithm in ONLINE and settings.reward_model:
        roles.append(Role("reward", "score", False))
    if settings.reference_kind == "copy":
        roles.append(Role("reference", "lm", False))
    return roles
