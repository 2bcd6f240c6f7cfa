"""What each method of a recipe is: its trainer, the records that it takes, and how the calculators know it."""

from __future__ import annotations

from dataclasses import dataclass, field

from course_lib.sizing.settings import METHODS as COUNTED
from course_lib.trainers import (
    GroupTrainer,
    KTOTrainer,
    OnlinePreferenceTrainer,
    OnlineTrainer,
    PPOTrainer,
    PreferenceTrainer,
    RewardTrainer,
    SFTTrainer,
    Trainer,
    TrainingConfig,
)
from course_lib.trainers.online_preference import PAIRED
from course_lib.trainers.preference import METHODS as PAIR_LOSSES


@dataclass(frozen=True)
class MethodKind:
    """A trainer, the arguments that make it this method, and the method's name to `estimate_memory`."""

    trainer: type[Trainer]
    estimated_as: str
    arguments: dict[str, str] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)  # of its config, given by the method's name

    @property
    def config(self) -> type[TrainingConfig]:
        return self.trainer.config_class

    @property
    def records(self) -> str:
        return self.trainer.record_kind

    @property
    def online(self) -> bool:
        return issubclass(self.trainer, OnlineTrainer)


METHOD_KINDS = {
    "sft": MethodKind(SFTTrainer, "sft"),
    "reward": MethodKind(RewardTrainer, "reward"),
    **{name: MethodKind(PreferenceTrainer, name if name in COUNTED else "dpo", {"loss": name}) for name in PAIR_LOSSES},
    "kto": MethodKind(KTOTrainer, "kto"),
    "ppo": MethodKind(PPOTrainer, "ppo"),
    "grpo": MethodKind(GroupTrainer, "grpo", settings={"loss": "grpo"}),
    "rloo": MethodKind(GroupTrainer, "rloo", settings={"loss": "rloo"}),
    # its models are those of RLOO, and so is its step but for the loss: two completions of a prompt, a reference
    **{f"online-{name}": MethodKind(OnlinePreferenceTrainer, "rloo", {"loss": name}) for name in PAIRED},
}
