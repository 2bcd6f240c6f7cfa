"""Lesson 10: a judge's labels in place of people's, over seeds; writes results/judges.json.

python experiments/judges.py --seeds 0 1 2 3 4      about 6 minutes a seed on one core

A judge is the seed's SFT model, taught from 4,000 pairs to say which of two replies people chose. It then labels 2,000
other pairs, asked in both orders, and DPO is trained on these; beside it, on people's own labels of the same pairs, and
on what the judge says in one order alone. All for people who follow the true reward, and for people who like length.
"""

from __future__ import annotations

import argparse
import copy

import torch
from arms import PAIRS, measured
from measures import rounded
from results_io import add_seed
from seed_models import base_and_sft

from course_lib import world
from course_lib.lessons.settings import DPO_PAIRS, LENGTH_BIAS, judge_config
from course_lib.rewards import Judge, judged_pairs
from course_lib.trainers import SFTTrainer

PEOPLE = {"": {}, ", long": {"length_bias": LENGTH_BIAS}}
SHOW = {"prompts": 500, "draws": 2, "knows": False}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    options = parser.parse_args()
    for seed in options.seeds:
        _, sft, tokenizer = base_and_sft(seed)
        result, arms = {"seed": seed}, {}
        for who, likes in PEOPLE.items():
            pairs = world.preference_records(PAIRS, seed=seed, **likes)
            judge = taught_judge(sft, tokenizer, world.preference_records(DPO_PAIRS, seed=seed + 2000, **likes), seed)
            result["opinion" + who] = opinion(judge)
            arms["people" + who], arms["judge" + who] = {"records": pairs}, {"records": by(judge, pairs)}
            if not who:
                arms["one order"] = {"records": by(judge, pairs, one_order=True)}
        add_seed("judges", result)
        add_seed("judges", result | measured(arms, sft, sft, tokenizer, seed, orders=1, **SHOW))


def taught_judge(sft, tokenizer, pairs: list[dict], seed: int) -> Judge:
    model = copy.deepcopy(sft)
    SFTTrainer(model, tokenizer, world.judge_records(pairs, seed=seed), judge_config(seed)).train()
    return Judge(model, tokenizer, question=world.which_is_best)


def by(judge: Judge, pairs: list[dict], *, one_order: bool = False) -> list[dict]:
    """The same pairs with the judge's labels."""
    prompts, one, two = columns(pairs, seed=1)
    if not one_order:
        return judged_pairs(judge, prompts, one, two)
    first = (judge.log_odds(prompts, one, two) > 0).tolist()
    return [
        {"prompt": prompt, "chosen": a if better else b, "rejected": b if better else a}
        for prompt, a, b, better in zip(prompts, one, two, first, strict=True)
    ]


def columns(pairs: list[dict], *, seed: int) -> tuple[list, list, list]:
    """Prompts and both replies, in an order that does not tell which one people chose."""
    swap = torch.rand(len(pairs), generator=torch.Generator().manual_seed(seed)) < 0.5
    sides = [("rejected", "chosen") if turned else ("chosen", "rejected") for turned in swap]
    prompts = [pair["prompt"] for pair in pairs]
    return prompts, *([pair[side[i]] for pair, side in zip(pairs, sides, strict=True)] for i in (0, 1))


def opinion(judge: Judge) -> dict:
    """How often the judge agrees with people, its favour for a place, and for the longer of two replies."""
    pairs = world.preference_records(1000, split="test", seed=99)  # of people who follow the true reward
    prompts, chosen, rejected = sides(pairs)
    odds, bias = judge.compare(prompts, chosen, rejected)
    longer = torch.tensor([words(a) - words(b) for a, b in zip(chosen, rejected, strict=True)])
    found = {
        "agrees": (odds > 0).float().mean(),
        "turns with the order": (bias.abs() > odds.abs()).float().mean(),
        "bias": bias.mean(),
        "longer": ((odds * longer > 0).float().sum() / (longer != 0).sum()),
        "people longer": ((longer > 0).float().sum() / (longer != 0).sum()),
    }
    for kind in ("fact", "larger", "safe", "unsafe"):
        found[kind] = (judge.compare(*sides(world.right_or_wrong_pairs(300, kind=kind)))[0] > 0).float().mean()
    return rounded(found)


def sides(pairs: list[dict]) -> list[list]:
    return [[pair[key] for pair in pairs] for key in ("prompt", "chosen", "rejected")]


def words(completion: list[dict]) -> int:
    return len(completion[-1]["content"].split())


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
