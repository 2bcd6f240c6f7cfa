"""Online methods on a learned reward, over seeds, for lessons 08 to 10; writes results/online.json.

python experiments/online.py --seeds 0 1 2 3 4        about 15 minutes a seed on one core
python experiments/online.py --arms ppo rloo          these alone, added to what was measured before

Models and pairs are those of the seed; what is measured, and how it is judged, stands in protocol.md.
"""

from __future__ import annotations

import argparse
import time

import torch
from measures import by_kind, describe, rounded
from online_arms import train
from pocket_world import misconceptions_right
from results_io import add_seed
from seed_models import base_and_sft, strong_reward, weak_rewards
from tqdm import tqdm

from course_lib import evaluation, rewards, sample, world

FREE = {"kl_coefficient": 1e-9}  # as good as 0, with which no reference would be held to measure the distance by
ARMS = {  # method, which reward, and what is changed of the tuned setting
    "ppo": ("ppo", "strong", {}),
    "ppo, shared critic": ("ppo", "strong", {"critic": "shared"}),
    "rloo": ("rloo", "strong", {}),
    "grpo": ("grpo", "strong", {}),
    "online-dpo": ("online-dpo", "strong", {}),
    "bon-dpo": ("bon-dpo", "strong", {}),
    "weak": ("ppo", "weak", {}),
    "weak, free": ("ppo", "weak", FREE),
    "ensemble, free": ("ppo", "ensemble", FREE),
    "gold, free": ("ppo", "gold", FREE),
}
SHOW = {"prompts": 500, "knows": False, "unseen": ["act"]}
BEST_OF = (2, 4, 8, 16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="run these alone")
    options = parser.parse_args()
    for seed in options.seeds:
        _, sft, tokenizer = base_and_sft(seed)
        scores = reward_functions(seed)
        start = describe(sft, sft, tokenizer, **SHOW) | {"proxy": proxies(sft, tokenizer, scores)}
        add_seed("online", {"seed": seed, "sft": rounded(start)}, to_earlier=True)
        add_seed("online", {"seed": seed, "best_of": best_of(sft, tokenizer, scores)}, to_earlier=True)
        for name in tqdm(options.arms, desc=f"seed {seed}", mininterval=30):
            add_seed("online", {"seed": seed, name: arm(name, sft, tokenizer, seed, scores)}, to_earlier=True)


def reward_functions(seed: int) -> dict:
    weak = weak_rewards(seed)
    return {
        "strong": strong_reward(seed),
        "weak": weak[0],
        "ensemble": rewards.ensemble_reward(weak, combine="minimum"),
        "gold": world.gold_reward,
    }


def arm(name: str, sft, tokenizer, seed: int, scores: dict) -> dict:
    method, reward, changes = ARMS[name]
    began = time.process_time()
    policy, curve = train(sft, tokenizer, seed, method, scores[reward], **changes)
    seconds = time.process_time() - began
    found = describe(policy, sft, tokenizer, **SHOW) | {"proxy": proxies(policy, tokenizer, scores)}
    right = {where: shares["policy"] for where, shares in misconceptions_right({"policy": policy}, tokenizer).items()}
    curve = [{key: round(value, 4) for key, value in row.items()} for row in curve]
    return rounded(found | {"cpu_seconds": seconds, "misconceptions_right": right}) | {"curve": curve}


def proxies(policy, tokenizer, scores: dict) -> dict[str, float]:
    """The mean of each reward over one sample for each of 500 test prompts."""
    asked = world.prompts("test", SHOW["prompts"])
    said = [world.assistant(text) for text in sample(policy, tokenizer, asked, temperature=1.0, seed=1)]
    return {name: score(asked, said).mean().item() for name, score in scores.items()}


def best_of(sft, tokenizer, scores: dict) -> dict:
    """For the strong and the weak reward, the reply that it likes best among n: its reward, the true one, and kinds."""
    asked = world.prompts("test", SHOW["prompts"])
    drawn = [sample(sft, tokenizer, asked, temperature=1.0, seed=1 + i) for i in range(max(BEST_OF))]
    found = {}
    for name in ("strong", "weak"):
        table = torch.stack([scores[name](asked, [world.assistant(text) for text in texts]) for texts in drawn])
        for n in BEST_OF:
            best = table[:n].argmax(dim=0).tolist()
            report = evaluation.gold_report(asked, [drawn[d][i] for i, d in enumerate(best)])
            row = {"proxy": table[:n].max(dim=0).values.mean(), "gold_sampled": report.gold.mean()}
            found.setdefault(name, {})[str(n)] = rounded(row | {"kinds_sampled": by_kind(report)})
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
