"""DPO here against TRL's, in time and peak memory, and what each lever adds. Writes results/dpo_step.json.

python benchmarks/dpo_step.py                     0.5 M and 33 M parameters on the CPU, one thread
python benchmarks/dpo_step.py --sizes 0.5b        on a GPU, bf16

Every arm trains one epoch in a process of its own, all arms in turn, several rounds; figures are medians over rounds,
and ratios to TRL are taken inside each round. Time is that of the whole epoch divided by its steps (tokenisation,
batches and the pass that precomputes the reference are in it), and that from one step to the next. Memory is the peak
of torch's allocations from the model's creation on: weights, gradients, optimiser, reference, activations; on a CPU it
is traced in a run of its own. That loss and gradients are the same is a test's promise (tests/test_against_trl.py).
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import time
from pathlib import Path

from harness import SIZES, THREADS, data, in_own_process, measure, new_model, summary, table, timed

from course_lib.machine import description

RESULTS = Path(__file__).parent / "results" / "dpo_step.json"
ARMS = {
    "trl": "TRL's DPOTrainer",
    "trl_precomputed": "TRL's DPOTrainer with precompute_ref_log_probs (off by default)",
    "plain": "plain loop: two models, logits of the completions' columns, batches in random order",
    "head": "+ output layer only where a token is scored, in chunks",
    "buckets": "+ rows of similar length together",
    "precomputed": "+ the reference's scores computed once",
    "shared": "+ what both sides of a pair begin with computed once: PreferenceTrainer as it is",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["0.5m", "33m"], choices=SIZES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--arm", choices=ARMS, help="run this arm alone, in this process, and print its figures")
    options = parser.parse_args()
    if options.arm:
        print(json.dumps(one_arm(options.arm, SIZES[options.sizes[0]])))
        return
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for size in options.sizes:
        rounds = [
            {arm: in_own_process(__file__, "--sizes", size, "--arm", arm) for arm in ARMS}
            for _ in range(options.rounds)
        ]
        found[size] = {"machine": description() | {"threads": THREADS}, "arms": summary(rounds, ARMS, "trl")}
        print(table(size, found[size]["arms"]))
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


def one_arm(arm: str, spec: dict) -> dict:
    run, stamps = trl_run if arm.startswith("trl") else our_run, []

    def epoch(steps: int) -> tuple[float, float]:
        stamps.append([])
        tokenizer, records = data(spec, steps * spec["pairs"])
        model = new_model(spec, tokenizer)
        return timed(lambda: run(model, tokenizer, records, spec, arm, stamps[-1]))

    figures = measure(epoch, spec["steps"])
    _, timed_epoch, *_ = stamps
    between = (timed_epoch[-1] - timed_epoch[0]) / (len(timed_epoch) - 1)
    return figures | {"step_milliseconds": 1000 * between}


def stamp(stamps: list[float]) -> None:
    """Note that a step has ended."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
    stamps.append(time.perf_counter())


def trl_run(model, tokenizer, records, spec, arm, stamps) -> float:
    import torch
    import trl
    from datasets import Dataset
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def on_step_end(self, *args, **kwargs):
            stamp(stamps)

    with tempfile.TemporaryDirectory() as folder:
        settings = trl.DPOConfig(
            output_dir=folder, per_device_train_batch_size=spec["pairs"], num_train_epochs=1, learning_rate=1e-6,
            report_to=[], save_strategy="no", logging_first_step=True, disable_tqdm=True, max_length=None,
            use_cpu=not torch.cuda.is_available(), bf16=False, activation_checkpointing=False,
            precompute_ref_log_probs=arm == "trl_precomputed",
        )  # fmt: skip
        trainer = trl.DPOTrainer(
            model=model, ref_model=copy.deepcopy(model), args=settings, train_dataset=Dataset.from_list(records),
            processing_class=tokenizer, callbacks=[Clock()],
        )  # fmt: skip
        trainer.train()
    return next(row["loss"] for row in trainer.state.log_history if "loss" in row)


def our_run(model, tokenizer, records, spec, arm, stamps) -> float:
    """PreferenceTrainer with the levers up to `arm` in use."""
    from course_lib.logprobs import completions
    from course_lib.trainers import Part, PreferenceConfig, PreferenceTrainer

    levers = list(ARMS)[2 : list(ARMS).index(arm) + 1]
    if "head" not in levers:
        completions.head_of = lambda model: None
    config = PreferenceConfig(
        batch_size=spec["pairs"], progress=False, share_prompt="shared" in levers, max_length=2048
    )

    class WithLevers(PreferenceTrainer):
        def length(self, row):
            return super().length(row) if "buckets" in levers else 0

    class Clock(Part):
        def after_step(self, run):
            stamp(stamps)

    reference = "precomputed" if "precomputed" in levers else "copy"
    trainer = WithLevers(model, tokenizer, records, config, reference=reference)
    return trainer.train(parts=[Clock()]).rows[0]["loss"]


if __name__ == "__main__":
    main()
