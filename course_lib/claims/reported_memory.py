"""What is claimed about memory, beside what the calculator counts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import pandas as pd

from course_lib.claims.reported_speed import decoding_speed, on_equal_terms
from course_lib.memory import MemoryEstimate, estimate_memory
from course_lib.sizing.architectures import architecture_of
from course_lib.sizing.hardware import CONTEXT_BYTES, GB, gpu_named

# As reported of an 8B model on 8 nodes of 8 H100: peak GB a GPU.
REPORTED_PEAKS = {"PPO": 76.2, "DPO": 48.5, "DPO + LoRA": 24.1, "SimPO": 18.9}
LEAN = {"gradient_checkpointing": True, "logits": "chunked"}  # what costs time and little else


def method_peaks(model="llama-3-8b", *, sequences: int = 2, **settings) -> dict[str, MemoryEstimate]:
    """Estimates for the `REPORTED_PEAKS` methods on equal terms: `sequences` go through a GPU, in pairs or not.

    Raises:
        ValueError: for an odd number of sequences, and as `estimate_memory`.
    """
    return on_equal_terms(estimate_memory, model, sequences, settings)


def fewest_gpus(model, algorithm: str, gpu: str, *, most: int = 128, **settings) -> int | None:
    """The smallest number of such GPUs on which a step fits, sharded by ZeRO-3 from two on; None above `most`.

    Every GPU has the batch of `settings` to itself: more GPUs share the states, and nothing else.

    Raises:
        ValueError: for an unknown GPU, and as `estimate_memory`.
    """
    for count in range(1, most + 1):
        sharded = {"gpus": count, "zero_stage": 3} if count > 1 else {}
        if estimate_memory(model, algorithm, **sharded, **settings).fits(gpu):
            return count
    return None


def serving(model="llama-3-8b", gpu: str = "H100-80GB", *, replies: Sequence[int] = (250, 1000), prompt: int = 250):
    """What longer replies cost a GPU that serves a bf16 model, at the roofline's speed.

    Returns:
        a DataFrame, a row a length of reply: "cache MB" of one finished sequence; how many sequences "fit" beside the
        weights; "tokens/s" and "replies/s" of the full GPU; "tokens/s alone", of one sequence at a time.
    """
    arch, rows = architecture_of(model), {}
    a_token = 2 * arch.layers * arch.keys * 2  # keys and values, two bytes each
    free = gpu_named(gpu).memory - CONTEXT_BYTES - 2 * arch.parameters()
    for reply in replies:
        length = prompt + reply
        fit = int(free // (a_token * length))
        options = {"gpu": gpu, "sequence_length": length, "completion_length": reply}
        speed = decoding_speed(arch, batches=(1, max(fit, 1)), **options)["tokens/s"]
        rows[reply] = {"cache MB": a_token * length / 1e6, "fit": fit, "tokens/s": speed.iloc[1],
                       "replies/s": speed.iloc[1] / reply, "tokens/s alone": speed.iloc[0]}  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("tokens a reply")


def reported_grid(model="llama-3-8b", *, gpus: int = 64, sequences: Sequence[int] = (2, 4, 6, 8, 12, 16, 24, 32)):
    """Peaks of the reported methods under many settings: does one row give the reported table?

    Frozen models are "sharded" like the others, or lie "whole" on each GPU, as where ZeRO-3 is set up for the trained
    ones alone.

    Returns:
        a DataFrame of GB a GPU: a row a setting (sequences of 1,024 tokens a GPU, checkpointing, logits, precision,
        frozen models), a column a method.
    """
    rows = {}
    for count, kept, logits, precision in product(
        sequences, ("kept", "recomputed"), ("full", "chunked"), ("bf16", "autocast")
    ):
        options = {"gradient_checkpointing": kept == "recomputed", "logits": logits, "precision": precision}
        found = method_peaks(model, sequences=count, gpus=gpus, zero_stage=3, **options)
        for frozen in ("sharded", "whole"):
            rows[count, kept, logits, precision, frozen] = {
                name: (e.peak + (_frozen(e) * (gpus - 1) if frozen == "whole" else 0)) / GB for name, e in found.items()
            }
    names = ["sequences", "activations", "logits", "precision", "frozen models"]
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(names)


def _frozen(found: MemoryEstimate) -> float:
    """Bytes of frozen weights on each GPU; with LoRA the policy's are."""
    frozen = ("policy", "reward", "reference") if found.settings.lora_rank else ("reward", "reference")
    weights = {role: size for (role, kind), size in found.parts[found.phase].items() if kind == "weights"}
    return sum(weights.get(role, 0) for role in frozen)
