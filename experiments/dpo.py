"""What DPO mends where its pairs mention it, and where they do not (claim P5); writes results/dpo.json.

python experiments/dpo.py --seeds 0 1 2      after experiments/pocket_world.py, whose SFT models it starts from
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch
from results_io import add_seed

from course_lib import PreferenceTrainer, evaluation, load_policy, world
from course_lib.recipes.lessons import DPO_PAIRS, dpo_config
from course_lib.world.facts import HELD_OUT_ENTITIES, MISCONCEPTIONS
from course_lib.world.language import fact_templates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--models", type=Path, default=Path("runs/pocket_world"))
    options = parser.parse_args()
    for seed in options.seeds:
        add_seed("dpo", one_seed(seed, options.models / str(seed)))


def one_seed(seed: int, folder: Path) -> dict:
    sft, tokenizer = load_policy(str(folder / "sft"))
    policy = copy.deepcopy(sft)
    PreferenceTrainer(policy, tokenizer, world.preference_records(DPO_PAIRS, seed=seed), dpo_config(seed)).train()
    models = {"sft": sft, "dpo": policy}
    shares = {
        where: {name: right_share(model, tokenizer, facts) for name, model in models.items()}
        for where, facts in misconceived().items()
    }
    return {"seed": seed, "misconceptions_right": shares}


def misconceived() -> dict[str, list]:
    """Facts with a misconception, by whether preference pairs mention their entity."""
    split = {"seen": [], "unseen": []}
    for fact in MISCONCEPTIONS:
        split["unseen" if (fact.attribute.kind, fact.entity) in HELD_OUT_ENTITIES else "seen"].append(fact)
    return split


def right_share(model, tokenizer, facts) -> float:
    """Share of facts answered rightly when asked plainly, in three phrasings, greedily."""
    prompts = [world.user(question) for fact in facts for question in fact_templates(fact)[:3]]
    return float((evaluation.evaluate_gold(model, tokenizer, prompts).correct == 1).mean())


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
