"""How much memory and time training takes: arithmetic about models, no tensors. Stands beside the flow."""

from course_lib.memory.architecture import ARCHITECTURES, Architecture, architecture_of
from course_lib.memory.cluster import scaling, simulate_steps
from course_lib.memory.estimate import MemoryEstimate, estimate_memory
from course_lib.memory.gpus import CONTEXT_BYTES, GB, GIB, GPU, GPUS, gpu_named
from course_lib.memory.memory_claims import (
    LEAN,
    REPORTED_PEAKS,
    fewest_gpus,
    method_peaks,
    reported_grid,
    serving,
)
from course_lib.memory.speed_claims import (
    audit_reported,
    compared_methods,
    decoding_speed,
    phase_seconds,
    speed_ratios,
    turning_batch,
)
from course_lib.memory.throughput import ThroughputEstimate, estimate_throughput

__all__ = [
    "ARCHITECTURES",
    "CONTEXT_BYTES",
    "Architecture",
    "GB",
    "GIB",
    "GPU",
    "GPUS",
    "LEAN",
    "MemoryEstimate",
    "REPORTED_PEAKS",
    "ThroughputEstimate",
    "architecture_of",
    "audit_reported",
    "compared_methods",
    "decoding_speed",
    "estimate_memory",
    "estimate_throughput",
    "fewest_gpus",
    "gpu_named",
    "method_peaks",
    "phase_seconds",
    "reported_grid",
    "scaling",
    "serving",
    "simulate_steps",
    "speed_ratios",
    "turning_batch",
]
