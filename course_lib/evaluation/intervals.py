"""Means with their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for a single value)."""
    return fmean(values), stdev(values) if len(values) > 1 else 0.0


def paired_interval(
    first: Sequence[float], second: Sequence[float], *, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Mean of `first - second`, value by value, and the ends of its Student interval.

        mean +- t * s / sqrt(n),    s the differences' standard deviation, t Student's quantile with n - 1 degrees

    With three values t is 4.3 at 95%: a difference must be 2.5 times its own spread before the interval leaves
    zero out. For k comparisons at once pass 1 - (1 - confidence) / k (Bonferroni).

    Raises:
        ValueError: for different lengths, fewer than two values (which have no spread), values that are not finite,
            or a confidence that is not between 0 and 1.
    """
    from scipy.stats import t

    if len(first) != len(second) or len(first) < 2:
        raise ValueError(f"pairs of at least two values are needed; got {len(first)} and {len(second)} values")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is a number between 0 and 1; got {confidence!r}")
    differences = [float(a) - float(b) for a, b in zip(first, second, strict=True)]
    for place, value in enumerate(differences):
        if not math.isfinite(value):
            raise ValueError(f"all values must be finite; pair {place} is {first[place]} and {second[place]}")
    mean, spread = mean_and_spread(differences)
    half = float(t.ppf((1 + confidence) / 2, len(differences) - 1)) * spread / math.sqrt(len(differences))
    return mean, mean - half, mean + half
