"""Does Pocket World show what it should? Everything from pre-training on, over seeds; writes results/pocket_world.json.

python experiments/pocket_world.py --seeds 0 1 2        about 25 minutes a seed on one core

Checkpoints that an earlier run left in their folders are used again; remove a folder to train its model anew.
"""

from __future__ import annotations

import argparse
import copy
import time
from functools import partial
from pathlib import Path

import torch
from results_io import add_seed
from tqdm import tqdm

from course_lib import evaluation, load_policy, rewards, world
from course_lib import shipped_models as recipe
from course_lib.lessons.settings import DPO_PAIRS, dpo_config
from course_lib.models import load_reward_model, save_pretrained
from course_lib.trainers import PreferenceTrainer
from course_lib.world.facts import HELD_OUT_ENTITIES, MISCONCEPTIONS
from course_lib.world.language import fact_templates

TEMPERATURES = [0.0, 0.25, 0.5, 0.75, 1.0]
WEAK_PAIRS = 6_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--models", type=Path, default=Path("runs/pocket_world"), help="where checkpoints go")
    options = parser.parse_args()
    for seed in tqdm(options.seeds, desc="seeds"):
        add_seed("pocket_world", one_seed(seed, options.models / str(seed)))


def one_seed(seed: int, folder: Path) -> dict:
    seconds, result = {}, {"seed": seed}

    def timed(name, function, *args, **kwargs):
        start = time.perf_counter()
        value = function(*args, **kwargs)
        seconds[name] = round(time.perf_counter() - start, 1)
        return value

    base, tokenizer = kept(folder / "base", lambda: timed("base", recipe.train_base, seed, progress=False))
    result["base"] = describe(base, tokenizer)

    def train_sft():
        return timed("sft", recipe.train_sft, copy.deepcopy(base), tokenizer, seed, progress=False), tokenizer

    sft, _ = kept(folder / "sft", train_sft)
    result["sft"] = describe(sft, tokenizer, TEMPERATURES)
    no_text = copy.deepcopy(base)
    recipe.train_sft(no_text, tokenizer, seed, size=16_000, text_share=0.0, progress=False)
    result["sft_without_text"] = probes(no_text, tokenizer)

    pairs = world.preference_records(DPO_PAIRS, seed=seed)
    for name, start in (("dpo", sft), ("dpo_from_base", base)):
        policy = copy.deepcopy(start)
        trainer = PreferenceTrainer(policy, tokenizer, pairs, dpo_config(seed))
        history = timed(name, trainer.train)
        result[name] = describe(policy, tokenizer, [0.0, 1.0])
        result[name]["history"] = {k: [row[k] for row in history.rows] for k in ("step", "loss", "rewards/margins")}
        report = evaluation.implicit_reward_report(policy, start, tokenizer, held_out_pairs())
        result[name]["held_out"] = held_out_summary(report)
        if start is sft:
            result["misconceptions_right"] = misconceptions_right({"sft": sft, "dpo": policy}, tokenizer)

    for name, size in (("reward_weak", WEAK_PAIRS), ("reward", recipe.SIZES["pairs"])):
        train = partial(timed, name, recipe.train_reward, folder / "sft", seed, size=size, progress=False)
        model, _ = kept(folder / name, lambda train=train: (train(), tokenizer), load_reward_model)
        result[name] = reward_accuracy(model, tokenizer)
    result["seconds"] = seconds
    return result


def kept(folder: Path, train, load=load_policy) -> tuple:
    """The checkpoint in `folder`, trained and written there if it is missing."""
    if not folder.exists():
        save_pretrained(*train(), folder)
    return load(str(folder))


def held_out_pairs() -> list[dict]:
    return world.preference_records(1000, split="test", seed=99)


def describe(model, tokenizer, temperatures=(0.0,)) -> dict:
    """Gold reward by temperature and part on the test prompts, greedy gold on the OOD splits, probes."""
    prompts = world.prompts("test", 1000)
    reports = [evaluation.evaluate_gold(model, tokenizer, prompts, temperature=t) for t in temperatures]
    greedy = reports[0].drop(columns="text").mean()
    ood = {
        split: evaluation.evaluate_gold(model, tokenizer, world.prompts(split, 500)).gold.mean()
        for split in ("template", "entity")
    }
    return {
        "gold": {str(t): r.gold.mean() for t, r in zip(temperatures, reports, strict=True)},
        "parts": greedy.round(4).to_dict(),
        "ood": ood,
        **probes(model, tokenizer),
    }


def probes(model, tokenizer) -> dict:
    return {kind: evaluation.cloze_accuracy(model, tokenizer, kind) for kind in ("facts", "sums")}


def misconceptions_right(models: dict, tokenizer) -> dict:
    """Share of misconceived facts that each model answers rightly when asked plainly, greedily, in three phrasings.

    "seen" facts are about entities that preference pairs mention, "unseen" ones about held-out entities.
    """
    facts: dict[str, list] = {"seen": [], "unseen": []}
    for fact in MISCONCEPTIONS:
        facts["unseen" if (fact.attribute.kind, fact.entity) in HELD_OUT_ENTITIES else "seen"].append(fact)
    asked = {where: [world.user(q) for f in some for q in fact_templates(f)[:3]] for where, some in facts.items()}
    return {
        where: {
            name: float((evaluation.evaluate_gold(model, tokenizer, prompts).correct == 1).mean())
            for name, model in models.items()
        }
        for where, prompts in asked.items()
    }


def held_out_summary(report) -> dict:
    chosen = report.policy_chosen - report.ref_chosen
    rejected = report.policy_rejected - report.ref_rejected
    return {
        "accuracy": float((report.margin > 0).mean()),
        "margin": float(report.margin.mean()),
        "log_ratio_chosen": float(chosen.mean()),
        "log_ratio_rejected": float(rejected.mean()),
    }


def reward_accuracy(model, tokenizer) -> dict:
    """Share of pairs ranked rightly: all held-out pairs, and pairs that differ in correctness alone."""
    score = rewards.learned_reward(model, tokenizer)
    found = {}
    sets = {"all_pairs": held_out_pairs(), "right_or_wrong": world.right_or_wrong_pairs(1000)}
    for name, pairs in sets.items():
        prompts = [p["prompt"] for p in pairs]
        chosen, rejected = (score(prompts, [p[side] for p in pairs]) for side in ("chosen", "rejected"))
        found[name] = float((chosen > rejected).float().mean())
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
