"""Means with their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

import numpy as np


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
        ValueError: for different lengths or fewer than two values, which have no spread.
    """
    if len(first) != len(second) or len(first) < 2:
        raise ValueError(f"pairs of at least two values are needed; got {len(first)} and {len(second)} values")
    mean, spread = mean_and_spread([a - b for a, b in zip(first, second, strict=True)])
    half = student_quantile(confidence, len(first) - 1) * spread / math.sqrt(len(first))
    return mean, mean - half, mean + half


def student_quantile(confidence: float, freedom: int) -> float:
    """The t for which P(|T| < t) = `confidence`, T Student's with `freedom` degrees of freedom, to four digits.

    With T = sqrt(freedom) * tan(angle), the angle's density is proportional to cos(angle)^(freedom - 1).
    """
    angles = np.linspace(0, np.pi / 2, 200_001)
    mass = np.cumsum(np.cos((angles[1:] + angles[:-1]) / 2) ** (freedom - 1))
    angle = np.interp(confidence, np.append(0, mass) / mass[-1], angles)
    return math.sqrt(freedom) * math.tan(angle)
