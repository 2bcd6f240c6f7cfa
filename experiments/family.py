"""Lesson 06: the whole family on clean, noisy and length-biased labels, over seeds; writes results/family.json.

python experiments/family.py --seeds 0 1 2 3 4      about 5 minutes a seed on one core
python experiments/family.py --methods orpo         these alone, added to what was measured before

Every arm starts from the seed's SFT model and has the setting that did best on the tuning seeds with clean labels
(`tuning.py`); the same is used under noise, as one would not know. Variants of DPO use DPO's. What no one would know in
practice is given to those that ask for it: length-DPO gets the true liking for length. KTO gets a thumb for each reply.

"dpo-mean" is DPO on means over tokens, at ten times the beta, about the tokens of a reply: it differs from "dpo" in the
normalisation alone, where SimPO differs in reference, margin and setting too.
"""

from __future__ import annotations

import argparse

import torch
from arms import measured
from measures import describe
from results_io import add_seed
from seed_models import base_and_sft

from course_lib.lessons.settings import LENGTH_BIAS, TUNED

NOISE = 0.3
VARIANTS = {  # what a method adds to its tuned setting
    "dpo-mean": {"method": "dpo", "average": True, "beta": 10 * TUNED["dpo"]["beta"]},
    "length-dpo": {"method": "length-dpo", "length_penalty": LENGTH_BIAS},
}
LABELS = {"clean": {}, "noisy": {"label_noise": NOISE}, "long": {"length_bias": LENGTH_BIAS}}
ARMS = {
    "clean": ("dpo", "dpo-mean", "ipo", "kto", "simpo"),
    "noisy": ("dpo", "ipo", "kto", "simpo"),
    "long": ("dpo", "dpo-mean", "simpo", "length-dpo"),
}
SHOW = {"prompts": 500, "knows": False}
METHODS = sorted({method for methods in ARMS.values() for method in methods})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS, help="run these alone")
    options = parser.parse_args()
    for seed in options.seeds:
        _, sft, tokenizer = base_and_sft(seed)
        result = {"seed": seed, "sft": describe(sft, sft, tokenizer, **SHOW)}
        for name, methods in ARMS.items():
            arms = {m: arm(m, LABELS[name]) for m in methods if m in options.methods}
            result[name] = measured(arms, sft, sft, tokenizer, seed, label=name, orders=1, **SHOW)
        add_seed("family", result, to_earlier=True)


def arm(method: str, labels: dict) -> dict:
    return VARIANTS.get(method, {"method": method}) | {"labels": labels}


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
