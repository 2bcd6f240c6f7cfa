"""An online arm: a policy trained on its own samples with some reward. Equal samples for all: 60 rounds of 96.

`train` gives the policy and its curve: for every fifth round the reward that training saw, the distance from the start,
and the gold reward of the same samples, which training did not see.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

from course_lib import world
from course_lib.lessons.settings import TUNED
from course_lib.trainers import (
    GroupConfig,
    GroupTrainer,
    OnlinePreferenceConfig,
    OnlinePreferenceTrainer,
    Part,
    PPOConfig,
    PPOTrainer,
)

ROUNDS, SAMPLES, GROUP = 60, 96, 4
PROMPTS = 2_400  # of the training split, none with a label; a pass over them is 25 rounds of PPO
PAIRS_AT_ONCE = ROUNDS * SAMPLES // GROUP  # the prompts of "bon-dpo": all samples are drawn before the first step
COMMON = {"max_new_tokens": 48, "progress": False, "log_every": 1}
MAKE = {  # the trainer, and a config without the settings that are tuned
    "ppo": (PPOTrainer, PPOConfig(**COMMON, prompts_per_rollout=SAMPLES, batch_size=SAMPLES // 4)),
    "rloo": (GroupTrainer, GroupConfig(**COMMON, loss="rloo", prompts_per_rollout=SAMPLES // GROUP)),
    "grpo": (GroupTrainer, GroupConfig(**COMMON, loss="grpo", prompts_per_rollout=SAMPLES // GROUP)),
    "online-dpo": (
        OnlinePreferenceTrainer,
        OnlinePreferenceConfig(**COMMON, prompts_per_rollout=SAMPLES // GROUP, batch_size=SAMPLES // GROUP),
    ),
    "bon-dpo": (
        OnlinePreferenceTrainer,
        OnlinePreferenceConfig(**COMMON, prompts_per_rollout=PAIRS_AT_ONCE, batch_size=SAMPLES // GROUP),
    ),
}


class Watch(Part):
    """The samples of every fifth round, by the reward of training and by the true one."""

    def __init__(self, trainer, every: int = 5):
        self.trainer, self.every = trainer, every
        self.rounds, self.seen, self.rows = 0, None, []

    def after_step(self, run) -> None:
        rollout = self.trainer.rollout
        if rollout is self.seen:
            return
        self.seen, self.rounds = rollout, self.rounds + 1
        if self.rounds % self.every == 1:
            gold = world.gold_reward(rollout.prompts, [world.assistant(text) for text in rollout.texts])
            found = self.trainer.of_rollout
            self.rows.append(
                {
                    "round": self.rounds,
                    "score": found["objective/scores"],
                    "kl": found["objective/kl"],
                    "gold": gold.mean().item(),
                    "tokens": found["val/length"],
                }
            )


def train(
    start, tokenizer, seed: int, method: str, reward: Callable, *, rounds: int = ROUNDS, **changes
) -> tuple[object, list[dict]]:
    """`(policy, curve)`: a copy of `start`, trained by a method at its tuned setting, with `changes` to its config.

    `rounds` are rounds of 96 samples, whatever the changes make of a round.
    """
    kind, config = MAKE[method]
    tuned = TUNED.get("online-dpo" if method == "bon-dpo" else method, {})
    policy, prompts = copy.deepcopy(start), [{"prompt": p} for p in world.prompts("train", PROMPTS, seed=seed)]
    trainer = kind(policy, tokenizer, prompts, replace(config, seed=10 * seed, **tuned | changes), reward=reward)
    asked = rounds * SAMPLES // trainer.config.completions
    trainer.config.epochs = asked / min(PROMPTS, len(prompts))
    watch = Watch(trainer)
    trainer.train(parts=[watch])
    return policy, watch.rows
