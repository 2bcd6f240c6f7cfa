"""Do GRPO and RLOO learn here what they learn with TRL, at equal samples? Writes results/online_learning.json.

python benchmarks/online_learning.py --seeds 0 1 2 3 4      about three minutes a seed on one core

Same start (the seed's SFT model), reward (the true one), settings and number of samples: 20 rounds of 24 prompts with
four completions each, in other orders and with other random numbers. What counts is the gold reward of replies to
prompts that neither saw, at temperature 1.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import tempfile
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parent.parent / "experiments"))

from online_steps import NEW_TOKENS, gold  # noqa: E402
from seed_models import base_and_sft  # noqa: E402

from course_lib import evaluation, world  # noqa: E402
from course_lib.machine import description  # noqa: E402
from course_lib.trainers import GroupConfig, GroupTrainer  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "online_learning.json"
ROUNDS, PROMPTS, GROUP, RATE, PRICE = 20, 24, 4, 2e-4, 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    options = parser.parse_args()
    for seed in options.seeds:
        _, sft, tokenizer = base_and_sft(seed)
        asked = world.prompts("train", ROUNDS * PROMPTS, seed=seed)
        row = {"seed": seed, "sft": held_out(sft, tokenizer)}
        for method in ("grpo", "rloo"):
            row[method] = {
                who: held_out(train(copy.deepcopy(sft), tokenizer, asked, seed, method), tokenizer)
                for who, train in {"trl": with_trl, "ours": with_ours}.items()
            }
        keep(row)
        print(row, flush=True)


def held_out(policy, tokenizer) -> float:
    """Mean gold reward at temperature 1 over two draws for each of 500 test prompts."""
    asked = world.prompts("test", 500)
    drawn = [evaluation.evaluate_gold(policy, tokenizer, asked, temperature=1.0, seed=1 + i) for i in range(2)]
    return round(float(sum(report.gold.mean() for report in drawn) / 2), 4)


def with_trl(policy, tokenizer, asked: list, seed: int, method: str):
    import trl
    from datasets import Dataset

    make, config, more = {
        "grpo": (trl.GRPOTrainer, trl.GRPOConfig, {"loss_type": "grpo", "use_bias_correction_kl": False}),
        "rloo": (trl.RLOOTrainer, trl.RLOOConfig, {}),
    }[method]
    with tempfile.TemporaryDirectory() as folder:
        settings = config(
            output_dir=folder, per_device_train_batch_size=PROMPTS * GROUP, num_generations=GROUP,
            max_completion_length=NEW_TOKENS, max_steps=ROUNDS, learning_rate=RATE, beta=PRICE, temperature=1.0,
            report_to=[], save_strategy="no", disable_tqdm=True, use_cpu=True, bf16=False, seed=10 * seed,
            activation_checkpointing=False, lr_scheduler_type="constant", **more,
        )  # fmt: skip
        data = Dataset.from_list([{"prompt": prompt} for prompt in asked])
        make(model=policy, reward_funcs=gold, args=settings, train_dataset=data, processing_class=tokenizer).train()
    return policy.eval()


def with_ours(policy, tokenizer, asked: list, seed: int, method: str):
    config = GroupConfig(
        loss=method, learning_rate=RATE, batch_size=PROMPTS * GROUP, prompts_per_rollout=PROMPTS, completions=GROUP,
        max_new_tokens=NEW_TOKENS, kl_coefficient=PRICE, progress=False, seed=10 * seed,
    )  # fmt: skip
    records = [{"prompt": prompt} for prompt in asked]
    GroupTrainer(policy, tokenizer, records, config, reward=world.gold_reward).train()
    return policy


def keep(row: dict) -> None:
    """The seed's row in the file, and over all seeds the paired difference between ours and TRL's."""
    before = json.loads(RESULTS.read_text())["seeds"] if RESULTS.exists() else []
    rows = sorted([r for r in before if r["seed"] != row["seed"]] + [row], key=lambda r: r["seed"])
    whole = {"machine": description() | {"threads": 1}, "rounds": ROUNDS, "samples": PROMPTS * GROUP, "seeds": rows}
    if len(rows) > 2:
        whole["ours_minus_trl"] = {method: difference(rows, method) for method in ("grpo", "rloo")}
    RESULTS.write_text(json.dumps(whole, indent=1) + "\n")


def difference(rows: list[dict], method: str) -> list[float]:
    """Mean and ends of the 95% interval."""
    found = evaluation.paired_interval(*zip(*((r[method]["ours"], r[method]["trl"]) for r in rows), strict=True))
    return [round(float(x), 3) for x in found]


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
