"""Where a step's memory and time go."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from course_lib.figures.alt_text import describe, listed, number
from course_lib.figures.style import COLORS, KIND_COLORS, PHASE_COLORS, TIMELINE_COLORS
from course_lib.memory import estimate_memory
from course_lib.speed import estimate_throughput


def memory_bars(parts: pd.DataFrame, *, xlabel: str, ax: Axes | None = None) -> Axes:
    """Memory by what it holds: a row of `parts` is one arrangement, a column one kind of tensor."""
    parts = parts.loc[:, (parts != 0).any()]
    palette = list(KIND_COLORS.values())
    if set(parts.columns) <= set(KIND_COLORS):
        palette = [KIND_COLORS[column] for column in parts.columns]
    return _part_bars(parts, palette, xlabel, ax)


def memory_timeline(phases: Sequence[str], live: Sequence[float], *, ylabel: str, ax: Axes | None = None) -> Axes:
    """What is held after each operation of a step, shaded by phase, with the peak marked."""
    ax = ax or plt.subplots(figsize=(8, 3.2))[1]
    live, names = np.asarray(live), np.asarray(phases)
    for shade, name in zip(TIMELINE_COLORS, dict.fromkeys(phases), strict=False):
        inside = names == name
        inside[:-1] |= inside[1:]  # the way into a phase is the phase's own
        ax.fill_between(range(len(live)), live, where=inside, color=shade, alpha=0.75, linewidth=0, label=name)
    ax.plot(live, color=COLORS["ink"], linewidth=0.7)
    top = int(live.argmax())
    ax.plot(top, live[top], "o", color=COLORS["ink"], markersize=5)
    highest = {name: live[names == name].max() for name in dict.fromkeys(phases)}
    describe(ax, f"Highest in each phase: {listed(highest)}. The peak, {live[top]:.3g}, is in {names[top]}.")
    ax.annotate(f" peak {live[top]:.3g}", (top, live[top]), xytext=(4, 4), textcoords="offset points", fontsize=9)
    ax.set(xlabel="operation", ylabel=ylabel, xlim=(0, len(live) - 1), ylim=(0, 1.12 * live.max()))
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
    return ax


def time_bars(parts: pd.DataFrame, *, xlabel: str, ax: Axes | None = None) -> Axes:
    """Time by what it goes to: a row of `parts` is one method or cluster, a column one of a step's phases."""
    return _part_bars(parts, [PHASE_COLORS.get(column, COLORS["ink"]) for column in parts.columns], xlabel, ax)


def _part_bars(parts: pd.DataFrame, palette: Sequence[str], xlabel: str, ax: Axes | None) -> Axes:
    ax = ax or plt.subplots(figsize=(8, 0.42 * len(parts) + 1.2))[1]
    left = np.zeros(len(parts))
    for color, column in zip(palette, parts.columns, strict=False):
        ax.barh(range(len(parts)), parts[column], left=left, color=color, label=column, height=0.62)
        left = left + parts[column].to_numpy()
    for y, total in enumerate(left):
        ax.text(total, y, f" {total:.3g}", va="center", fontsize=9)
        row = parts.iloc[y]
        describe(ax, f"{parts.index[y]}: {total:.3g}, of which {listed(row[row != 0])}.")
    ax.set_yticks(range(len(parts)), parts.index)
    ax.set(ylim=(len(parts) - 0.5, -0.5), xlim=(0, 1.1 * left.max()), xlabel=xlabel)
    ax.grid(axis="y", visible=False)
    seen = [column for column in parts.columns if parts[column].max() > left.max() / 300]  # a hair has no legend
    bars = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
    ax.legend([bars[name] for name in seen], seen, loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
    return ax


def roofline_plot(
    phases: pd.DataFrame,
    *,
    peak: float,
    bandwidth: float,
    utilization: tuple[float, float] = (1.0, 1.0),
    ax: Axes | None = None,
) -> Axes:
    """Where each phase lies under the roof: FLOPs a byte against FLOP/s, both on logarithmic scales.

    `phases` has columns "TFLOP", "FLOP/byte" and "seconds", as `ThroughputEstimate.table()`; rows without FLOPs are
    left out. Phases that would hide each other share a dot, in the colour of the longest; a dot's area grows with its
    share of the time. The solid roof is the datasheet's (`peak` in FLOP/s, `bandwidth` in bytes/s), the dashed one
    what the stated shares of both leave of it.
    """
    ax = ax or plt.subplots(figsize=(7.2, 4.2))[1]
    shown = phases[phases["TFLOP"] > 0]
    x = np.geomspace(min(1, shown["FLOP/byte"].min()) / 2, max(3000, shown["FLOP/byte"].max()) * 2, 400)
    roofs = {"-": (1.0, 1.0, "datasheet"), "--": (*utilization, "at the stated utilisation")}
    for line, (of_peak, of_bandwidth, text) in roofs.items():
        roof = np.minimum(peak * of_peak, bandwidth * of_bandwidth * x) / 1e12
        ax.loglog(x, roof, line, color=COLORS["ink"], linewidth=1.3, label=text)
    ridge = peak * utilization[0] / (bandwidth * utilization[1])
    ax.axvline(ridge, color=COLORS["quiet"], linestyle=":", label=f"ridge, {ridge:.0f} FLOPs per byte")
    for names in _neighbours(shown):
        there = shown.loc[names]
        seconds, x = there["seconds"].sum(), there["FLOP/byte"].mean()
        speed = there["TFLOP"].sum() / seconds
        color = PHASE_COLORS.get(names[0], COLORS["ink"])
        for name, row in there.iterrows():
            place = f"{number(row['FLOP/byte'])} FLOPs per byte, {number(row['TFLOP'] / row['seconds'])} TFLOP/s"
            describe(ax, f"{name}: {place}, {'left' if row['FLOP/byte'] < ridge else 'right'} of the ridge.")
        text = ",\n".join(f"{name} {size:.2g} s" for name, size in there["seconds"].items())
        area = 30 + 450 * seconds / shown["seconds"].sum()
        ax.scatter(x, speed, s=area, color=color, edgecolor="white", zorder=3, label=text)
    ax.set(xlabel="arithmetic intensity (FLOPs per byte)", ylabel="speed (TFLOP/s)")
    for handle in ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9).legend_handles[3:]:
        handle.set_sizes([60])
    return ax


def _neighbours(phases: pd.DataFrame, apart: float = 1.5) -> list[list[str]]:
    """Names of the phases by place, longest first; two are neighbours that lie less than `apart` times apart."""
    groups: list[list[str]] = []
    speed = phases["TFLOP"] / phases["seconds"]
    for name in phases.sort_values("seconds", ascending=False).index:
        for group in groups:
            ratios = phases["FLOP/byte"][name] / phases["FLOP/byte"][group[0]], speed[name] / speed[group[0]]
            if all(1 / apart < ratio < apart for ratio in ratios):
                group.append(name)
                break
        else:
            groups.append([name])
    return groups


def plot_memory(model: str, algorithm: str, **settings) -> plt.Figure:
    """A training step's memory phase by phase, by what it holds; settings as in `estimate_memory`."""
    found = estimate_memory(model, algorithm, **settings)
    axes = memory_bars(found.table(), xlabel="memory of one GPU (GB)")
    axes.set_title(f"{model}, {algorithm}: peak {found.peak / 1e9:.1f} GB, {found.phase}")
    return axes.figure


def plot_speed(model: str, algorithm: str, **settings) -> plt.Figure:
    """A step's phases under the roofline, and the time that each takes; settings as in `estimate_throughput`."""
    found = estimate_throughput(model, algorithm, **settings)
    s = found.settings
    figure, (upper, lower) = plt.subplots(2, figsize=(7.2, 5.8), height_ratios=(3, 1))
    shares = (s.utilization, s.bandwidth_utilization)
    roofline_plot(found.table(), peak=found.peak_flops, bandwidth=s.machine.bandwidth, utilization=shares, ax=upper)
    upper.set_title(f"{model}, {algorithm}, {s.gpu}: {found.tokens_per_second:,.0f} tokens per second and GPU")
    time_bars(found.table()[["seconds"]].T, xlabel="time of a step (seconds)", ax=lower)
    lower.set_yticks([])
    names = list(found.table().index)  # the same colours as above, and the phases that multiply nothing
    lower.legend(lower.containers, names, loc="upper center", bbox_to_anchor=(0.5, -0.6), ncols=4, fontsize=8)
    figure.tight_layout()
    return figure
