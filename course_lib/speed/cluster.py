"""A step on a whole cluster, where all wait for the slowest GPU: simulated, since no formula has that maximum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from course_lib.sizing import phases
from course_lib.sizing.settings import SpeedSettings
from course_lib.speed.throughput import ThroughputEstimate, estimate_throughput

CLUSTER = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)


def simulate_steps(
    found: ThroughputEstimate,
    *,
    steps: int = 30,
    jitter: float = 0.02,
    length_spread: float = 0.4,
    longest: float = 4.0,
    seed: int = 0,
) -> np.ndarray:
    """Seconds of `steps` steps of all GPUs, with completions of random length and machines of uneven speed.

        step = max over GPUs of e^(jitter * z) * (decoding * longest completion + passes * mean length)
               + optimizer + communication

    A completion's length is the estimate's times a gamma variable of mean 1 and standard deviation `length_spread`,
    cut off at `longest`. Sequences decoded together take as long as the longest of them; passes take as long as
    their tokens, padding aside. All GPUs meet once a step, when gradients are reduced; under ZeRO-3 they meet
    at every layer, and wait no less.

    Args:
        jitter: standard deviation of the logarithm of a GPU's speed from step to step.
        longest: times the mean length, where sampling is stopped.

    Raises:
        ValueError: for fewer than one step, a negative spread, or `longest` below 1.
    """
    if steps < 1 or not (jitter >= 0 and length_spread >= 0 and longest >= 1):
        raise ValueError(
            f"steps is at least 1, jitter and length_spread are not negative, longest is at least 1; got {steps}, "
            f"{jitter}, {length_spread}, {longest}"
        )
    random, seconds = np.random.default_rng(seed), {name: phase.seconds for name, phase in found.phases.items()}
    shared = sum(seconds.get(name, 0.0) for name in phases.EQUAL_FOR_ALL)
    decoding = seconds.get(phases.ROLLOUT_DECODING, 0.0)
    passes = sum(seconds.values()) - shared - decoding
    slowest = []
    for _ in range(steps):
        lengths = _lengths(found.settings, random, length_spread, longest)
        own = decoding * _decoded(found.settings, lengths) + passes * _read(found.settings, lengths)
        slowest.append((own * np.exp(jitter * random.standard_normal(len(own)))).max())
    return np.array(slowest) + shared


def _lengths(s: SpeedSettings, random: np.random.Generator, spread: float, longest: float) -> np.ndarray:
    """Completion lengths over their mean, shape (GPUs, sequences of a GPU's step)."""
    shape = (s.gpus, s.rows * s.accumulation)
    if spread == 0:
        return np.ones(shape)
    return np.minimum(random.gamma(spread**-2, spread**2, shape), longest)


def _decoded(s: SpeedSettings, lengths: np.ndarray) -> np.ndarray:
    """Each GPU's mean over its rollout batches of the longest completion in each."""
    starts = range(0, lengths.shape[1], s.decoded_together)
    return np.mean([lengths[:, i : i + s.decoded_together].max(axis=1) for i in starts], axis=0)


def _read(s: SpeedSettings, lengths: np.ndarray) -> np.ndarray:
    """Each GPU's tokens, over the mean."""
    return (s.prompt + s.completion * lengths.mean(axis=1)) / s.sequence_length


def scaling(
    model,
    algorithm: str,
    *,
    gpus: Sequence[int] = CLUSTER,
    steps: int = 30,
    jitter: float = 0.02,
    length_spread: float = 0.4,
    longest: float = 4.0,
    seed: int = 0,
    **settings,
):
    """A step on clusters of several sizes, each GPU with the same micro-batch, so that the batch grows with them.

    Args:
        steps, jitter, length_spread, longest, seed: as in `simulate_steps`.
        settings: as in `estimate_throughput`; ZeRO stage 3 unless said.

    Returns:
        a DataFrame, a row a number of GPUs: examples a step; seconds of one GPU left to itself ("alone"), of exposed
        communication, and of waiting for the longest completion and the slowest GPU; "seconds" of the simulated
        step, their sum; tokens a second in all and a GPU; "efficiency", alone over the whole; and whether the memory
        suffices ("fits").
    """
    import pandas as pd

    rows = {}
    for count in gpus:
        stage = settings.get("zero_stage", 3) if count > 1 else 0
        found = estimate_throughput(model, algorithm, gpus=count, **settings | {"zero_stage": stage})
        simulated = simulate_steps(
            found, steps=steps, jitter=jitter, length_spread=length_spread, longest=longest, seed=seed
        ).mean()
        exposed = found.phases[phases.COMMUNICATION].seconds if count > 1 else 0.0
        alone = found.step_seconds - exposed
        speed = found.tokens / simulated
        rows[count] = {"examples": found.examples, "alone": alone, "communication": exposed,
                       "waiting": simulated - found.step_seconds, "seconds": simulated,
                       "tokens/s": speed * count, "tokens/s/GPU": speed,
                       "efficiency": alone / simulated, "fits": found.fits}  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("GPUs")
