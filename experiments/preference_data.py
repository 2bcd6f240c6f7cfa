"""Lesson 02: pairs, noise and filters of preference data, over seeds; writes results/preference_data.json.

python experiments/preference_data.py --seeds 0 1 2 3 4      about 5 minutes a seed on one core

- "reward": reward models on so many pairs, two epochs, and on 2,000 with 30% of the labels flipped: the share of
  held-out labels that they predict, and of pairs with one right reply that they rank rightly;
- "dpo": DPO on 2,000 pairs that a filter leaves, the first ones that come.
"""

from __future__ import annotations

import argparse

import torch
from arms import PAIRS, measured
from measures import rounded
from results_io import add_seed
from seed_models import FOLDER, base_and_sft
from tqdm import tqdm

from course_lib import evaluation, rewards, world
from course_lib import shipped_models as recipe
from course_lib.data import same_length, shared_words

SIZES = {"500": {"size": 500}, "1000": {"size": 1000}, "2000": {"size": 2000}}
SIZES |= {"2000, noisy": {"size": 2000, "label_noise": 0.3}}
DRAWN = 12_000  # pairs from which filters choose
FILTERS = {
    "any": lambda pair: True,
    "different words": lambda pair: shared_words(pair) < 0.5,
    "other length": lambda pair: not same_length(pair),
    "similar words": lambda pair: shared_words(pair) >= 0.5,
    "different meaning": lambda pair: meaning(pair["chosen"]) != meaning(pair["rejected"]),
}
SHOW = {"prompts": 500, "draws": 2, "knows": False}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--parts", nargs="+", choices=("dpo", "reward"), default=["dpo", "reward"])
    options = parser.parse_args()
    for seed in options.seeds:
        _, sft, tokenizer = base_and_sft(seed)
        if "dpo" in options.parts:
            filtered(sft, tokenizer, seed)
        for name, how in tqdm(SIZES.items() if "reward" in options.parts else (), desc=f"seed {seed} reward"):
            found = accuracies(recipe.train_reward(FOLDER / str(seed) / "sft", seed, progress=False, **how), tokenizer)
            add_seed("preference_data", {"seed": seed, "reward": {name: found}}, to_earlier=True)


def filtered(sft, tokenizer, seed: int) -> None:
    drawn = world.preference_records(DRAWN, seed=seed)
    kept = {name: list(filter(keep, drawn)) for name, keep in FILTERS.items()}
    shares = rounded({name: len(pairs) / DRAWN for name, pairs in kept.items()})
    arms = {name: {"records": pairs[:PAIRS]} for name, pairs in kept.items()}
    found = measured(arms, sft, sft, tokenizer, seed, orders=1, **SHOW)
    add_seed("preference_data", {"seed": seed, "kept": shares, "dpo": found}, to_earlier=True)


def meaning(reply: list[dict]) -> tuple:
    """What a reply says, however it is worded: its answers, whether it refuses, whether it does not know."""
    parsed = world.parse(reply[-1]["content"])
    return set(parsed.answers), parsed.refuses, parsed.has("unknown")


def accuracies(model, tokenizer) -> dict[str, float]:
    """Shares of held-out labels that a reward model predicts, and of right replies that it ranks above wrong ones."""
    score = rewards.learned_reward(model, tokenizer)
    tests = {"labels": world.preference_records(1000, split="test", seed=99)}
    tests |= {kind: world.right_or_wrong_pairs(300, kind=kind) for kind in ("fact", "larger", "safe", "unsafe")}
    return rounded({name: evaluation.reward_report(score, pairs).right.mean() for name, pairs in tests.items()})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
