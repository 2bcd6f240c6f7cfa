"""What data-parallel GPUs send one another in a step, and how long it takes.

    seconds of a collective operation = (N - 1) / N * bytes / bandwidth + hops * latency

Source: Rajbhandari et al. 2020, ZeRO, section 7 (volumes); Thakur et al. 2005 (rings and the latency-bandwidth model).
"""

from __future__ import annotations

from math import ceil, log2

from course_lib.sizing.settings import SpeedSettings, roles_of
from course_lib.sizing.shapes import Architecture
from course_lib.speed.passes import Pass, unsharded_states

# Seconds a hop, in a node and between nodes: NCCL's own tuning table, with the protocol for large messages.
NODE_LATENCY, NETWORK_LATENCY = 3.4e-6, 14e-6


def communication(arch: Architecture, s: SpeedSettings, passes: list[Pass]) -> tuple[float, float]:
    """Bytes that each GPU sends in a step, and the seconds that takes; one collective operation a layer."""
    if s.gpus == 1:
        return 0.0, 0.0
    moved, collectives = 0.0, 0.0
    for role in roles_of(s):
        states = unsharded_states(arch, s, role)
        reductions, gathers = _optimizer_collectives(s) if role.trained else (0, 0)
        fetches = sum(p.times for p in passes if p.role == role and p.fetches) if s.zero_stage == 3 else 0
        moved += (reductions + gathers) * states["gradients"] + fetches * _fetched(s, states["weights"])
        collectives += (reductions + gathers + fetches) * arch.layers
    sent = moved * (s.gpus - 1) / s.gpus
    return sent, sent / (ring_bandwidth(s) * s.link_utilization) + collectives * latency(s)


def _optimizer_collectives(s: SpeedSettings) -> tuple[int, int]:
    """How often gradients are reduced and scattered, and how often updated weights (or gradients) are gathered.

    From stage 2 on a GPU keeps its shard of the gradients alone, so each micro-batch reduces them; stage 3 gathers
    weights when a pass needs them.
    """
    reductions = s.accumulation if s.zero_stage >= 2 else 1
    return s.update_epochs * reductions, s.update_epochs if s.zero_stage < 3 else 0


def _fetched(s: SpeedSettings, weights: float) -> float:
    return weights / 2 if s.precision == "autocast" else weights  # fp32 shards travel in bf16


def nodes(s: SpeedSettings) -> int:
    return ceil(s.gpus / s.gpus_per_node)


def ring_bandwidth(s: SpeedSettings) -> float:
    """Bytes a second: between nodes as many rings run as a node has GPUs, each over one GPU's share of the network."""
    gpu = s.machine
    return gpu.link if nodes(s) == 1 else min(gpu.link, s.gpus_per_node * gpu.network)


def latency(s: SpeedSettings) -> float:
    """Seconds that half an all-reduce, or a gather, takes for a message of no length.

    Sums that all GPUs keep whole (stage 0) climb a tree between nodes; shards go around a ring of all GPUs.
    """
    if s.zero_stage == 0:
        return (min(s.gpus, s.gpus_per_node) - 1) * NODE_LATENCY + log2(nodes(s)) * NETWORK_LATENCY
    between = nodes(s) - 1
    return (s.gpus - 1 - between) * NODE_LATENCY + between * NETWORK_LATENCY
