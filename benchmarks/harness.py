"""What the benchmarks share: models and data, arms in processes of their own, peaks, and tables of ratios."""

from __future__ import annotations

import gc
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

SIZES = {
    "0.5m": {"hidden": 128, "layers": 2, "heads": 4, "inner": 352, "vocabulary": None, "pairs": 32, "steps": 30},
    "33m": {"hidden": 384, "layers": 8, "heads": 6, "inner": 1024, "vocabulary": 49_152, "pairs": 4, "steps": 8},
    "0.5b": {"hidden": 896, "layers": 24, "heads": 14, "inner": 4864, "vocabulary": 151_936, "pairs": 8, "steps": 20},
}
THREADS = 1  # of every arm
MEMORY_STEPS = 3  # the optimiser's state exists from the second on


def in_own_process(script: str, *options: str) -> dict:
    """The figures that a script prints as its last line, as JSON, when it is run with these options."""
    done = subprocess.run([sys.executable, script, *options], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(options)} failed:\n{done.stderr[-3000:]}")
    print(f"  {' '.join(options)}: {done.stdout.splitlines()[-1]}", file=sys.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def summary(rounds: list[dict], arms: dict[str, str], peer: str) -> dict:
    """Medians over rounds; ratios to the peer are taken inside each round."""

    def median(arm, figure):
        return statistics.median(r[arm][figure] for r in rounds)

    def ratio(arm, figure, of):
        return round(statistics.median(of(r[peer][figure], r[arm][figure]) for r in rounds), 2)

    found = {}
    for arm, what in arms.items():
        found[arm] = {"what": what}
        for kind in [k for k in ("", "step_") if f"{k}milliseconds" in rounds[0][arm]]:
            figure = f"{kind}milliseconds"
            found[arm][figure] = round(median(arm, figure), 1)
            found[arm][f"{kind}times_as_fast"] = ratio(arm, figure, lambda theirs, own: theirs / own)
        found[arm]["peak_mb"] = round(median(arm, "peak_mb"), 1)
        found[arm]["share_of_memory"] = ratio(arm, "peak_mb", lambda theirs, own: own / theirs)
        found[arm]["first_loss"] = rounds[0][arm]["first_loss"]
    return found


def table(title: str, arms: dict) -> str:
    lines = [f"\n{title}", f"{'ms a step':>10} {'speed':>7} {'peak MB':>9} {'memory':>7}"]
    for row in arms.values():
        time_and_speed = f"{row['milliseconds']:>10.0f} {row['times_as_fast']:>6.2f}x"
        lines.append(f"{time_and_speed} {row['peak_mb']:>9.0f} {row['share_of_memory']:>7.2f}  {row['what']}")
    return "\n".join(lines)


def measure(epoch: Callable[[int], tuple[float, float]], steps: int) -> dict:
    """Milliseconds a step over a whole epoch, peak memory, and the first loss; `epoch(steps)` gives time and loss."""
    import torch

    torch.set_num_threads(THREADS)
    epoch(1)  # imports and first calls
    gc.collect()  # trainers hold themselves in circles, and their models with them
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    seconds, first_loss = epoch(steps)
    gc.collect()
    on_gpu = torch.cuda.is_available()
    peak = torch.cuda.max_memory_allocated() if on_gpu else traced_peak(lambda: epoch(MEMORY_STEPS))
    return {"milliseconds": 1000 * seconds / steps, "peak_mb": peak / 2**20, "first_loss": round(first_loss, 4)}


def timed(work: Callable[[], float]) -> tuple[float, float]:
    """Seconds that the work took, and what it returned."""
    import torch

    start = time.perf_counter()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


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


def new_model(spec: dict, tokenizer, *, scores: bool = False):
    """A Llama of that size with random weights, for causal language modelling, or with one score a sequence."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

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
        num_labels=1,
    )
    model = (LlamaForSequenceClassification if scores else LlamaForCausalLM)(config)
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
