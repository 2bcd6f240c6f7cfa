"""Policies, references and reward models. Third in the flow, beside `logprobs`; knows `world` for its checkpoints."""

from course_lib.models.loading import load_policy, load_reward_model, save_pretrained
from course_lib.models.reference import Reference, reference_of
from course_lib.models.reward import sequence_rewards

__all__ = [
    "Reference",
    "load_policy",
    "load_reward_model",
    "reference_of",
    "save_pretrained",
    "sequence_rewards",
]
