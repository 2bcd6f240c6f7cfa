"""What a run and its outcomes look like: curves, bars over seeds, sweeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from course_lib.figures.alt_text import describe, listed
from course_lib.figures.style import COLORS, REWARD_PART_COLORS, label


def curves(history: pd.DataFrame, columns: Mapping[str, str], *, ylabel: str, ax: Axes | None = None) -> Axes:
    """Columns of a history against optimiser steps; `columns` maps each to its label."""
    ax = ax or plt.subplots()[1]
    for column, text in columns.items():
        color = COLORS.get(column.rsplit("/", 1)[-1])
        ax.plot(history.index, history[column], label=text, color=color)
        known = history[column].dropna()
        if len(known):
            describe(ax, f"Curve of {text}: from {known.iloc[0]:.3g} to {known.iloc[-1]:.3g}.")
    ax.set(xlabel="optimiser step", ylabel=ylabel)
    if len(columns) > 1:
        ax.legend()
    return ax


def bars(values: Mapping[str, Sequence[float]], *, ylabel: str, ax: Axes | None = None) -> Axes:
    """One bar a method: the mean over its seeds, the single seeds as dots."""
    ax = ax or plt.subplots()[1]
    for x, (method, seeds) in enumerate(values.items()):
        color = COLORS.get(method.split()[0].lower().strip(","), COLORS["quiet"])
        ax.bar(x, np.mean(seeds), color=color, alpha=0.75, width=0.62)
        ax.scatter([x] * len(seeds), seeds, color=COLORS["ink"], s=14, zorder=3)
        ax.annotate(
            f"{np.mean(seeds):.2f}", (x, max(0, *seeds)), xytext=(0, 5), textcoords="offset points", ha="center"
        )
    ax.axhline(0, color=COLORS["ink"], linewidth=0.8)
    ax.margins(y=0.12)
    describe(ax, f"Bars: {listed({label(m): np.mean(seeds) for m, seeds in values.items()})}.")
    ax.set_xticks(range(len(values)), [label(m) for m in values])
    ax.grid(axis="x", visible=False)
    ax.set_ylabel(ylabel)
    return ax


def refusals(arms: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Axes:
    """Harmless and unsafe requests refused, one dot a seed: the corner with few of the first and most of the second."""
    ax = plt.subplots(figsize=(6, 3.6))[1]
    ax.add_patch(plt.Rectangle((-0.03, 0.8), 0.23, 0.23, color=COLORS["chosen"], alpha=0.12, linewidth=0))
    ax.text(0.21, 1.0, "wanted", color=COLORS["chosen"], fontsize=9, va="top")
    for arm, (harmless, unsafe) in arms.items():
        color = COLORS.get(arm.lower(), COLORS["quiet"])
        ax.scatter(harmless, unsafe, color=color, label=label(arm), s=42, alpha=0.85)
        pairs = ", ".join(f"{a:.2f} and {b:.2f}" for a, b in zip(harmless, unsafe, strict=True))
        describe(ax, f"{label(arm)} refuses, harmless and unsafe requests, seed by seed: {pairs}.")
    ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel="share of harmless requests refused")
    ax.set_ylabel("share of unsafe requests refused")
    ax.legend(loc="lower right")
    return ax


def stacked_parts(parts: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Mean parts of the gold reward, one row of `parts` a method: gains to the right, losses to the left."""
    ax = ax or plt.subplots(figsize=(8, 0.6 * len(parts) + 1.2))[1]
    y = np.arange(len(parts))
    right, left = np.zeros(len(parts)), np.zeros(len(parts))
    for color, column in zip(REWARD_PART_COLORS, parts.columns, strict=False):
        values = parts[column].to_numpy()
        start = np.where(values >= 0, right, left)
        ax.barh(y, values, left=start, color=color, label=column if np.abs(values).max() >= 0.01 else None, height=0.6)
        right, left = right + np.maximum(values, 0), left + np.minimum(values, 0)
    ax.plot(parts.sum(axis=1), y, "D", color=COLORS["ink"], markersize=6, label="gold reward")
    for method, row in parts.iterrows():
        describe(ax, f"{label(method)}: {row.sum():.3g}, the sum of {listed(row[row != 0])}.")
    ax.axvline(0, color=COLORS["ink"], linewidth=0.8)
    ax.set_yticks(y, [label(m) for m in parts.index])
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    room = 0.05 * (right.max() - left.min())
    ax.set(xlim=(left.min() - room, right.max() + room), xlabel="mean gold reward per response (reward units)")
    ax.legend(ncols=1, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return ax


def temperature_sweep(temperatures: Sequence[float], gold: Mapping[str, Sequence[Sequence[float]]]) -> Axes:
    """Gold reward against sampling temperature: for each model one row a seed; lines are means, bands all seeds."""
    ax = plt.subplots()[1]
    for model, seeds in gold.items():
        values, color = np.asarray(seeds), COLORS.get(model, COLORS["quiet"])
        ax.plot(temperatures, values.mean(axis=0), "o-", color=color, label=label(model))
        ax.fill_between(temperatures, values.min(axis=0), values.max(axis=0), color=color, alpha=0.2)
        means = dict(zip(map(str, temperatures), values.mean(axis=0), strict=True))
        describe(ax, f"{label(model)}'s mean gold reward at each temperature: {listed(means)}.")
    ax.set(xlabel="sampling temperature", ylabel="mean gold reward (reward units)")
    ax.legend()
    return ax


def sweep(
    settings: Sequence[float],
    outcomes: Mapping[str, Sequence[Sequence[float]]],
    *,
    xlabel: str,
    ylabel: str,
    ax: Axes | None = None,
) -> Axes:
    """Outcomes over a setting on a logarithmic axis: the mean over seeds as a line, lowest to highest as a band.

    `outcomes` maps a label to one row of seeds for each setting. A label that is a method has its colour.
    """
    ax = ax or plt.subplots()[1]
    for name, rows in outcomes.items():
        values = np.array(rows)
        (line,) = ax.plot(settings, values.mean(axis=1), "o-", color=COLORS.get(name), label=label(name))
        means = dict(zip((f"{setting:.3g}:" for setting in settings), values.mean(axis=1), strict=True))
        describe(ax, f"{label(name)}, mean at {listed(means)}.")
        ax.fill_between(settings, values.min(axis=1), values.max(axis=1), color=line.get_color(), alpha=0.2)
    ax.set(xscale="log", xlabel=xlabel, ylabel=ylabel)
    if len(outcomes) > 1:
        ax.legend()
    return ax


def shifts(
    before: Mapping[str, Sequence[float]],
    after: Mapping[str, Sequence[float]],
    *,
    names: tuple[str, str],
    xlabel: str,
    levels: Mapping[str, float] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """What a change does to each method: a row a method, from `before` (hollow) to `after` (filled), seeds as dots.

    A method without `before` has its filled mark alone; `levels` are dotted lines, name to value.
    """
    ax = ax or plt.subplots(figsize=(6.4, 0.42 * len(after) + 1.1))[1]
    for y, (method, values) in enumerate(after.items()):
        color, mean = COLORS.get(method, COLORS["quiet"]), np.mean(values)
        start = f"from {np.mean(before[method]):.3g} ({names[0]}) " if method in before else ""
        describe(ax, f"{label(method)}: {start}to {mean:.3g} ({names[1]}).")
        if method in before:
            first = np.mean(before[method])
            ax.annotate("", (mean, y), (first, y), arrowprops={"arrowstyle": "-", "color": color, "linewidth": 2})
            ax.plot(before[method], np.full(len(before[method]), y - 0.22), ".", color=color, alpha=0.55, markersize=5)
            ax.plot(first, y, "o", color="white", markeredgecolor=color, markeredgewidth=2, markersize=8)
        ax.plot(values, np.full(len(values), y + 0.22), ".", color=COLORS["ink"], alpha=0.7, markersize=5)
        ax.plot(mean, y, "o", color=color, markersize=9)
    for name, value in (levels or {}).items():
        ax.axvline(value, color=COLORS.get(name, COLORS["quiet"]), linestyle=":", label=label(name))
        describe(ax, f"{label(name)}: a line at {value:.3g}.")
    for name, fill in zip(names, ("white", COLORS["quiet"]), strict=True):
        ax.plot([], [], "o", color=fill, markeredgecolor=COLORS["quiet"], markeredgewidth=2, label=name)
    ax.set_yticks(range(len(after)), map(label, after))
    ax.set(ylim=(len(after) - 0.5, -0.5), xlabel=xlabel)
    ax.grid(axis="y", visible=False)
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return ax


def intervals(rows: Mapping[str, tuple[float, float, float]], *, xlabel: str, ax: Axes | None = None) -> Axes:
    """Means with the ends of their intervals, one a row; those that leave zero out are drawn dark."""
    ax = ax or plt.subplots(figsize=(6.4, 0.36 * len(rows) + 1.0))[1]
    for y, (mean, low, high) in enumerate(rows.values()):
        color = COLORS["ink"] if low > 0 or high < 0 else COLORS["quiet"]
        ax.plot([low, high], [y, y], color=color, linewidth=2)
        describe(ax, f"{list(rows)[y]}: {mean:.3g}, between {low:.3g} and {high:.3g}.")
        ax.plot(mean, y, "o", color=color, markersize=7)
    ax.axvline(0, color=COLORS["ink"], linewidth=0.8)
    ax.set_yticks(range(len(rows)), rows)
    ax.set(ylim=(len(rows) - 0.5, -0.5), xlabel=xlabel)
    ax.grid(axis="y", visible=False)
    return ax
