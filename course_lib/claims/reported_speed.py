"""What is claimed about speed, beside what the roofline allows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf

import pandas as pd

from course_lib.sizing import phases
from course_lib.sizing.architectures import architecture_of
from course_lib.sizing.settings import PAIRWISE, SpeedSettings, roles_of
from course_lib.speed.throughput import ThroughputEstimate, estimate_throughput
from course_lib.speed.work import decode

# As reported of an 8B model on 8 nodes of 8 H100: tokens a second and GPU, hours of training.
REPORTED = {"PPO": (1250, 32), "DPO": (3100, 11), "DPO + LoRA": (4200, 8), "SimPO": (5800, 6)}
METHODS: dict[str, dict] = {
    "PPO": {"algorithm": "ppo"},
    "DPO": {"algorithm": "dpo"},
    "DPO + LoRA": {"algorithm": "dpo", "lora_rank": 64, "adapter_precision": "bf16"},
    "SimPO": {"algorithm": "simpo"},
}


def compared_methods(model="llama-3-8b", *, sequences: int = 8, **settings) -> dict[str, ThroughputEstimate]:
    """Estimates for the `REPORTED` methods on equal terms: a micro-batch has `sequences`, in pairs or not.

    Raises:
        ValueError: for an odd number of sequences, and as `estimate_throughput`.
    """
    return on_equal_terms(estimate_throughput, model, sequences, settings)


def on_equal_terms(estimate: Callable, model, sequences: int, settings: dict) -> dict:
    """What an estimator says of each of `METHODS`, where as many sequences go through a GPU, in pairs or not."""
    if sequences % 2:
        raise ValueError(f"pairs need an even number of sequences; got {sequences}")
    found = {}
    for name, options in METHODS.items():
        batch_size = sequences // 2 if options["algorithm"] in PAIRWISE else sequences
        found[name] = estimate(model, **options | {"batch_size": batch_size} | settings)
    return found


def phase_seconds(estimates: Mapping[str, ThroughputEstimate], *, tokens: float = 1e6):
    """A DataFrame of GPU seconds for so many tokens: a row a method, a column a phase.

    It is what `course_lib.figures.time_bars` draws.
    """
    rows = {
        method: {name: phase.seconds * tokens / found.tokens for name, phase in found.phases.items()}
        for method, found in estimates.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index").fillna(0.0)
    return table[[name for name in phases.TIMED if name in table]]


def speed_ratios(model="llama-3-8b", **settings):
    """How many times as many tokens a second one method trains as another.

    Returns:
        a DataFrame: "reported"; "roofline"; "decoding free", where sampling costs nothing at all; and "FLOPs", the
        passes' arithmetic alone: what equal utilisation of the peak allows.
    """
    found = compared_methods(model, **settings)
    speeds = {
        "reported": {name: speed for name, (speed, _) in REPORTED.items()},
        "roofline": {name: e.tokens_per_second for name, e in found.items()},
        "decoding free": {name: e.tokens / (e.step_seconds - _rollout(e, "seconds")) for name, e in found.items()},
        "FLOPs": {name: e.tokens / (e.flops - _rollout(e, "flops")) for name, e in found.items()},
    }
    pairs = [("DPO", "PPO"), ("SimPO", "DPO"), ("DPO + LoRA", "DPO"), ("SimPO", "DPO + LoRA")]
    rows = {f"{a} / {b}": {column: by[a] / by[b] for column, by in speeds.items()} for a, b in pairs}
    return pd.DataFrame.from_dict(rows, orient="index")


def _rollout(found: ThroughputEstimate, what: str) -> float:
    return sum(getattr(phase, what) for name, phase in found.phases.items() if name in phases.SAMPLING)


def audit_reported(model="llama-3-8b", **settings):
    """The reported table against itself and against the roofline, on 64 H100 with ZeRO-3 unless said.

    Returns:
        a DataFrame, a row a method: reported "tokens/s" (a GPU) and "hours"; "million tokens", their product; the
        "roofline" tokens/s at the utilisation in `settings`; and "utilisation", the share of the peak that the
        method's FLOPs reach at the reported speed.
    """
    rows = {}
    for name, found in compared_methods(model, **{"gpus": 64, "zero_stage": 3} | settings).items():
        speed, hours = REPORTED[name]
        rows[name] = {"tokens/s": speed, "hours": hours, "million tokens": speed * hours * 3600 / 1e6,
                      "roofline": found.tokens_per_second,
                      "utilisation": speed * found.flops / found.tokens / found.peak_flops}  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index")


def decoding_speed(model="llama-3-8b", *, batches: Sequence[int] = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512), **settings):
    """How decoding does when more sequences are decoded together, on one GPU.

    Returns:
        a DataFrame, a row a batch size: FLOPs a byte ("intensity"), the "ridge" that they would have to reach,
        "tokens/s", and the "bound".
    """
    rows = {}
    for batch in batches:
        found = estimate_throughput(model, "rloo", batch_size=batch, **settings)
        phase = found.phases[phases.ROLLOUT_DECODING]
        decoded = batch * (found.settings.completion - 1)
        rows[batch] = {"intensity": phase.intensity, "ridge": found.ridge, "tokens/s": decoded / phase.seconds,
                       "bound": phase.bound}  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("sequences")


def turning_batch(model="llama-3-8b", *, context: int = 2, **settings) -> float:
    """The number of sequences from which on a decoding step is bound by arithmetic; infinite where there is none.

        batch * FLOPs a token / FLOP/s  =  (weights + batch * context * bytes of keys and values) / bandwidth

    Where a sequence's keys and values take longer to read than its token takes to compute, no batch is enough.

    Args:
        context: tokens that the decoded one attends to, itself included.
        settings: as in `estimate_throughput`.

    Raises:
        ValueError: for a context below 2, and as `estimate_throughput`.
    """
    if context < 2:
        raise ValueError(f"a token is decoded after another: context is 2 or more; got {context}")
    arch = architecture_of(model)
    s = SpeedSettings("rloo", sequence_length=context + 1, completion_length=2, **settings)
    policy = roles_of(s)[0]

    def bound_by_arithmetic(batch: int) -> bool:
        work = decode(arch, s, policy, batch)
        return work.arithmetic_seconds(s) >= work.bandwidth_seconds(s)

    low, high = 0, 2**40
    if not bound_by_arithmetic(high):
        return inf
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if bound_by_arithmetic(middle) else (middle, high)
    return high
