"""Does Pocket World show what it should? Everything from pre-training on, over seeds; writes results/pocket_world.json.

python experiments/pocket_world.py --seeds 0 1 2 3 4        about 25 minutes a seed on one core
python experiments/pocket_world.py --parts lesson           these alone, added to what was measured before

Checkpoints that an earlier run left in their folders are used again; remove a folder to train its model anew. What is
measured, and how it is judged, stands in protocol.md.
"""

from __future__ import annotations

import argparse
import copy
import random

import torch
from arms import measured, measured_arm
from measures import HELD_OUT, UNSEEN, best_of, by_kind, describe, rounded
from results_io import add_seed
from seed_models import base_and_sft, strong_reward
from tqdm import tqdm

from course_lib import evaluation, world
from course_lib import shipped_models as recipe
from course_lib.lessons.settings import DPO_PAIRS, LONG_RUN
from course_lib.world.facts import MISCONCEPTIONS, SFT_ONLY_ENTITIES

TEMPERATURES = [0.0, 0.25, 0.5, 0.75, 1.0]
BEST_OF = [2, 4, 8]
SMALL_RUNS = [("sft_small", 5_000, 0.2), ("sft_without_text", 4_000, 0.0)]  # the same number of demonstrations
TWINS = [(kind, "test") for kind in ("fact", "larger", "longer", "safe", "unsafe")]
TWINS += [("fact", "entity"), ("larger", "skill"), ("longer", "skill"), ("safe", "act"), ("unsafe", "act")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="run these alone")
    options = parser.parse_args()
    for seed in tqdm(options.seeds, desc="seeds"):
        models = base_and_sft(seed)
        for part in options.parts:
            add_seed("pocket_world", {"seed": seed} | PARTS[part](seed, *models), to_earlier=True)


def starting_points(seed: int, base, sft, tokenizer) -> dict:
    """Base and SFT model as they are, and what SFT forgets without plain text."""
    show = {"sft": sft, "tokenizer": tokenizer, "unseen": UNSEEN}
    result = {"base": describe(base, **show), "sft": describe(sft, **show)}
    result["sft"]["by_temperature"] = by_temperature(sft, tokenizer)
    for name, size, text_share in SMALL_RUNS:
        small = recipe.train_sft(copy.deepcopy(base), tokenizer, seed, size=size, text_share=text_share, progress=False)
        result[name] = rounded({kind: evaluation.cloze_accuracy(small, tokenizer, kind) for kind in evaluation.PROBES})
    return result


def lesson(seed: int, base, sft, tokenizer) -> dict:
    """Lesson 04's DPO, and the same on shuffled labels."""
    pairs = world.preference_records(DPO_PAIRS, seed=seed)
    found, dpo = measured_arm(LONG_RUN | {"records": pairs}, sft, sft, tokenizer, seed, draws=1, unseen=UNSEEN)
    found["by_temperature"] = by_temperature(dpo, tokenizer)
    control = {"dpo_shuffled": LONG_RUN | {"records": shuffled(pairs, seed)}}
    return {
        "dpo": found,
        "misconceptions_right": misconceptions_right({"sft": sft, "dpo": dpo}, tokenizer),
    } | measured(control, sft, sft, tokenizer, seed, draws=1)


def rivals(seed: int, base, sft, tokenizer) -> dict:
    """DPO at the setting that was tuned on half the pairs, from SFT and from the base model; and cloning."""
    pairs = world.preference_records(DPO_PAIRS, seed=seed)
    arms = {"dpo_fast": {"records": pairs}, "cloned": {"method": "cloned", "records": pairs}}
    found = measured(arms, sft, sft, tokenizer, seed, draws=1, unseen=UNSEEN)
    return found | measured({"dpo_from_base": {"records": pairs}}, base, sft, tokenizer, seed, draws=1)


def reward_model(seed: int, base, sft, tokenizer) -> dict:
    """What the reward model sees, and best of n by it."""
    score, asked = strong_reward(seed), world.prompts("test", 1000)
    found = {"reward": reward_accuracy(score)}
    for n, report in best_of(sft, score, tokenizer, asked, BEST_OF).items():
        found[f"best_of_{n}"] = rounded({"gold_sampled": report.gold.mean(), "kinds_sampled": by_kind(report)})
    return found


PARTS = {"models": starting_points, "lesson": lesson, "rivals": rivals, "reward": reward_model}


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


def reward_accuracy(score) -> dict:
    """Share of pairs ranked rightly: held-out pairs, and by kind pairs that differ in what is right alone."""

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
