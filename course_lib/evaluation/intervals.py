"""Means with their uncertainty."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean, stdev


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (0 for a single value)."""
    return fmean(values), stdev(values) if len(values) > 1 else 0.0
