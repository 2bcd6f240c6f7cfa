"""Lesson 05's mistakes, each provoked and cured, over seeds; writes results/dpo_failures.json.

python experiments/dpo_failures.py --seeds 0 1 2        about 15 minutes a seed on one core
python experiments/dpo_failures.py --arms few           these alone, added to what was measured before

Every arm starts from the SFT model that `pocket_world.py` left in its folder and changes one thing of the
course's DPO run; "long" changes one thing of "few". DPO without SFT is an arm of `pocket_world.py`.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path

import torch
from measures import describe
from results_io import add_seed
from tqdm import tqdm

from course_lib import load_policy, world
from course_lib.lessons.settings import DPO_PAIRS, LENGTH_BIAS, dpo_config, dpo_with_sft
from course_lib.trainers import PreferenceTrainer

FEW = {"pairs": 1_000}
LONG = FEW | {"epochs": 8}
ARMS = {
    "good": {},
    "beta 0.01": {"beta": 0.01},
    "beta 0.1": {"beta": 0.1},
    "beta 1": {"beta": 1.0},
    "beta 3": {"beta": 3.0},
    "rate 1e-5": {"learning_rate": 1e-5},
    "rate 1e-3": {"learning_rate": 1e-3},
    "rate 1e-2": {"learning_rate": 1e-2},
    "base as reference": {"reference": "base"},
    "labels like length": {"length_bias": LENGTH_BIAS},
    "labels like length, length-dpo": {"length_bias": LENGTH_BIAS, "loss": "length-dpo", "length_penalty": LENGTH_BIAS},
    "few": FEW,
    "long": LONG,
    "long, ipo": LONG | {"loss": "ipo"},
    "with sft": {"loss": dpo_with_sft},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, help="run these alone")
    parser.add_argument("--models", type=Path, default=Path("runs/pocket_world"))
    options = parser.parse_args()
    for seed in options.seeds:
        result = one_seed(seed, options.models / str(seed), options.arms or list(ARMS))
        add_seed("dpo_failures", result, to_earlier=bool(options.arms))


def one_seed(seed: int, folder: Path, wanted: list[str]) -> dict:
    sft, tokenizer = load_policy(str(folder / "sft"))
    base, _ = load_policy(str(folder / "base"))
    result = {"seed": seed, "sft": describe(sft, sft, tokenizer)}
    for name in tqdm(wanted, desc=f"seed {seed}", mininterval=30):
        result[name] = run(sft, base, tokenizer, seed, **ARMS[name])
    return result


def run(sft, base, tokenizer, seed: int, *, pairs=DPO_PAIRS, length_bias=0.0, loss="dpo", reference="auto", **changes):
    start = time.perf_counter()
    policy = copy.deepcopy(sft)
    records = world.preference_records(pairs, seed=seed, length_bias=length_bias)
    trainer = PreferenceTrainer(
        policy,
        tokenizer,
        records,
        dpo_config(seed, **changes),
        loss=loss,
        reference=copy.deepcopy(base) if reference == "base" else reference,
    )
    history = trainer.train()
    curve = {
        key: [round(row[key], 4) for row in history.rows]
        for key in ("step", "loss", "rewards/margins", "rewards/accuracies", "logps/chosen", "logps/rejected")
    }
    seconds = round(time.perf_counter() - start, 1)
    return describe(policy, sft, tokenizer) | {"curve": curve, "seconds": seconds}


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
