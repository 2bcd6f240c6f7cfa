"""Pairs and losses: margins, log-ratios, and where each loss pushes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from course_lib.figures.alt_text import describe, listed
from course_lib.figures.style import COLORS, label


def margin_histogram(margins: Mapping[str, Sequence[float]], *, xlabel: str, ax: Axes | None = None) -> Axes:
    """Distributions of a margin over held-out pairs on common bins, with the share above zero in the legend."""
    ax = ax or plt.subplots()[1]
    everything = np.concatenate([np.asarray(m) for m in margins.values()])
    low, high = np.quantile(everything, [0.002, 0.998])
    bins = np.linspace(low, high, 60)
    for name, values in margins.items():
        share = (np.asarray(values) > 0).mean()
        color = COLORS.get(name.split()[0].lower())
        ax.hist(values, bins=bins, alpha=0.6, color=color, label=f"{name}: {share:.0%} above 0")
        describe(ax, f"Histogram of {name}: median {np.median(values):.3g}, {share:.0%} of {len(values)} above 0.")
    ax.axvline(0, color=COLORS["ink"], linewidth=0.8)
    ax.set(xlabel=xlabel, ylabel="number of pairs", ylim=(0, (1.1 + 0.1 * len(margins)) * ax.get_ylim()[1]))
    ax.legend()
    return ax


def log_ratio_scatter(report: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Each held-out pair's log-ratios, chosen across and rejected up: pairs below the diagonal are in order."""
    ax = ax or plt.subplots(figsize=(4.6, 4.2))[1]
    chosen = report.policy_chosen - report.ref_chosen
    rejected = report.policy_rejected - report.ref_rejected
    right = chosen > rejected
    ax.scatter(chosen[right], rejected[right], s=7, alpha=0.5, color=COLORS["chosen"], label="right order")
    ax.scatter(chosen[~right], rejected[~right], s=7, alpha=0.6, color=COLORS["rejected"], label="wrong order")
    ends = [min(chosen.min(), rejected.min()), max(chosen.max(), rejected.max())]
    ax.plot(ends, ends, color=COLORS["ink"], linewidth=0.8)
    ax.set(xlabel="log-ratio of the chosen response (nats)", ylabel="log-ratio of the rejected (nats)")
    ax.legend(markerscale=2)
    describe(ax, f"Scatter of {len(right)} pairs: {right.mean():.0%} in the right order, below the diagonal.")
    describe(ax, f"Median log-ratio: {listed({'chosen': chosen.median(), 'rejected': rejected.median()})}.")
    return ax


def loss_family(
    h: Sequence[float],
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    stops: Mapping[str, float | None],
) -> plt.Figure:
    """Losses over the difference of log-ratios `h`: value, pull, and where each stops; `curves` holds value and slope.

    Each loss is measured by its own slope at h = 0, so that all start alike there. Arrows in the lower panel show
    the direction and strength of the pull, up to one and a half times that at h = 0.
    """
    h = np.asarray(h)
    start, middle = int(np.abs(h).argmin()), np.abs(h) <= 0.4 * h[-1]
    figure, axes = plt.subplot_mosaic([["value", "pull"], ["rows", "rows"]], figsize=(10, 7), height_ratios=(1, 0.9))
    shown = {"value": [], "pull": []}
    for y, (method, (value, slope)) in enumerate(curves.items()):
        value, slope = np.asarray(value), np.asarray(slope)
        style = "-" if method in ("dpo", "ipo", "kto") else (0, (5, 1.5))
        lines = {"value": (value - value[start]) / -slope[start], "pull": slope / slope[start]}
        for panel, line in lines.items():
            axes[panel].plot(h, line, color=COLORS[method], linestyle=style, label=label(method))
            shown[panel].append(line[middle])
        _pull_row(axes["rows"], y, h, lines["pull"], stops[method], COLORS[method])
        ends = f"{lines['pull'][0]:.3g} at h = {h[0]:.3g}, {lines['pull'][-1]:.3g} at h = {h[-1]:.3g}"
        stop = "does not stop" if stops[method] is None else f"stops at h = {stops[method]:.3g}"
        describe(axes["pull"], f"{label(method)}: {ends}.")
        describe(axes["rows"], f"{label(method)} {stop}.")
    for panel, text in {"value": "loss above its value at h = 0 (nats)", "pull": "pull, relative to h = 0"}.items():
        low, high = np.min(shown[panel]), np.max(shown[panel])
        axes[panel].set(xlim=(h[0], h[-1]), ylim=(1.1 * low - 0.1 * high, 1.1 * high - 0.1 * low), ylabel=text)
        axes[panel].axhline(0, color=COLORS["ink"], linewidth=0.8)
        axes[panel].set_xlabel("difference of log-ratios h (nats)")
    axes["value"].legend(fontsize=8.5, loc="lower left", ncols=2)
    axes["value"].set_title("each loss, divided by its slope at h = 0")
    axes["pull"].set_title("how hard it pulls towards larger h")
    axes["rows"].set_title("where each loss pushes a pair, and where it stops")
    axes["rows"].set_yticks(range(len(curves)), map(label, curves))
    axes["rows"].set(xlim=(h[0], h[-1] + 0.22 * np.ptp(h)), ylim=(len(curves) - 0.4, -0.6))
    axes["rows"].set(xticks=axes["value"].get_xticks(), xlabel="difference of log-ratios h (nats)")
    axes["rows"].grid(axis="y", visible=False)
    figure.tight_layout()
    return figure


def _pull_row(ax: Axes, y: int, h: np.ndarray, pull: np.ndarray, stop: float | None, color: str) -> None:
    """One loss as a row of arrows, with its fixed point if it has one."""
    at = np.linspace(h[0], h[-1], 18)[1:-1]
    length = 0.85 * (at[1] - at[0]) * np.clip(np.interp(at, h, pull), -1.5, 1.5) / 1.5
    rows = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.0035, "pivot": "mid"}
    ax.quiver(at, np.full_like(at, y), length, 0 * at, color=color, **rows)
    if stop is not None and stop < h[-1]:
        ax.plot(stop, y, "o", color="white", markeredgecolor=color, markeredgewidth=2.2, markersize=8)
    text = f"no stop; pull {pull[-1]:.2f} at h = {h[-1]:.0f}" if stop is None else f"stops at h = {stop:.2f}"
    ax.text(h[-1] + 0.015 * np.ptp(h), y, text, va="center", fontsize=8.5, color=COLORS["ink"])


def plot_dpo_loss(beta: float = 0.1, h: float = 0.0) -> plt.Figure:
    """DPO's loss and a pair's weight, sigmoid(-beta h), against the difference of log-ratios `h`, one pair marked."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
    x = np.linspace(-60, 60, 400)
    margin = beta * x
    loss, weight = np.logaddexp(0, -beta * h), 1 / (1 + np.exp(beta * h))
    left.plot(x, np.logaddexp(0, -margin), color=COLORS["dpo"])
    left.plot(h, loss, "o", color=COLORS["ink"])
    left.axhline(np.log(2), color=COLORS["quiet"], linestyle=":", label="ln 2, where training starts")
    left.set(xlabel="difference of log-ratios h (nats)", ylabel="loss (nats)", ylim=(0, 6.5))
    left.legend()
    right.plot(x, 1 / (1 + np.exp(margin)), color=COLORS["dpo"])
    right.plot(h, weight, "o", color=COLORS["ink"])
    right.set(xlabel="difference of log-ratios h (nats)", ylabel="weight of the pair", ylim=(0, 1.05))
    figure.suptitle(f"beta = {beta:.2f}", x=0.07, ha="left")
    describe(left, f"The loss falls as h grows, from ln 2 at h = 0 towards 0; {loss:.3g} at the marked h = {h:.3g}.")
    describe(right, f"The weight falls from 1 through a half at h = 0 to 0; {weight:.3g} at the marked h = {h:.3g}.")
    figure.tight_layout()
    return figure
