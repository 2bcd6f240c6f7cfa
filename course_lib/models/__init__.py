"""Policies, references and reward models. Third in the flow, beside `logprobs`; knows `world` for its checkpoints."""

from course_lib.models.critic import Critic, ValueHead, critic_of, value_head_of
from course_lib.models.loading import folder_or_name, load_policy, load_reward_model
from course_lib.models.reference import Reference, reference_of
from course_lib.models.reward import packed_rewards, pair_rewards, sequence_rewards, why_rewards_not_shared
from course_lib.models.saving import save_pretrained
from course_lib.models.smollm2 import FetchError, fetch_smollm2, smollm2_folder
from course_lib.models.vocabulary import pad_id, refuse_unknown_ids

__all__ = [
    "Critic",
    "FetchError",
    "Reference",
    "ValueHead",
    "critic_of",
    "fetch_smollm2",
    "folder_or_name",
    "load_policy",
    "load_reward_model",
    "packed_rewards",
    "pad_id",
    "pair_rewards",
    "reference_of",
    "refuse_unknown_ids",
    "save_pretrained",
    "sequence_rewards",
    "smollm2_folder",
    "value_head_of",
    "why_rewards_not_shared",
]
