"""Does Pocket World show what it should? Everything from pre-training on, over seeds; writes results/pocket_world.json.

python experiments/pocket_world.py --seeds 0 1 2 3 4        about 30 minutes a seed on one core

Checkpoints that an earlier run left in their folders are used again; remove a folder to train its model anew. What is
measured, and how it is judged, stands in protocol.md.
"""

from __future__ import annotations

import argparse
import copy
import random
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from measures import HELD_OUT, best_of, by_kind, describe, mean_of, rounded
from results_io import add_seed
from tqdm import tqdm

from course_lib import evaluation, load_policy, rewards, world
from course_lib import shipped_models as recipe
from course_lib.lessons.settings import CLONING, DPO_PAIRS, dpo_config
from course_lib.models import load_reward_model, save_pretrained
from course_lib.trainers import PreferenceTrainer, SFTTrainer
from course_lib.world.facts import MISCONCEPTIONS, SFT_ONLY_ENTITIES

TEMPERATURES = [0.0, 0.25, 0.5, 0.75, 1.0]
WEAK_PAIRS = 6_000
ORDERS = 2
BEST_OF = [2, 4, 8]
TWINS = [(kind, "test") for kind in ("fact", "larger", "last", "safe", "unsafe")]
TWINS += [("fact", "entity"), ("larger", "skill"), ("last", "skill"), ("safe", "act"), ("unsafe", "act")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--models", type=Path, default=Path("runs/pocket_world"), help="where checkpoints go")
    options = parser.parse_args()
    for seed in tqdm(options.seeds, desc="seeds"):
        add_seed("pocket_world", one_seed(seed, options.models / str(seed)))


def one_seed(seed: int, folder: Path) -> dict:
    seconds: dict[str, float] = {}

    def timed(name, function, *args, **kwargs):
        start = time.perf_counter()
        value = function(*args, **kwargs)
        seconds[name] = round(time.perf_counter() - start, 1)
        return value

    base, tokenizer = kept(folder / "base", lambda: timed("base", recipe.train_base, seed, progress=False))

    def train_sft():
        return timed("sft", recipe.train_sft, copy.deepcopy(base), tokenizer, seed, progress=False), tokenizer

    sft, _ = kept(folder / "sft", train_sft)
    show = partial(describe, sft=sft, tokenizer=tokenizer, unseen=True)
    result = {"seed": seed, "base": show(base), "sft": show(sft)}
    result["sft"]["by_temperature"] = by_temperature(sft, tokenizer)
    no_text = copy.deepcopy(base)
    recipe.train_sft(no_text, tokenizer, seed, size=16_000, text_share=0.0, progress=False)
    known = {kind: evaluation.cloze_accuracy(no_text, tokenizer, kind) for kind in evaluation.PROBES}
    result["sft_without_text"] = rounded(known)

    pairs = world.preference_records(DPO_PAIRS, seed=seed)
    arms = {
        "dpo": (dpo, sft, pairs),
        "dpo_from_base": (dpo, base, pairs),
        "dpo_shuffled": (dpo, sft, shuffled(pairs, seed)),
        "cloned": (clone, sft, pairs),
    }
    for name, (train, start, records) in arms.items():
        orders = [timed(name, train, start, tokenizer, records, 10 * seed + order) for order in range(ORDERS)]
        result[name] = mean_of([show(policy) for policy in orders])
        if name == "dpo":
            result[name]["by_temperature"] = by_temperature(orders[0], tokenizer)
            result["misconceptions_right"] = misconceptions_right({"sft": sft, "dpo": orders[0]}, tokenizer)

    for name, size in (("reward_weak", WEAK_PAIRS), ("reward", recipe.SIZES["pairs"])):
        train = partial(timed, name, recipe.train_reward, folder / "sft", seed, size=size, progress=False)
        model, _ = kept(folder / name, lambda train=train: (train(), tokenizer), load_reward_model)
        result[name] = reward_accuracy(model, tokenizer)
    score, asked = rewards.learned_reward(model, tokenizer), world.prompts("test", 1000)
    for n in BEST_OF:
        report = best_of(sft, score, tokenizer, asked, n)
        result[f"best_of_{n}"] = rounded({"gold_sampled": report.gold.mean(), "kinds_sampled": by_kind(report)})
    return result | {"seconds": seconds}


def kept(folder: Path, train, load=load_policy) -> tuple:
    """The checkpoint in `folder`, trained and written there if it is missing."""
    if not folder.exists():
        save_pretrained(*train(), folder)
    return load(str(folder))


def dpo(start, tokenizer, pairs: list[dict], order: int):
    policy = copy.deepcopy(start)
    PreferenceTrainer(policy, tokenizer, pairs, dpo_config(order)).train()
    return policy


def clone(start, tokenizer, pairs: list[dict], order: int):
    """SFT on the chosen replies."""
    policy = copy.deepcopy(start)
    records = [{"prompt": pair["prompt"], "completion": pair["chosen"]} for pair in pairs]
    SFTTrainer(policy, tokenizer, records, replace(CLONING, seed=order)).train()
    return policy


def shuffled(pairs: list[dict], seed: int) -> list[dict]:
    """The same pairs with labels thrown by a coin: nothing is to be learnt from them."""
    coin = random.Random(seed)
    swapped = [pair | {"chosen": pair["rejected"], "rejected": pair["chosen"]} for pair in pairs]
    return [coin.choice(both) for both in zip(pairs, swapped, strict=True)]


def by_temperature(model, tokenizer) -> dict:
    """Mean gold reward at each temperature, on the test prompts and on those for tuning."""
    asked = {split: world.prompts(split, 500) for split in ("test", "tuning")}

    def gold(split: str, temperature: float) -> float:
        return evaluation.evaluate_gold(model, tokenizer, asked[split], temperature=temperature).gold.mean()

    return rounded({split: {str(t): gold(split, t) for t in TEMPERATURES} for split in asked})


def misconceptions_right(models: dict, tokenizer) -> dict:
    """Share of misconceived facts that each model answers rightly when asked plainly, greedily, in three phrasings.

    SFT taught them all. "seen" facts are about entities that the pairs mention too, "unseen" ones are not.
    """
    facts: dict[str, list] = {"seen": [], "unseen": []}
    for fact in MISCONCEPTIONS:
        if world.task_of(fact.questions[0]).split != "entity":
            facts["unseen" if fact.group in SFT_ONLY_ENTITIES else "seen"].append(fact)
    asked = {where: [world.user(q) for f in some for q in f.questions[:3]] for where, some in facts.items()}
    return {
        where: {name: float(evaluation.evaluate_gold(m, tokenizer, prompts).right.mean()) for name, m in models.items()}
        for where, prompts in asked.items()
    }


def reward_accuracy(model, tokenizer) -> dict:
    """Share of pairs ranked rightly: held-out pairs, and by kind pairs that differ in what is right alone."""
    score = rewards.learned_reward(model, tokenizer)

    def accuracy(pairs: list[dict]) -> float:
        prompts = [p["prompt"] for p in pairs]
        chosen, rejected = (score(prompts, [p[side] for p in pairs]) for side in ("chosen", "rejected"))
        return float((chosen > rejected).float().mean())

    found = {"all_pairs": accuracy(world.preference_records(**HELD_OUT))}
    for kind, split in TWINS:
        found.setdefault(split, {})[kind] = accuracy(world.right_or_wrong_pairs(500, kind=kind, split=split))
    return rounded(found)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
