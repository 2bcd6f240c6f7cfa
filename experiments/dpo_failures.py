"""Lesson 05's mistakes, each provoked and cured, over seeds; writes results/dpo_failures.json.

python experiments/dpo_failures.py --seeds 0 1 2 3 4      about 15 minutes a seed on one core
python experiments/dpo_failures.py --arms few long        these alone, added to what was measured before

Every arm changes one thing of "good", the course's DPO on 2,000 pairs; "long" changes one thing of "few". DPO without
SFT is an arm of `pocket_world.py`, and labels that like length are arms of `family.py`.
"""

from __future__ import annotations

import argparse

import torch
from arms import measured
from measures import DRAWS, describe
from results_io import add_seed
from seed_models import base_and_sft

from course_lib.lessons.settings import TUNED, dpo_with_sft

RATE = TUNED["dpo"]["learning_rate"]
FEW = {"pairs": 500}
LONG = FEW | {"epochs": 8}
FEW_HARMLESS = {"labels": {"safe_share": 0.05}}
ARMS = {
    "good": {},
    "beta 0.01": {"beta": 0.01},
    "beta 1": {"beta": 1.0},
    "rate x 10": {"learning_rate": RATE * 10},
    "base as reference": {"reference": "base"},
    "few": FEW,
    "long": LONG,
    "long, ipo": LONG | {"method": "ipo"},
    "with sft": {"loss": dpo_with_sft},
    "few harmless": FEW_HARMLESS,
    "few harmless, with sft": FEW_HARMLESS | {"loss": dpo_with_sft},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="run these alone")
    options = parser.parse_args()
    for seed in options.seeds:
        base, sft, tokenizer = base_and_sft(seed)
        arms = {name: ARMS[name] for name in options.arms}
        for arm in arms.values():
            if "reference" in arm:
                arm["reference"] = base
        show = {"prompts": 500, "draws": 1, "knows": False, "unseen": ["act"]}
        found = measured(arms, sft, sft, tokenizer, seed, **show)
        start = describe(sft, sft, tokenizer, **show | {"draws": DRAWS})
        add_seed("dpo_failures", {"seed": seed, "sft": start} | found, to_earlier=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
