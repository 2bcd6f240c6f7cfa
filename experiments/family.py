"""Lesson 06: the whole family on clean, noisy and length-biased labels, over seeds; writes results/family.json.

python experiments/family.py --tune             learning rates, one seed, tuning prompts; about 20 minutes
python experiments/family.py --seeds 0 1 2      about 15 minutes a seed on one core
python experiments/family.py --methods orpo     these alone, added to what was measured before

Every arm starts from the SFT model that `pocket_world.py` left in its folder. The learning rate of each method is the
one that did best on the tuning prompts with clean labels; the same is used under noise, as one would not know.
Variants of DPO use DPO's. What no one would know in practice is given to those that ask for it: cDPO and robust DPO
get the true share of flipped labels, length-DPO the true liking for length. KTO gets a thumb for each response.

"dpo-mean" is DPO on means over tokens, at ten times the beta, about the tokens of a reply: it differs from "dpo" in the
normalisation alone, where SimPO differs in reference, margin and learning rate too.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path

import torch
from measures import describe
from results_io import FOLDER, add_seed
from tqdm import tqdm

from course_lib import load_policy, world
from course_lib.lessons.settings import DPO_PAIRS, LENGTH_BIAS, dpo_config, kto_config
from course_lib.trainers import KTOTrainer, PreferenceTrainer

NOISE = 0.3
PAIRS = DPO_PAIRS // 2
METHODS = {
    "dpo": {"beta": 0.3},
    "dpo-mean": {"beta": 3.0, "average": True},
    "cdpo": {"beta": 0.3, "label_smoothing": NOISE},
    "robust": {"beta": 0.3, "label_smoothing": NOISE},
    "ipo": {"beta": 0.1},
    "kto": {"beta": 0.3},
    "simpo": {"beta": 2.0, "gamma": 1.0},
    "orpo": {"beta": 0.3},
    "length-dpo": {"beta": 0.3, "length_penalty": LENGTH_BIAS},
}
RATES = [3e-5, 1e-4, 3e-4, 1e-3, 3e-3]
LABELS = {"clean": {}, "noisy": {"label_noise": NOISE}, "long": {"length_bias": LENGTH_BIAS}}
ARMS = {
    "clean": ("dpo", "dpo-mean", "ipo", "kto", "simpo", "orpo"),
    "noisy": ("dpo", "cdpo", "robust", "ipo", "kto", "simpo", "orpo"),
    "long": ("dpo", "dpo-mean", "ipo", "kto", "simpo", "length-dpo"),
}
TUNED = ("dpo", "ipo", "kto", "simpo", "orpo")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="run these alone")
    parser.add_argument("--tune", action="store_true", help="choose the learning rates and stop")
    parser.add_argument("--models", type=Path, default=Path("runs/pocket_world"))
    options = parser.parse_args()
    if options.tune:
        tune(options.models / "0")
        return
    for seed in options.seeds:
        result = one_seed(seed, options.models / str(seed), options.methods or list(METHODS))
        add_seed("family", result, to_earlier=bool(options.methods))


def tune(folder: Path) -> None:
    sft, tokenizer = load_policy(str(folder / "sft"))
    found = {}
    for method in tqdm(TUNED, desc="methods"):
        gold = {}
        for rate in RATES:
            policy = train(method, sft, tokenizer, 0, "clean", learning_rate=rate)
            gold[rate] = describe(policy, sft, tokenizer, prompts=300, split="tuning")["gold"]
        found[method] = {"rates": gold, "best": max(gold, key=gold.get)}
    (FOLDER / "family_tuning.json").write_text(json.dumps(found, indent=1) + "\n")


def best_rate(method: str) -> float:
    tuned = json.loads((FOLDER / "family_tuning.json").read_text())
    return float(tuned[method if method in tuned else "dpo"]["best"])


def one_seed(seed: int, folder: Path, wanted: list[str]) -> dict:
    sft, tokenizer = load_policy(str(folder / "sft"))
    result = {"seed": seed, "sft": describe(sft, sft, tokenizer, prompts=300)}
    arms = [(method, labels) for labels, methods in ARMS.items() for method in methods if method in wanted]
    for method, labels in tqdm(arms, desc=f"seed {seed}", mininterval=30):
        start = time.perf_counter()
        policy = train(method, sft, tokenizer, seed, labels, learning_rate=best_rate(method))
        seconds = round(time.perf_counter() - start, 1)
        result.setdefault(labels, {})[method] = describe(policy, sft, tokenizer, prompts=300) | {"seconds": seconds}
    return result


def train(method: str, sft, tokenizer, seed: int, labels: str, **changes):
    """A policy trained by one method on as many responses: pairs, or for KTO twice as many thumbs."""
    policy, options = copy.deepcopy(sft), METHODS[method] | changes
    if method == "kto":
        records = world.unpaired_records(2 * PAIRS, seed=seed, **LABELS[labels])
        KTOTrainer(policy, tokenizer, records, kto_config(seed, batch_size=64, **options)).train()
    else:
        records = world.preference_records(PAIRS, seed=seed, **LABELS[labels])
        loss = "dpo" if method == "dpo-mean" else method
        PreferenceTrainer(policy, tokenizer, records, dpo_config(seed, **options), loss=loss).train()
    return policy


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
