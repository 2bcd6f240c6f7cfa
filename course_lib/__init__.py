"""Aligning language models: losses, trainers and a world to try them in. The flow is

    records -> batches -> log-probs -> losses -> trainers -> metrics -> figures

and imports run along it, never back.
"""

from course_lib.data import load_records
from course_lib.logprobs import completion_logps, sequence_logps
from course_lib.losses import (
    bradley_terry_loss,
    dpo_loss,
    generalized_advantage_estimate,
    grpo_advantages,
    grpo_loss,
    implicit_reward,
    ipo_loss,
    kl_estimate,
    kl_shaped_rewards,
    kto_kl_baseline,
    kto_loss,
    length_dpo_loss,
    orpo_loss,
    ppo_policy_loss,
    ppo_value_loss,
    rloo_advantages,
    robust_dpo_loss,
    sft_loss,
    simpo_loss,
    whiten,
)
from course_lib.memory import estimate_memory, estimate_throughput
from course_lib.models import load_policy, load_reward_model, reference_of
from course_lib.rollouts import sample
from course_lib.trainers import (
    History,
    KTOConfig,
    KTOTrainer,
    PreferenceConfig,
    PreferenceTrainer,
    RewardTrainer,
    SFTTrainer,
    TrainingConfig,
    TrainingError,
)

__version__ = "0.1.0"

__all__ = [
    "History",
    "KTOConfig",
    "KTOTrainer",
    "PreferenceConfig",
    "PreferenceTrainer",
    "RewardTrainer",
    "SFTTrainer",
    "TrainingConfig",
    "TrainingError",
    "bradley_terry_loss",
    "completion_logps",
    "dpo_loss",
    "estimate_memory",
    "estimate_throughput",
    "generalized_advantage_estimate",
    "grpo_advantages",
    "grpo_loss",
    "implicit_reward",
    "ipo_loss",
    "kl_estimate",
    "kl_shaped_rewards",
    "kto_kl_baseline",
    "kto_loss",
    "length_dpo_loss",
    "load_policy",
    "load_records",
    "load_reward_model",
    "orpo_loss",
    "ppo_policy_loss",
    "ppo_value_loss",
    "reference_of",
    "rloo_advantages",
    "robust_dpo_loss",
    "sample",
    "sequence_logps",
    "sft_loss",
    "simpo_loss",
    "whiten",
]
