"""Lesson 08: which settings matter, PPO's and DPO's, over seeds; writes results/sensitivity.json.

python experiments/sensitivity.py --seeds 0 1 2 3 4      about 7 minutes a seed on one core

Every arm changes one setting of the tuned run by a factor of three, or to the next usual value where a factor makes no
sense. PPO: 20 rounds of 96 on three times the true reward (the scale of people's choices), so that no fault of a reward
model is mixed in. DPO: 2,000 pairs.
"""

from __future__ import annotations

import argparse

import online_arms
import torch
from arms import train as train_dpo
from measures import DRAWS, kl, rounded
from results_io import add_seed
from seed_models import base_and_sft
from tqdm import tqdm

from course_lib import evaluation, rewards, world
from course_lib.lessons.settings import LABELS_SCALE, TUNED

PPO, DPO = TUNED["ppo"], TUNED["dpo"]
RATE, PRICE = PPO["learning_rate"], PPO["kl_coefficient"]
ROUNDS, SAMPLES = 20, online_arms.SAMPLES
ARMS = {  # method -> setting -> the arms that change it
    "ppo": {
        "": [{}],
        "learning rate": [{"learning_rate": 3 * RATE, "critic_learning_rate": 5 * RATE},
                          {"learning_rate": RATE / 3, "critic_learning_rate": 5 * RATE}],
        "critic's learning rate": [{"critic_learning_rate": 15 * RATE}, {"critic_learning_rate": 5 * RATE / 3}],
        "price of distance": [{"kl_coefficient": 3 * PRICE}, {"kl_coefficient": PRICE / 3}],
        "clip": [{"clip_range": 0.6}, {"clip_range": 0.2 / 3}],
        "lambda": [{"lam": 1.0}, {"lam": 0.8}],
        "gamma": [{"gamma": 0.95}],
        "passes over a rollout": [{"update_epochs": 3}],
        "minibatch": [{"batch_size": SAMPLES}, {"batch_size": SAMPLES // 12}],
        "prompts in a rollout": [{"prompts_per_rollout": SAMPLES // 3, "batch_size": SAMPLES // 12}],
        "critic's clip": [{"value_clip_range": 0.3}],
        "weight of the critic's loss": [{"value_coefficient": 1.5}],
        "norm of gradients": [{"max_grad_norm": 1 / 3}],
        "temperature": [{"temperature": 0.7}],
        "entropy bonus": [{"entropy_coefficient": 0.03}],
        "whitening": [{"whiten_advantages": False}],
    },
    "dpo": {
        "": [{}],
        "learning rate": [{"learning_rate": 3 * DPO["learning_rate"]}, {"learning_rate": DPO["learning_rate"] / 3}],
        "beta": [{"beta": 3 * DPO["beta"]}, {"beta": DPO["beta"] / 3}],
        "epochs": [{"epochs": 3}],
        "batch": [{"batch_size": 96}, {"batch_size": 11}],
        "norm of gradients": [{"max_grad_norm": 1 / 3}],
        "warm-up": [{"warmup_ratio": 0.3}],
    },
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    options = parser.parse_args()
    for seed in options.seeds:
        _, sft, tokenizer = base_and_sft(seed)
        for method, settings in ARMS.items():
            for setting, arms in tqdm(settings.items(), desc=f"seed {seed} {method}", mininterval=30):
                found = [outcome(train(sft, tokenizer, seed, method, arm), sft, tokenizer) for arm in arms]
                row = {setting or "tuned": dict(zip(map(_name, arms), found, strict=True))}
                add_seed("sensitivity", {"seed": seed, method: row}, to_earlier=True)


def train(sft, tokenizer, seed: int, method: str, changes: dict):
    if method == "dpo":
        return train_dpo(sft, tokenizer, seed, 0, **changes)[0]
    reward = rewards.weighted_reward({"gold": (LABELS_SCALE, world.gold_reward)})
    return online_arms.train(sft, tokenizer, seed, method, reward, rounds=ROUNDS, **changes)[0]


def _name(arm: dict) -> str:
    return ", ".join(f"{key} {value:g}" for key, value in arm.items()) or "as it is"


def outcome(policy, sft, tokenizer) -> dict:
    asked = world.prompts("test", 500)
    drawn = [evaluation.evaluate_gold(policy, tokenizer, asked, temperature=1.0, seed=1 + i) for i in range(DRAWS)]
    greedy = evaluation.evaluate_gold(policy, tokenizer, asked)
    return rounded(
        {
            "gold_sampled": sum(report.gold.mean() for report in drawn) / DRAWS,
            "gold": greedy.gold.mean(),
            "kl": kl(policy, sft, tokenizer, asked, drawn[0].text),
        }
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
