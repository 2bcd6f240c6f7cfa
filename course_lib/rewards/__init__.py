"""Reward functions: `(prompts, completions)` to a tensor (B,). Pocket World's true one is `world.gold_reward`.

`learned` asks a trained reward model, `combined` makes one reward of several, `judge` asks a language model in words.
Imports data, logprobs and models; whoever trains or evaluates passes reward functions on.
"""

from course_lib.rewards.combined import disagreement, ensemble_reward, weighted_reward
from course_lib.rewards.judge import Judge, judged_pairs
from course_lib.rewards.learned import RewardFunction, learned_reward

__all__ = [
    "Judge",
    "RewardFunction",
    "disagreement",
    "ensemble_reward",
    "judged_pairs",
    "learned_reward",
    "weighted_reward",
]
