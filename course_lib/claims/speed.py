"""Claims of lesson 14: arithmetic about Llama-3-8B under a roofline. Nothing here is timed."""

from __future__ import annotations

from functools import cache
from itertools import product

import pandas as pd

from course_lib.claims.judging import DEPENDS, Claim, Judgement, of_parts
from course_lib.claims.reported_speed import audit_reported, speed_ratios, turning_batch
from course_lib.sizing import CONTEXT_BYTES, architecture_of, gpu_named
from course_lib.speed import estimate_throughput

NODES = {"gpus": 64, "zero_stage": 3, "gradient_checkpointing": True}  # 8 nodes of 8 H100
TOGETHER = (8, 16, 32, 64, 128, 256)  # replies that a GPU decodes together
TRAINED_ON = ("A100-80GB", "H100-80GB", "H200-141GB", "B200-180GB", "MI300X-192GB")


def reported_table() -> Judgement:
    table = audit_reported(accumulation=8, **NODES)  # PPO decodes 64 replies together
    tokens, used, speed = table["million tokens"], table["utilisation"], table["tokens/s"]
    most, reported = most_by_dropping_the_reference(), speed["SimPO"] / speed["DPO"]
    parts = {
        "all four speeds lie under their roofline": (speed <= table["roofline"]).all(),
        "SimPO leads DPO by no more than dropping the reference allows": reported <= most,
        "speeds and hours speak of equally many tokens": tokens.max() < 1.05 * tokens.min(),
    }
    return of_parts(
        parts,
        f"{(speed <= table['roofline']).sum()} of {len(table)} speeds lie under their roofline ({used.min():.0%} to "
        f"{used.max():.0%} of an H100's peak); but SimPO is reported {reported:.2f} times as fast as DPO, where "
        f"dropping the reference allows {most:.2f} at most; speed times hours is {tokens.drop('PPO').min():.0f} to "
        f"{tokens.drop('PPO').max():.0f} million tokens a GPU for three methods, and {tokens['PPO']:.0f} for PPO",
    )


def most_by_dropping_the_reference() -> float:
    """The largest SimPO over DPO that any of these settings gives, both on equal terms."""
    options = product((2, 32), (512, 4096), (False, True), ({}, {"gpus": 64, "zero_stage": 3}))
    return max(
        speed_ratios(sequences=n, sequence_length=length, gradient_checkpointing=again, **gpus).roofline["SimPO / DPO"]
        for n, length, again, gpus in options
    )


@cache
def leads(critic: str) -> pd.DataFrame:
    """DPO over PPO, a row a number of replies that are decoded together; columns as in `speed_ratios`."""
    rows = {n: speed_ratios(accumulation=n // 8, critic=critic, **NODES).loc["DPO / PPO"] for n in TOGETHER}
    return pd.DataFrame(rows).T


def lead_of_dpo() -> Judgement:
    lead = leads("separate").roofline
    inside = {f"2 to 3 times with {n} replies decoded together": 2 <= x <= 3 for n, x in lead.items()}
    listed = ", ".join(f"{x:.1f} times ({n} replies)" for n, x in lead.items())
    figure = f"64 H100, a critic of its own, by how many replies a GPU decodes together: {listed}"
    return of_parts(inside, figure, mixed=DEPENDS + "batch")


def because_it_never_decodes() -> Judgement:
    free = {critic: leads(critic)["decoding free"] for critic in ("separate", "shared")}
    gain = leads("separate").roofline / free["separate"]
    alone, adds = all(f.max() < 1.1 for f in free.values()), gain.max() > 1.1
    return of_parts(
        {"sampling adds to DPO's lead": adds, "without sampling there is no lead": alone},
        f"if sampling cost nothing, DPO would still lead {span(free['separate'])}, because PPO trains a critic and "
        f"asks a reward model too ({span(free['shared'])} where actor and critic share a body); sampling multiplies "
        f"that by {gain.min():.1f} to {gain.max():.1f}, the more the fewer replies are decoded together",
    )


def span(values: pd.Series) -> str:
    low, high = f"{values.min():.1f}", f"{values.max():.1f}"
    return f"{low} times" if low == high else f"{low} to {high} times"


def bounds(model: str = "llama-3-8b") -> pd.DataFrame:
    """What bounds decoding and training, a row a case whose weights, keys and values a GPU can hold."""
    arch, rows = architecture_of(model), []
    for gpu, batch, length in product(TRAINED_ON, (1, 8, 64, 512), (256, 1024)):
        held = 2 * arch.parameters() + batch * length * 2 * 2 * arch.layers * arch.keys
        if held <= gpu_named(gpu).memory - CONTEXT_BYTES:
            phases = estimate_throughput(model, "rloo", gpu=gpu, batch_size=batch, sequence_length=length).phases
            names = ("rollout decoding", "policy forward", "backward", "optimizer")
            rows.append({"gpu": gpu, "batch": batch, "length": length} | {name: phases[name].bound for name in names})
    return pd.DataFrame(rows)


def what_bounds() -> Judgement:
    found = bounds()
    decoding = found["rollout decoding"] == "bandwidth"
    training = (found[["policy forward", "backward"]] == "arithmetic").all(axis=1)
    step = "also" if (found["optimizer"] == "bandwidth").all() else "not always"
    turns = {n: turning_batch(context=n) for n in (2, 256, 1024)}
    parts = {
        "training is bound by arithmetic in every case": training.all(),
        "decoding is bound by bandwidth in most cases": decoding.mean() > 0.5,
        "decoding is bound by bandwidth in every case": decoding.all(),
    }
    return of_parts(
        parts,
        f"of {len(found)} cases on five GPUs, decoding is bound by bandwidth in {decoding.sum()}, passes with "
        f"gradients by arithmetic in {training.sum()}; the optimiser's step is {step} bound by bandwidth; at 40% of an "
        f"H100's arithmetic and 70% of its bandwidth decoding turns at {turns[2]} sequences of two tokens, at "
        f"{turns[256]} of 256, and at {turns[1024] if turns[1024] < float('inf') else 'no number'} of 1,024",
    )


CLAIMS = [
    Claim(
        "S1",
        "S1: reported speeds and hours of four methods agree with one another and a roofline",
        "A",
        "all four read equally many tokens, to 5%, lie under their roofline, and SimPO leads DPO by no more than "
        "dropping the reference allows",
        reported_table,
        ("14",),
    ),
    Claim(
        "S2a",
        "S2, its size: DPO trains 2-3 times as many tokens a second as PPO",
        "A",
        "the roofline's ratio lies between 2 and 3 for all numbers of replies decoded together",
        lead_of_dpo,
        ("14",),
    ),
    Claim(
        "S2b",
        "S2, its reason: because it never decodes",
        "A",
        "holds if DPO leads by less than 1.1 times where sampling costs nothing; in part if sampling adds more than "
        "that",
        because_it_never_decodes,
        ("14",),
    ),
    Claim(
        "S3",
        "S3: decoding is bound by memory bandwidth, training by arithmetic",
        "A",
        "in all cases that fit on five GPUs",
        what_bounds,
        ("14",),
    ),
]
