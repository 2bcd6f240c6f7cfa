"""SFT, reward-model and KTO epochs here against TRL's, in time and peak memory. Writes results/other_steps.json.

python benchmarks/other_steps.py        0.5 M and 33 M parameters on the CPU, one thread

Measured as in dpo_step.py. Both sides train on the same records, with the loss on completions alone; the other settings
are each library's own defaults where they do not change what is learned.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from pathlib import Path

from harness import SIZES, THREADS, data, in_own_process, measure, new_model, summary, table, timed

from course_lib.machine import description

RESULTS = Path(__file__).parent / "results" / "other_steps.json"
METHODS = ("sft", "reward", "kto")
ARMS = {"trl": "TRL's trainer", "ours": "this library's"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["0.5m", "33m"], choices=("0.5m", "33m"))
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--arm", choices=ARMS, help="run this arm alone, in this process, and print its figures")
    options = parser.parse_args()
    if options.arm:
        print(json.dumps(one_arm(options.methods[0], options.arm, SIZES[options.sizes[0]])))
        return
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for size in options.sizes:
        for method in options.methods:
            choice = ("--sizes", size, "--methods", method, "--arm")
            rounds = [{arm: in_own_process(__file__, *choice, arm) for arm in ARMS} for _ in range(options.rounds)]
            arms = summary(rounds, ARMS, "trl")
            found.setdefault(size, {})[method] = {"machine": description() | {"threads": THREADS}, "arms": arms}
            print(table(f"{size} {method}", arms))
            RESULTS.write_text(json.dumps(found, indent=1) + "\n")


def one_arm(method: str, arm: str, spec: dict) -> dict:
    """Steps of as many pairs as in the benchmark of DPO, or twice as many single responses."""
    run = trl_run if arm == "trl" else our_run
    size = spec["pairs"] * (1 if method == "reward" else 2)

    def epoch(steps: int) -> tuple[float, float]:
        tokenizer, pairs = data(spec, steps * spec["pairs"])
        model = new_model(spec, tokenizer, scores=method == "reward")
        records = pairs if method == "reward" else [r for pair in pairs for r in singles(pair, method)]
        return timed(lambda: run(method, model, tokenizer, records, size))

    return measure(epoch, spec["steps"])


def singles(pair: dict, method: str) -> list[dict]:
    """Both responses of a pair, as demonstrations or with a thumb up and a thumb down."""
    rows = [{"prompt": pair["prompt"], "completion": pair[side]} for side in ("chosen", "rejected")]
    return rows if method == "sft" else [row | {"label": up} for row, up in zip(rows, (True, False), strict=True)]


def trl_run(method: str, model, tokenizer, records, size: int) -> float:
    import trl
    from datasets import Dataset

    names = {"sft": "SFT", "reward": "Reward", "kto": "KTO"}
    make, config = getattr(trl, f"{names[method]}Trainer"), getattr(trl, f"{names[method]}Config")
    with tempfile.TemporaryDirectory() as folder:
        settings = config(
            output_dir=folder, per_device_train_batch_size=size, num_train_epochs=1, learning_rate=1e-6, report_to=[],
            save_strategy="no", logging_first_step=True, disable_tqdm=True, max_length=None, use_cpu=True, bf16=False,
            activation_checkpointing=False,
        )  # fmt: skip
        reference = {"ref_model": copy.deepcopy(model)} if method == "kto" else {}
        data_set = Dataset.from_list(records)
        trainer = make(model=model, args=settings, train_dataset=data_set, processing_class=tokenizer, **reference)
        trainer.train()
    return next(row["loss"] for row in trainer.state.log_history if "loss" in row)


def our_run(method: str, model, tokenizer, records, size: int) -> float:
    from course_lib import trainers

    make = {"sft": trainers.SFTTrainer, "reward": trainers.RewardTrainer, "kto": trainers.KTOTrainer}[method]
    config = make.config_class(batch_size=size, progress=False, max_length=2048, learning_rate=1e-6)
    return make(model, tokenizer, records, config).train().rows[0]["loss"]


if __name__ == "__main__":
    main()
