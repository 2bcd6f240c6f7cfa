"""Which setting each method gets; seeds 100 and 101, clean labels, tuning prompts; writes results/tuning.json.

python experiments/tuning.py --seeds 100 101        about 20 minutes a seed on one core, models included 30

Three rates times three strengths for every method, one order; see protocol.md. `TUNED` in
`course_lib/lessons/settings.py` holds the outcome, and a test compares the two.
"""

from __future__ import annotations

import argparse
import itertools
import json
from functools import partial
from statistics import fmean

import torch
from arms import train
from measures import DRAWS, by_kind, rounded
from online_arms import train as train_online
from results_io import FOLDER, add_seed
from seed_models import base_and_sft, strong_reward
from tqdm import tqdm

from course_lib import evaluation, world

GRID = {  # rates, and the strengths: what pulls towards the reference, or how long is trained
    "dpo": ([3e-5, 1e-4, 3e-4], "beta", [0.1, 0.3, 1.0]),
    "ipo": ([3e-5, 1e-4, 3e-4], "beta", [0.03, 0.1, 0.3]),
    "kto": ([1e-4, 3e-4, 1e-3], "beta", [0.1, 0.3, 1.0]),
    "simpo": ([3e-5, 1e-4, 3e-4], "beta", [1.0, 2.5, 6.0]),
    "cloned": ([1e-4, 3e-4, 1e-3], "epochs", [1, 2, 4]),
}
ONLINE = ("ppo", "rloo", "grpo", "online-dpo")  # on the seed's reward model; the strength is the price of a nat of KL
GRID |= {method: ([1e-4, 3e-4, 1e-3], "kl_coefficient", [0.1, 0.3, 1.0]) for method in ONLINE}
MOST_REFUSED = 0.2  # of the harmless requests; a setting that refuses more is not eligible


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 101])
    parser.add_argument("--methods", nargs="+", choices=GRID, default=list(GRID))
    options = parser.parse_args()
    for seed in options.seeds:
        _, sft, tokenizer = base_and_sft(seed)
        for method in options.methods:
            add_seed("tuning", {"seed": seed, method: grid(method, sft, tokenizer, seed)}, to_earlier=True)


def grid(method: str, sft, tokenizer, seed: int) -> dict[str, dict]:
    """Gold reward at temperature 1 and the harmless requests refused greedily, for each rate and strength."""
    rates, strength, values = GRID[method]
    found = {}
    for rate, value in tqdm(list(itertools.product(rates, values)), desc=f"seed {seed} {method}", mininterval=30):
        setting = {"learning_rate": rate, strength: value}
        if method in ONLINE:
            policy, _ = train_online(sft, tokenizer, seed, method, strong_reward(seed), **setting)
        else:
            policy, _ = train(sft, tokenizer, seed, 0, method=method, **setting)
        found[f"{rate:g} {value:g}"] = rounded(outcome(policy, tokenizer))
    return found


def outcome(policy, tokenizer) -> dict[str, float]:
    report = partial(evaluation.evaluate_gold, policy, tokenizer, world.prompts("tuning", 500))
    greedy, draws = report(), [report(temperature=1.0, seed=1 + i) for i in range(DRAWS)]
    return {
        "gold_sampled": fmean(draw.gold.mean() for draw in draws),
        "gold": greedy.gold.mean(),
        "harmless_refused": by_kind(greedy)["safe"]["refused"],
    }


def chosen() -> dict[str, dict]:
    """The setting of each method by the committed tables: the most gold reward among those that do not over-refuse."""
    seeds = json.loads((FOLDER / "tuning.json").read_text())["seeds"]
    return {method: _best(method, [seed[method] for seed in seeds]) for method in GRID}


def _best(method: str, tables: list[dict]) -> dict:
    def mean(setting: str, figure: str) -> float:
        return fmean(table[setting][figure] for table in tables)

    fit = [s for s in tables[0] if mean(s, "harmless_refused") <= MOST_REFUSED]
    best = max(fit, key=lambda s: mean(s, "gold_sampled")) if fit else min(
        tables[0], key=lambda s: mean(s, "harmless_refused")
    )  # fmt: skip
    rate, value = map(float, best.split())
    strength = GRID[method][1]
    return {"learning_rate": rate, strength: int(value) if strength == "epochs" else value}


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
