"""Short and right: what became of a model that learnt to be brief."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from course_lib.figures.alt_text import describe
from course_lib.figures.style import COLORS


def brief_and_right(arms: Mapping[str, tuple[Sequence[float], Sequence[float]]], colors: Mapping[str, str]) -> Axes:
    """Words for each reply against the share that is right: a small dot a seed, a large one for an arm's mean.

    Args:
        arms: for each arm, words and shares, one value a seed.
        colors: of the arms, as `COLORS` names them.
    """
    ax = plt.subplots(figsize=(7.6, 4.2))[1]
    for arm, (lengths, shares) in arms.items():
        color = COLORS[colors[arm]]
        ax.scatter(lengths, shares, color=color, s=16, alpha=0.6, linewidths=0)
        ax.scatter(fmean(lengths), fmean(shares), color=color, s=90, label=arm, edgecolors="white", zorder=3)
        describe(ax, f"{arm}: {fmean(lengths):.1f} words, {fmean(shares):.2f} right.")
    ax.set(xlabel="words per greedy reply", ylabel="share of right replies", ylim=(0, 1))
    ax.set_xlim(left=0)
    ax.legend(bbox_to_anchor=(1.01, 1), loc="upper left")
    return ax
