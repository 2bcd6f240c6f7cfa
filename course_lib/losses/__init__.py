"""Pure tensor functions, one file a family; they see log-probabilities and rewards, never a model."""

from course_lib.losses.kto import kto_kl_baseline, kto_loss
from course_lib.losses.policy_gradient import (
    generalized_advantage_estimate,
    grpo_advantages,
    grpo_loss,
    kl_estimate,
    kl_shaped_rewards,
    ppo_policy_loss,
    ppo_value_loss,
    rloo_advantages,
    whiten,
)
from course_lib.losses.preference import dpo_loss, implicit_reward, ipo_loss, length_dpo_loss, robust_dpo_loss
from course_lib.losses.reference_free import orpo_loss, simpo_loss
from course_lib.losses.reward import bradley_terry_loss
from course_lib.losses.sft import sft_loss

__all__ = [
    "bradley_terry_loss",
    "dpo_loss",
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
    "orpo_loss",
    "ppo_policy_loss",
    "ppo_value_loss",
    "rloo_advantages",
    "robust_dpo_loss",
    "sft_loss",
    "simpo_loss",
    "whiten",
]
