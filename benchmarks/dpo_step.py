"""DPO here against TRL's, in time and peak memory, and what each lever adds. Writes results/dpo_step.json.

python benchmarks/dpo_step.py                     0.5 M and 33 M parameters on the CPU, one thread
python benchmarks/dpo_step.py --sizes 0.5b        on a GPU, bf16

Every arm trains one epoch in a process of its own, all arms in turn, several rounds; figures are medians over rounds,
and the ratio to TRL is taken inside each round. Time is that of the whole epoch divided by its steps: tokenisation,
batches and the pass that precomputes the reference are all in it. Memory is the peak of torch's allocations from the
model's creation on: weights, gradients, optimiser, reference, activations; on a CPU it is traced in a run of its own.
That loss and gradients are the same is a test's promise (tests/test_against_trl.py), not this script's.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
SIZES = {
    "0.5m": {"hidden": 128, "layers": 2, "heads": 4, "inner": 352, "vocabulary": None, "pairs": 32, "steps": 30},
    "33m": {"hidden": 384, "layers": 8, "heads": 6, "inner": 1024, "vocabulary": 49_152, "pairs": 4, "steps": 5},
    "0.5b": {"hidden": 896, "layers": 24, "heads": 14, "inner": 4864, "vocabulary": 151_936, "pairs": 8, "steps": 20},
}
MEMORY_STEPS = 3  # the optimiser's state exists from the second on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=["0.5m", "33m"], choices=SIZES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--arm", choices=ARMS, help="run this arm alone, in this process, and print its figures")
    options = parser.parse_args()
    if options.arm:
        print(json.dumps(measure(options.arm, options.sizes[0])))
        return
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for size in options.sizes:
        rounds = [{arm: in_own_process(arm, size) for arm in ARMS} for _ in range(options.rounds)]
        found[size] = {"machine": machine(), "arms": summary(rounds)}
        print(table(size, found[size]["arms"]))
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


def in_own_process(arm: str, size: str) -> dict:
    command = [sys.executable, __file__, "--sizes", size, "--arm", arm]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"arm {arm} failed:\n{done.stderr[-3000:]}")
    print(f"  {size} {arm}: {done.stdout.splitlines()[-1]}", file=sys.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def summary(rounds: list[dict]) -> dict:
    def median(arm, figure):
        return statistics.median(r[arm][figure] for r in rounds)

    return {
        arm: {
            "what": what,
            "milliseconds": round(median(arm, "milliseconds"), 1),
            "times_as_fast": round(
                statistics.median(r["trl"]["milliseconds"] / r[arm]["milliseconds"] for r in rounds), 2
            ),
            "peak_mb": round(median(arm, "peak_mb"), 1),
            "share_of_memory": round(statistics.median(r[arm]["peak_mb"] / r["trl"]["peak_mb"] for r in rounds), 2),
            "first_loss": rounds[0][arm]["first_loss"],
        }
        for arm, what in ARMS.items()
    }


def table(size: str, arms: dict) -> str:
    lines = [f"\n{size}", f"{'ms a step':>10} {'speed':>7} {'peak MB':>9} {'memory':>7}"]
    for row in arms.values():
        time_and_speed = f"{row['milliseconds']:>10.0f} {row['times_as_fast']:>6.2f}x"
        lines.append(f"{time_and_speed} {row['peak_mb']:>9.0f} {row['share_of_memory']:>7.2f}  {row['what']}")
    return "\n".join(lines)


def machine() -> dict:
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"cores": os.cpu_count(), "gpu": gpu, "torch": torch.__version__, "python": platform.python_version()}


def measure(arm: str, size: str) -> dict:
    """Run one arm and return milliseconds a step, peak memory, and its first loss (ln 2 in every arm)."""
    import torch

    torch.set_num_threads(1)
    spec = SIZES[size]
    run = trl_run if arm.startswith("trl") else our_run

    def epoch(steps: int) -> tuple[float, float]:
        tokenizer, records = data(spec, steps * spec["pairs"])
        model = new_model(spec, tokenizer)
        start = time.perf_counter()
        first_loss = run(model, tokenizer, records, spec, arm)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / steps, first_loss

    epoch(1)  # imports and first calls
    seconds, first_loss = epoch(spec["steps"])
    on_gpu = torch.cuda.is_available()
    peak = torch.cuda.max_memory_allocated() if on_gpu else traced_peak(lambda: epoch(MEMORY_STEPS))
    return {
        "milliseconds": 1000 * seconds,
        "peak_mb": peak / 2**20,
        "first_loss": round(first_loss, 4),
    }


def traced_peak(work) -> int:
    """Highest sum of live bytes that torch's CPU allocator handed out while `work` ran."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        work()
    events = [e for e in trace.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def new_model(spec: dict, tokenizer):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=spec["hidden"],
        intermediate_size=spec["inner"],
        num_hidden_layers=spec["layers"],
        num_attention_heads=spec["heads"],
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config)
    return model.to("cuda", torch.bfloat16) if torch.cuda.is_available() else model


def data(spec: dict, n: int):
    """Pocket World's pairs, or pairs of made-up words whose lengths scatter as people's do (median 60 tokens)."""
    if spec["vocabulary"] is None:
        from course_lib.world import build_tokenizer, preference_records

        return build_tokenizer(), preference_records(n)
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"w{i}": i for i in range(spec["vocabulary"] - 1)} | {"<eos>": spec["vocabulary"] - 1}
    core = Tokenizer(models.WordLevel(words, unk_token="w0"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", pad_token="<eos>")
    draw = random.Random(0)

    def text() -> str:
        size = min(400, max(5, round(draw.lognormvariate(4.1, 0.6))))
        return " ".join(f"w{draw.randrange(spec['vocabulary'] - 1)}" for _ in range(size))

    return tokenizer, [{"prompt": text() + " ", "chosen": text(), "rejected": text()} for _ in range(n)]


def trl_run(model, tokenizer, records, spec, arm) -> float:
    import torch
    import trl
    from datasets import Dataset

    with tempfile.TemporaryDirectory() as folder:
        settings = trl.DPOConfig(
            output_dir=folder, per_device_train_batch_size=spec["pairs"], num_train_epochs=1, learning_rate=1e-6,
            report_to=[], save_strategy="no", logging_first_step=True, disable_tqdm=True, max_length=None,
            use_cpu=not torch.cuda.is_available(), bf16=False, activation_checkpointing=False,
            precompute_ref_log_probs=arm == "trl_precomputed",
        )  # fmt: skip
        trainer = trl.DPOTrainer(
            model=model, ref_model=copy.deepcopy(model), args=settings, train_dataset=Dataset.from_list(records),
            processing_class=tokenizer,
        )  # fmt: skip
        trainer.train()
    return next(row["loss"] for row in trainer.state.log_history if "loss" in row)


def our_run(model, tokenizer, records, spec, arm) -> float:
    """PreferenceTrainer with the levers up to `arm` in use."""
    from course_lib.logprobs import completions
    from course_lib.trainers import PreferenceConfig, PreferenceTrainer

    levers = list(ARMS)[2 : list(ARMS).index(arm) + 1]
    if "head" not in levers:
        completions.head_of = lambda model: None
    config = PreferenceConfig(
        batch_size=spec["pairs"], progress=False, share_prompt="shared" in levers, max_length=2048
    )

    class WithLevers(PreferenceTrainer):
        def length(self, row):
            return super().length(row) if "buckets" in levers else 0

    reference = "precomputed" if "precomputed" in levers else "copy"
    return WithLevers(model, tokenizer, records, config, reference=reference).train().rows[0]["loss"]


if __name__ == "__main__":
    main()
