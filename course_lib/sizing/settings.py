"""The settings of a training step, and the models that a method holds.

Each field says what it means and what it may be: checks, the command line's options and widgets' menus read it there.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from numbers import Real

from course_lib.sizing.hardware import GPU, gpu_named

METHODS = ("sft", "reward", "dpo", "ipo", "kto", "simpo", "orpo", "ppo", "rloo", "grpo")
PAIRWISE = ("reward", "dpo", "ipo", "simpo", "orpo")
ONLINE = ("ppo", "rloo", "grpo")
REFERENCED = ("dpo", "ipo", "kto", *ONLINE)


def _choice(*choices, meaning: str):
    """A setting that is one of `choices`, the first unless said."""
    return field(default=choices[0], metadata={"choices": choices, "help": meaning})


def _count(default: int | None, meaning: str, none: str | None = None):
    """A whole number from 1 on, or None, which then means `none`."""
    return field(default=default, metadata={"count": True, "none": none, "help": meaning})


def _share(default: float, meaning: str):
    """A share between 0 and 1."""
    return field(default=default, metadata={"share": True, "help": meaning})


@dataclass(frozen=True)
class Numerics:
    """How a model is held and computed: bytes an element, what is trained, and how attention runs."""

    width: int = 2  # of weights outside the quantised ones, and of the residual stream
    compute: int = 2  # of matrix products: 2 under autocast
    trained: bool = True
    lora_rank: int | None = None
    adapter_width: int = 4
    quantization: str | None = None
    eager: bool = False
    masked: bool = False  # whether attention gets a mask tensor of the step's own

    @property
    def full(self) -> bool:
        """Whether all weights are trained."""
        return self.trained and self.lora_rank is None


@dataclass(frozen=True)
class Settings:
    """What `estimate_memory` was asked."""

    algorithm: str = field(metadata={"choices": METHODS, "help": "the method that trains"})
    precision: str = _choice("bf16", "fp32", "autocast", meaning="of weights that are not quantised")
    optimizer: str = _choice("adamw-fp32", "adamw", "adamw-master", "adamw-8bit", meaning="AdamW, by what it keeps")
    fused: bool = _choice(True, False, meaning="torch's own AdamW in one kernel")
    lora_rank: int | None = _count(None, "train adapters of this rank", none="to train all weights")
    adapter_precision: str = _choice("fp32", "bf16", meaning="of the adapters")
    quantization: str | None = _choice(
        None, "nf4", "int8", meaning="of frozen linear layers: 4 bits (QLoRA) or 8 (LLM.int8)"
    )
    reference: str | None = _choice(
        None, "copy", "adapter-off", "precomputed", meaning="where the reference's log-probabilities come from"
    )
    reference_order: str = _choice("after", "before", meaning="when it reads the batch, seen from the policy")
    gradient_checkpointing: bool = _choice(False, True, meaning="keep layers' inputs alone and compute the rest again")
    attention: str = _choice("flash", "sdpa", "eager", meaning="kernel: eager writes all scores out")
    batch_size: int = _count(1, "pairs, or sequences, of a micro-batch on a GPU")
    sequence_length: int = _count(1024, "tokens of prompt and completion")
    completion_length: int | None = _count(None, "tokens of the completion", none="for all tokens")
    shared_prompt: bool = _choice(False, True, meaning="whether a pair's prompt goes through once, not twice")
    logits: str = _choice("full", "completion", "chunked", meaning="of all tokens, of scored ones, or in pieces")
    critic: str = _choice("separate", "shared", meaning="PPO's: a model, or a head on the policy")
    reward_model: bool = _choice(True, False, meaning="whether online methods hold a reward model")
    zero_stage: int = _choice(0, 1, 2, 3, meaning="ZeRO: shard optimizer state (1), gradients (2), weights (3)")
    gpus: int = _count(1, "how many share the work by data parallelism")
    offload: str | None = _choice(None, "optimizer", "parameters", meaning="what rests in the CPU's memory")

    def __post_init__(self):
        for each in fields(self):
            _check(each.name, getattr(self, each.name), each.metadata)
        self._check_combination()

    def _check_combination(self) -> None:
        if self.quantization and self.lora_rank is None:
            raise ValueError("quantised weights cannot be trained: give lora_rank to train adapters on them (QLoRA)")
        if self.reference == "adapter-off" and self.lora_rank is None:
            raise ValueError("without adapters there are none to switch off: give lora_rank, or reference='copy'")
        if self.completion_length and self.completion_length > self.sequence_length:
            raise ValueError(
                f"a completion of {self.completion_length} tokens is longer than the sequence of prompt and "
                f"completion, {self.sequence_length}"
            )
        if self.shared_prompt and self.algorithm not in PAIRWISE:
            raise ValueError(f"{self.algorithm} has no pairs that share a prompt: leave shared_prompt out")
        if self.shared_prompt and self.prompt == 0:
            raise ValueError("without a prompt there is none to share: give a completion_length under sequence_length")
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
    def completion(self) -> int:
        """Tokens of a completion: all of the sequence unless said."""
        return self.completion_length or self.sequence_length

    @property
    def prompt(self) -> int:
        return self.sequence_length - self.completion

    @property
    def passed_rows(self) -> int:
        """Rows of tokens that go through a model together: sequences, or pairs behind their prompt."""
        return self.batch_size if self.shared_prompt else self.rows

    @property
    def passed_length(self) -> int:
        """Tokens of such a row; behind a shared prompt a completion's last token is predicted, and stands nowhere."""
        if not self.shared_prompt:
            return self.sequence_length
        return self.prompt + 2 * (self.completion if self.algorithm == "reward" else self.completion - 1)

    @property
    def scored(self) -> int:
        """Completion tokens of all sequences, whose log-probabilities enter the loss."""
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
            quantization=self.quantization,
            eager=self.attention == "eager",
            masked=self.shared_prompt,
        )

    @property
    def width(self) -> int:
        """Bytes of a weight that is neither quantised nor an adapter's."""
        return 2 if self.precision == "bf16" else 4


@dataclass(frozen=True)
class SpeedSettings(Settings):
    """What `estimate_throughput` was asked: a step, the machines that run it, and how well they do."""

    gpu: str = field(default="H100-80GB", metadata={"help": "a name in course_lib.sizing.GPUS"})
    gpus_per_node: int = _count(8, "GPUs in a node")
    accumulation: int = _count(1, "micro-batches of an optimiser step")
    rollout_batch: int | None = _count(None, "sequences a GPU decodes together", none="for all of a step")
    update_epochs: int = _count(1, "an online method's passes over each rollout")
    utilization: float = _share(0.4, "of the GPU's peak FLOP/s that passes reach")
    bandwidth_utilization: float = _share(0.7, "of the memory's bandwidth")
    link_utilization: float = _share(0.7, "of the links' bandwidth")
    overlap: float = field(default=0.8, metadata={"help": "share of communication that can hide behind passes"})

    def __post_init__(self):
        super().__post_init__()
        gpu_named(self.gpu)
        if not 0 <= self.overlap <= 1:
            raise ValueError(f"overlap is the share of communication that can hide, in [0, 1]; got {self.overlap}")
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
    def decoded_together(self) -> int:
        """Sequences of one rollout batch on a GPU: all of a step unless said."""
        return min(self.rollout_batch or self.rows * self.accumulation, self.rows * self.accumulation)

    @property
    def compute(self) -> int:
        """Bytes of a number in matrix products."""
        return 4 if self.precision == "fp32" else 2


def _check(name: str, value, metadata) -> None:
    """Refuse what a field's metadata do not allow."""
    choices = metadata.get("choices")
    if choices and not any(type(value) is type(choice) and value == choice for choice in choices):
        raise ValueError(f"{name} is one of {', '.join(map(repr, choices))}; got {value!r}")
    if "count" in metadata and not (_is_count(value) or (value is None and metadata["none"])):
        none = f", or None {metadata['none']}" if metadata["none"] else ""
        raise ValueError(f"{name} is a whole number, at least 1{none}; got {value!r}")
    if "share" in metadata and not 0 < value <= 1:
        raise ValueError(f"{name} is a share of the datasheet's figure, in (0, 1]; got {value}")


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


UNTIMED = ("fused", "reference_order", "offload")  # change a step's memory; the time estimate does not know them
OPTIONS = {each.name: each for each in fields(SpeedSettings)}
CHOICES = {name: each.metadata["choices"] for name, each in OPTIONS.items() if "choices" in each.metadata}
