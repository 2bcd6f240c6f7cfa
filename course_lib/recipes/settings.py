"""What a recipe may say: each setting with its default, what it means, and what it may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields

from course_lib.sizing.hardware import GPUS, gpu_named
from course_lib.trainers import TrainingConfig
from course_lib.trainers.config import Checked, count, flag, number, one_of, optional, setting

STRATEGIES = {  # Accelerate's config in `strategies`: ZeRO's stage, and what rests in the CPU's memory
    "single": (0, None),
    "ddp": (0, None),
    "zero2": (2, None),
    "zero2-offload": (2, "optimizer"),
    "zero3": (3, None),
    "zero3-offload": (3, "parameters"),
}


def _text(value) -> str:
    return "" if isinstance(value, str) and value.strip() else "text"


def _texts(value) -> str:
    return "" if isinstance(value, (list, tuple)) and value and not any(map(_text, value)) else "a list of texts"


def _renamed(value) -> str:
    fits = isinstance(value, Mapping) and not any(map(_text, [*value.keys(), *value.values()]))
    return "" if fits else "a table of names there to names here, such as {question: prompt}"


def _filters(value) -> str:
    return "" if isinstance(value, Mapping) else "a table of filters"


def _gpu(value) -> str:
    try:
        gpu_named(value)
        return ""
    except ValueError:
        return f"one of {', '.join(GPUS)}"


@dataclass
class ModelSettings(Checked):
    """Where training starts, and which weights move: as in `load_policy`."""

    name: str = setting("pocket-world-sft", _text, "a shipped model, smollm2, a folder, or a name on the hub")
    revision: str | None = setting(None, optional(_text), "branch, tag or commit of a model on the hub")
    architecture: str | None = setting(
        None, optional(_text), "the calculators' name for it, where its config is not at hand, such as llama-3-8b"
    )
    dtype: str | None = setting(
        None, optional(one_of("fp32", "bf16")), "of the weights; None: fp32, for LoRA on a GPU bf16"
    )
    lora_rank: int | None = setting(None, optional(count()), "train adapters of this rank; None: all weights")
    lora_alpha: float | None = setting(None, optional(number(above=0)), "adapters' scale; None: twice the rank")
    lora_targets: list[str] | None = setting(None, optional(_texts), "layers with adapters; None: all linear ones")
    quantization: str | None = setting(None, optional(one_of("nf4", "int8")), "of frozen weights (QLoRA)")
    attention: str | None = setting(None, optional(_text), "sdpa, eager, flash_attention_2; None: the model's choice")


@dataclass
class DataSettings(Checked):
    """What is trained on, and what is held out of training to be looked at: as in `load_records`."""

    source: str = setting("pocket-world", _text, "pocket-world, a file, or a data set's name on the hub")
    subset: str | None = setting(None, optional(_text), "a configuration of a hub data set, or a folder in it")
    split: str = setting("train", _text, "of a data set; train[:90%] and train[1000:2000] take a part")
    limit: int | None = setting(None, optional(count()), "take so many rows; None: all (of pocket-world 4,000)")
    held_out_split: str | None = setting(None, optional(_text), "where held-out rows come from; None: there are none")
    held_out_limit: int | None = setting(None, optional(count()), "take so many of them")
    columns: dict[str, str] | None = setting(None, optional(_renamed), "{name in the data: name here}")
    filters: dict | None = setting(None, optional(_filters), "what is left out, such as {drop_ties: true}")
    shuffle: bool = setting(False, flag, "shuffle rows before the limit")
    seed: int = setting(0, count(0), "of the shuffling, and of Pocket World's draw")
    turns: str = setting("last", one_of("last", "all"), "of dialogues for SFT: the answers that are trained on")
    streaming: bool = setting(False, flag, "read rows from the hub as they come; needs a limit")


@dataclass
class RewardPart(Checked):
    """One part of an online method's reward: a model's or a function's, times its weight."""

    model: str | None = setting(None, optional(_text), "a reward model: shipped, a folder, or a name on the hub")
    function: str | None = setting(
        None, optional(_text), "gold (Pocket World's true one), or FILE.py:NAME, yours: (prompts, completions) to (B,)"
    )
    weight: float = setting(1.0, number(), "how much it counts")

    def __post_init__(self):
        super().__post_init__()
        if (self.model is None) == (self.function is None):
            raise ValueError("a part of the reward is either a model or a function: give one of them")


@dataclass
class EvaluationSettings(Checked):
    """What is looked at beside the loss: greedy answers to held-out prompts, before, during and after training."""

    prompts: int = setting(100, count(0), "held-out prompts answered before and after training; 0: none")
    judge: str | None = setting(
        None, optional(_text), "what scores the answers: gold, FILE.py:NAME, or a reward model's name; None: nothing"
    )
    max_new_tokens: int = setting(48, count(), "where an answer is cut off")
    samples: int = setting(4, count(0), "prompts whose answers are kept to be read, in samples.jsonl")
    every: int | None = setting(None, optional(count()), "steps between such samples; None: at the end alone")


@dataclass
class HardwareSettings(Checked):
    """What it is meant to run on. The dry run reckons with it, and several GPUs are started through Accelerate."""

    gpu: str | None = setting(None, optional(_gpu), "a GPU's name, as in `course vram`; None: this machine's")
    gpus: int = setting(1, count(), "how many, in all nodes together")
    gpus_per_node: int = setting(8, count(), "GPUs in a node")
    strategy: str = setting("single", one_of(*STRATEGIES), "how they share the work; see docs/scaling.md")

    def __post_init__(self):
        super().__post_init__()
        if (self.strategy == "single") != (self.gpus == 1) and "offload" not in self.strategy:
            raise ValueError(
                f"strategy {self.strategy!r} does not go with gpus={self.gpus}: one GPU is 'single' (or offloads), and "
                f"several take one of {', '.join(list(STRATEGIES)[1:])}"
            )


@dataclass
class PlanSettings(Checked):
    """What a dry run reckons with where the data are not at hand, and what it found: held by a test."""

    rows: int | None = setting(None, optional(count()), "rows of the data")
    tokens: int | None = setting(None, optional(count()), "of a row's prompt and completion, on average")
    completion_tokens: int | None = setting(None, optional(count()), "of them in the completion")
    memory_gb: float | None = setting(None, optional(number(above=0)), "predicted peak on each GPU, GB")
    hours: float | None = setting(None, optional(number(above=0)), "predicted time")


@dataclass
class Recipe:
    """One run. `training` is the method's own config; `reward` has parts by name, for online methods alone."""

    name: str
    about: str
    method: str
    output: str
    trackers: list[str]
    training: TrainingConfig
    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    reward: dict[str, RewardPart] = field(default_factory=dict)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    hardware: HardwareSettings = field(default_factory=HardwareSettings)
    plan: PlanSettings = field(default_factory=PlanSettings)

    def to_dict(self) -> dict:
        """The recipe in full, as plain values; reading it again gives the same recipe."""
        found = {name: getattr(self, name) for name in ("about", "method", "output", "trackers")}
        found |= {"model": self.model.to_dict(), "data": self.data.to_dict()}
        if self.reward:
            found["reward"] = {name: part.to_dict() for name, part in self.reward.items()}
        found["training"] = {k: v for k, v in self.training.to_dict().items() if k not in GIVEN_BY_THE_RUN}
        return found | {name: getattr(self, name).to_dict() for name in ("evaluation", "hardware", "plan")}


GIVEN_BY_THE_RUN = ("checkpoint_folder", "loss")  # of a config: the run's folder and the method say them
SECTIONS: dict[str, Callable] = {
    "model": ModelSettings,
    "data": DataSettings,
    "evaluation": EvaluationSettings,
    "hardware": HardwareSettings,
    "plan": PlanSettings,
}


def keys_of(config: type[Checked]) -> dict[str, str]:
    """The settings of a section, each with its help."""
    return {known.name: known.metadata["help"] for known in fields(config) if known.name not in GIVEN_BY_THE_RUN}
