"""How long a training step takes on given GPUs, and what holds it up: arithmetic, memory bandwidth or links.

An estimate is made in four moves. `work` counts the FLOPs and the memory traffic of one pass through one model.
`passes` lists the passes that a method makes in a step. `communication` adds what GPUs send one another. `throughput`
turns all of it into seconds, phase by phase; `cluster` lets the GPUs differ, so that all wait for the slowest.
"""

from course_lib.speed.cluster import scaling, simulate_steps
from course_lib.speed.throughput import ThroughputEstimate, estimate_throughput

__all__ = ["ThroughputEstimate", "estimate_throughput", "scaling", "simulate_steps"]
