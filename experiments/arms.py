"""An arm: a policy trained one way on one seed's data. Every experiment names its arms as changes of one DPO run.

An arm is trained with two orders of batches (training seeds 10 * seed and 10 * seed + 1), and its figures are means;
where that costs too much, with the first alone.
"""

from __future__ import annotations

import copy
import time

from measures import describe, mean_of
from tqdm import tqdm

from course_lib import world
from course_lib.lessons.settings import TUNED, cloning_config, dpo_config, kto_config
from course_lib.trainers import KTOTrainer, PreferenceTrainer, SFTTrainer

PAIRS = 2_000  # half of lesson 04's: seeds and orders tell more than pairs, and cost as much
ORDERS = 2
CURVES = ("step", "loss", "rewards/margins", "rewards/accuracies", "logps/chosen", "logps/rejected")


def train(start, tokenizer, seed: int, order: int, *, method: str = "dpo", records=None, **options):
    """`(policy, history)`: a copy of `start`, trained by a method at its tuned setting and with `options` changed.

    Args:
        start: the policy to begin with; the reference too, unless `reference` names another.
        seed: of the data.
        order: 0 or 1, the order of batches.
        method: "dpo", "ipo", "kto", "simpo", a variant of DPO, or "cloned" (SFT on the chosen replies).
        records: the pairs, instead of those that `labels` and `pairs` draw.
        options: `pairs` (how many), `labels` (knobs of `world.preference_records`), `loss`, `reference`; all others are
            the trainer's.
    """
    policy, training_seed = copy.deepcopy(start), 10 * seed + order
    pairs, labels = options.pop("pairs", PAIRS), options.pop("labels", {})
    trainer_options = {name: options.pop(name) for name in ("loss", "reference") if name in options}
    options = TUNED.get(method, TUNED["dpo"]) | options
    if method == "kto":  # as many replies: a thumb for each instead of a preference for two
        records = world.unpaired_records(2 * pairs, seed=seed, **labels)
        trainer = KTOTrainer(policy, tokenizer, records, kto_config(training_seed, batch_size=64, **options))
    else:
        records = records or world.preference_records(pairs, seed=seed, **labels)
        if method == "cloned":
            records = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in records]
            trainer = SFTTrainer(policy, tokenizer, records, cloning_config(training_seed, **options))
        else:
            trainer_options.setdefault("loss", method)
            config = dpo_config(training_seed, **options)
            trainer = PreferenceTrainer(policy, tokenizer, records, config, **trainer_options)
    return policy, trainer.train()


def measured(arms: dict[str, dict], start, sft, tokenizer, seed: int, *, label: str = "", **show) -> dict[str, dict]:
    """What `describe` says of each arm, the mean over its orders, with the first order's training curve."""
    arms = tqdm(arms.items(), desc=f"seed {seed} {label}", mininterval=30)
    return {name: measured_arm(options, start, sft, tokenizer, seed, **show)[0] for name, options in arms}


def measured_arm(
    options: dict, start, sft, tokenizer, seed: int, *, orders: int = ORDERS, **show
) -> tuple[dict, object]:
    """The same of one arm, and the policy of the first order."""
    began, runs = time.perf_counter(), [train(start, tokenizer, seed, order, **options) for order in range(orders)]
    seconds = round((time.perf_counter() - began) / orders, 1)
    found = mean_of([describe(policy, sft, tokenizer, **show) for policy, _ in runs])
    policy, history = runs[0]
    return found | {"seconds": seconds, "curve": curve(history)}, policy


def curve(history) -> dict[str, list[float]]:
    """The training curve's columns that lessons draw, as far as the trainer logs them."""
    rows = history.rows
    return {key: [round(row[key], 4) for row in rows] for key in CURVES if rows and key in rows[0]}
