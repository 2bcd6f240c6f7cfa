"""The course's figures: one palette, one style, a method keeps its colour everywhere. The right end of the flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

# Okabe and Ito's colour-blind safe palette, and dark shades of Paul Tol's; a method keeps its colour in every figure.
COLORS = {
    "base": "#999999",
    "sft": "#0072B2",
    "reward": "#F0E442",
    "ppo": "#D55E00",
    "dpo": "#009E73",
    "ipo": "#CC79A7",
    "kto": "#E69F00",
    "simpo": "#56B4E9",
    "cdpo": "#117733",
    "robust": "#882255",
    "length-dpo": "#999933",
    "dpo-mean": "#44AA99",
    "orpo": "#332288",
    "rlhf": "#D55E00",
    "reference": "#0072B2",
    "chosen": "#009E73",
    "rejected": "#D55E00",
    "ink": "#222222",
    "quiet": "#999999",
}
STYLE = {
    "figure.figsize": (6.4, 3.4),
    "figure.dpi": 110,
    "savefig.dpi": 110,
    "savefig.bbox": "tight",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "axes.prop_cycle": mpl.cycler(color=[COLORS[m] for m in ("sft", "dpo", "ppo", "kto", "ipo", "simpo", "base")]),
    "svg.hashsalt": "course",
}


def use_style() -> None:
    """Draw all figures from here on in the course's style."""
    plt.rcParams.update(STYLE)


def label(method: str) -> str:
    """A method's name as figures print it."""
    mixed = {
        "simpo": "SimPO",
        "cdpo": "cDPO",
        "robust": "robust DPO",
        "length-dpo": "length-DPO",
        "dpo-mean": "DPO on token means",
    }
    return (
        method.upper()
        if method in ("sft", "ppo", "dpo", "ipo", "kto", "orpo", "rloo", "grpo")
        else mixed.get(method, method)
    )


def token_masks(tokens: Sequence[Sequence[str]], roles: Sequence[Sequence[str]]) -> plt.Figure:
    """Rows of tokens in boxes, coloured by what each is: "prompt", "completion", "end" or "padding"."""
    fills = {"prompt": "#DDE7F0", "completion": "#BFE5D8", "end": "#F5D9C4", "padding": "#F2F2F2"}
    columns = max(map(len, tokens))
    figure, axes = plt.subplots(figsize=(min(13, 0.72 * columns), 0.62 * len(tokens) + 0.6))
    for y, (row, row_roles) in enumerate(zip(tokens, roles, strict=True)):
        for x, (token, role) in enumerate(zip(row, row_roles, strict=True)):
            box = FancyBboxPatch((x + 0.06, -y - 0.42), 0.88, 0.78, boxstyle="round,pad=0,rounding_size=0.1")
            box.set(facecolor=fills[role], edgecolor="#BBBBBB" if role == "padding" else "#666666", linewidth=0.6)
            axes.add_patch(box)
            axes.text(x + 0.5, -y - 0.03, token, ha="center", va="center", fontsize=7.5 if len(token) < 9 else 6)
    for i, (role, fill) in enumerate(fills.items()):
        axes.text(0.1 + 2.4 * i, 0.72, f" {role} ", fontsize=8.5, bbox={"facecolor": fill, "edgecolor": "#999999"})
    axes.set(xlim=(0, columns), ylim=(-len(tokens) + 0.4, 1.1))
    axes.axis("off")
    return figure


def curves(history: pd.DataFrame, columns: Mapping[str, str], *, ylabel: str, ax: Axes | None = None) -> Axes:
    """Columns of a history against optimiser steps; `columns` maps each to its label."""
    ax = ax or plt.subplots()[1]
    for column, text in columns.items():
        color = COLORS.get(column.rsplit("/", 1)[-1])
        ax.plot(history.index, history[column], label=text, color=color)
    ax.set(xlabel="optimiser step", ylabel=ylabel)
    if len(columns) > 1:
        ax.legend()
    return ax


def bars(values: Mapping[str, Sequence[float]], *, ylabel: str, ax: Axes | None = None) -> Axes:
    """One bar a method: the mean over its seeds, the single seeds as dots."""
    ax = ax or plt.subplots()[1]
    for x, (method, seeds) in enumerate(values.items()):
        color = COLORS.get(method.split()[0].lower(), COLORS["quiet"])
        ax.bar(x, np.mean(seeds), color=color, alpha=0.75, width=0.62)
        ax.scatter([x] * len(seeds), seeds, color=COLORS["ink"], s=14, zorder=3)
        ax.annotate(
            f"{np.mean(seeds):.2f}", (x, max(0, *seeds)), xytext=(0, 5), textcoords="offset points", ha="center"
        )
    ax.axhline(0, color=COLORS["ink"], linewidth=0.8)
    ax.set_xticks(range(len(values)), [label(m) for m in values])
    ax.grid(axis="x", visible=False)
    ax.set_ylabel(ylabel)
    return ax


def stacked_parts(parts: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Mean parts of the gold reward, one row of `parts` a method: gains to the right, losses to the left."""
    ax = ax or plt.subplots(figsize=(8, 0.6 * len(parts) + 1.2))[1]
    palette = ["#009E73", "#56B4E9", "#E69F00", "#0072B2", "#F0E442", "#CC79A7", "#D55E00", "#999999", "#444444"]
    y = np.arange(len(parts))
    right, left = np.zeros(len(parts)), np.zeros(len(parts))
    for color, column in zip(palette, parts.columns, strict=False):
        values = parts[column].to_numpy()
        start = np.where(values >= 0, right, left)
        ax.barh(y, values, left=start, color=color, label=column, height=0.6)
        right, left = right + np.maximum(values, 0), left + np.minimum(values, 0)
    ax.plot(parts.sum(axis=1), y, "D", color=COLORS["ink"], markersize=6, label="gold reward")
    ax.axvline(0, color=COLORS["ink"], linewidth=0.8)
    ax.set_yticks(y, [label(m) for m in parts.index])
    ax.invert_yaxis()
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("mean gold reward a response (reward units)")
    ax.legend(ncols=1, fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return ax


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
    ax.axvline(0, color=COLORS["ink"], linewidth=0.8)
    ax.set(xlabel=xlabel, ylabel="pairs")
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
    return ax


def temperature_sweep(
    temperatures: Sequence[float], gold: Sequence[Sequence[float]], levels: Mapping[str, Sequence[float]]
) -> Axes:
    """SFT's gold reward against sampling temperature (rows of `gold` are seeds), beside other models' greedy levels."""
    ax = plt.subplots()[1]
    gold = np.asarray(gold)
    ax.plot(temperatures, gold.mean(axis=0), "o-", color=COLORS["sft"], label="SFT at each temperature")
    ax.fill_between(temperatures, gold.min(axis=0), gold.max(axis=0), color=COLORS["sft"], alpha=0.2)
    for method, seeds in levels.items():
        color = COLORS.get(method, COLORS["quiet"])
        ax.axhspan(min(seeds), max(seeds), color=color, alpha=0.25)
        ax.axhline(np.mean(seeds), color=color, linestyle="--", label=f"{label(method)}, greedy")
    ax.set(xlabel="sampling temperature", ylabel="mean gold reward")
    ax.legend()
    return ax


def policy_bars(replies: Sequence[str], policies: Mapping[str, Sequence[float]], *, ax: Axes | None = None) -> Axes:
    """Each reply's probability under several policies; the first word of a policy's name picks its colour."""
    ax = ax or plt.subplots(figsize=(7, 0.16 * len(replies) * (len(policies) + 1) + 1))[1]
    height, used = 0.84 / len(policies), []
    for i, (name, probabilities) in enumerate(policies.items()):
        color = COLORS.get(name.split()[0].lower(), COLORS["quiet"])
        y = np.arange(len(replies)) + (i - (len(policies) - 1) / 2) * height
        ax.barh(y, probabilities, height=0.9 * height, color=color, alpha=0.45 if color in used else 1, label=name)
        used.append(color)
    ax.set_yticks(range(len(replies)), replies)
    ax.set_ylim(len(replies) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("probability")
    if len(policies) > 1:
        ax.legend(loc="lower right")
    return ax


def policy_sweep(
    replies: Sequence[str], rewards: Sequence[float], betas: Sequence[float], policies: Sequence[Sequence[float]]
) -> Axes:
    """How a policy shares its probability out as beta grows: a band a reply, the darker the more reward."""
    ax = plt.subplots(figsize=(8, 3.8))[1]
    policies, rewards = np.asarray(policies)[:, ::-1], np.asarray(rewards)[::-1]
    shades = plt.get_cmap("cividis_r")(0.08 + 0.84 * (rewards - rewards.min()) / np.ptp(rewards))
    ax.stackplot(betas, policies.T, colors=shades, edgecolor="white", linewidth=0.6)
    middles = policies[-1].cumsum() - policies[-1] / 2
    for reply, reward, middle in zip(reversed(replies), rewards, middles, strict=True):
        ax.text(1.02 * betas[-1], middle, f" {reply}  ({reward:+.1f})", va="center", fontsize=8.5)
    ax.set(xscale="log", xlim=(betas[0], betas[-1]), ylim=(0, 1), ylabel="probability")
    ax.set(xlabel="beta (reward units a nat, logarithmic)", title="one band a reply, its reward in brackets")
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
        if method in before:
            first = np.mean(before[method])
            ax.annotate("", (mean, y), (first, y), arrowprops={"arrowstyle": "-", "color": color, "linewidth": 2})
            ax.plot(before[method], np.full(len(before[method]), y - 0.22), ".", color=color, alpha=0.55, markersize=5)
            ax.plot(first, y, "o", color="white", markeredgecolor=color, markeredgewidth=2, markersize=8)
        ax.plot(values, np.full(len(values), y + 0.22), ".", color=COLORS["ink"], alpha=0.7, markersize=5)
        ax.plot(mean, y, "o", color=color, markersize=9)
    for name, value in (levels or {}).items():
        ax.axvline(value, color=COLORS.get(name, COLORS["quiet"]), linestyle=":", label=label(name))
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
        ax.plot(mean, y, "o", color=color, markersize=7)
    ax.axvline(0, color=COLORS["ink"], linewidth=0.8)
    ax.set_yticks(range(len(rows)), rows)
    ax.set(ylim=(len(rows) - 0.5, -0.5), xlabel=xlabel)
    ax.grid(axis="y", visible=False)
    return ax


# Kinds of tensors keep their colour too; parts of other names take these in order.
KIND_COLORS = {
    "weights": "#999999",
    "gradients": "#009E73",
    "optimizer": "#56B4E9",
    "update": "#882255",
    "activations": "#E69F00",
    "logits": "#0072B2",
    "gathered weights": "#CC79A7",
    "kv cache": "#D55E00",
    "weight copies": "#F0E442",
}


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
    shades = ["#56B4E9", "#0072B2", "#009E73", "#E69F00", "#CC79A7", "#999999"]
    for shade, name in zip(shades, dict.fromkeys(phases), strict=False):
        inside = np.flatnonzero(names == name)
        ax.fill_between(inside, live[inside], color=shade, alpha=0.75, linewidth=0, label=name)
    ax.plot(live, color=COLORS["ink"], linewidth=0.7)
    top = int(live.argmax())
    ax.plot(top, live[top], "o", color=COLORS["ink"], markersize=5)
    ax.annotate(f" peak {live[top]:.3g}", (top, live[top]), xytext=(4, 4), textcoords="offset points", fontsize=9)
    ax.set(xlabel="operation", ylabel=ylabel, xlim=(0, len(live) - 1), ylim=(0, 1.12 * live.max()))
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
    return ax


# Passes without gradients are blue, those that train green, those that sample orange.
PHASE_COLORS = {
    "rollout prefill": "#F0E442",
    "rollout decoding": "#D55E00",
    "reward scoring": "#CC79A7",
    "reference forward": "#0072B2",
    "baseline forward": "#88CCEE",
    "critic": "#882255",
    "policy forward": "#56B4E9",
    "recompute": "#999933",
    "backward": "#009E73",
    "optimizer": "#E69F00",
    "communication": "#999999",
    "alone": "#0072B2",
    "waiting": "#DDDDDD",
}


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
    ax.set_yticks(range(len(parts)), parts.index)
    ax.set(ylim=(len(parts) - 0.5, -0.5), xlim=(0, 1.1 * left.max()), xlabel=xlabel)
    ax.grid(axis="y", visible=False)
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
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
    left out, and a dot's area grows with the phase's share of the time. The solid roof is the datasheet's (`peak` in
    FLOP/s, `bandwidth` in bytes/s), the dashed one what the stated shares of both leave of it.
    """
    ax = ax or plt.subplots(figsize=(7.2, 4.2))[1]
    shown = phases[phases["TFLOP"] > 0]
    x = np.geomspace(min(1, shown["FLOP/byte"].min()) / 2, max(3000, shown["FLOP/byte"].max()) * 2, 400)
    roofs = {"-": (1.0, 1.0, "datasheet"), "--": (*utilization, "at the stated utilisation")}
    for line, (of_peak, of_bandwidth, text) in roofs.items():
        roof = np.minimum(peak * of_peak, bandwidth * of_bandwidth * x) / 1e12
        ax.loglog(x, roof, line, color=COLORS["ink"], linewidth=1.3, label=text)
    ridge = peak * utilization[0] / (bandwidth * utilization[1])
    ax.axvline(ridge, color=COLORS["quiet"], linestyle=":", label=f"ridge, {ridge:.0f} FLOPs a byte")
    for name, row in shown.sort_values("seconds", ascending=False).iterrows():  # large dots behind small ones
        share = row["seconds"] / shown["seconds"].sum()
        color, text = PHASE_COLORS.get(name, COLORS["ink"]), f"{name}, {row['seconds']:.2g} s"
        speed = row["TFLOP"] / row["seconds"]
        ax.scatter(row["FLOP/byte"], speed, s=30 + 450 * share, color=color, edgecolor="white", zorder=3, label=text)
    ax.set(xlabel="arithmetic intensity (FLOPs a byte)", ylabel="speed (TFLOP/s)")
    for handle in ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9).legend_handles[3:]:
        handle.set_sizes([60])
    return ax


def course_map(lessons: Sequence[tuple[str, str, str]], *, ready: Sequence[str]) -> plt.Figure:
    """The lessons as boxes by part; those in `ready` are filled. Rows of `lessons`: number, title, part."""
    parts = list(dict.fromkeys(part for _, _, part in lessons))
    tints = ["#DDE7F0", "#BFE5D8", "#F5D9C4", "#F3E3EE", "#F6F0C4"]
    widest = max(sum(p == part for _, _, p in lessons) for part in parts)
    figure, axes = plt.subplots(figsize=(11, 0.92 * len(parts)))
    for y, part in enumerate(parts):
        axes.text(-0.1, -y, part, ha="right", va="center", fontsize=10, weight="bold")
        members = [(n, t) for n, t, p in lessons if p == part]
        for x, (number, title) in enumerate(members):
            filled = number in ready
            box = FancyBboxPatch((x + 0.04, -y - 0.36), 0.92, 0.72, boxstyle="round,pad=0,rounding_size=0.08")
            box.set(
                facecolor=tints[y % len(tints)] if filled else "white", edgecolor="#666666" if filled else "#BBBBBB"
            )
            axes.add_patch(box)
            ink = COLORS["ink"] if filled else "#8A8A8A"
            axes.text(x + 0.5, -y, f"{number}\n{title}", ha="center", va="center", fontsize=8, color=ink)
    axes.set(xlim=(-1.1, widest), ylim=(-len(parts) + 0.5, 0.5))
    axes.axis("off")
    return figure


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
        ax.fill_between(settings, values.min(axis=1), values.max(axis=1), color=line.get_color(), alpha=0.2)
    ax.set(xscale="log", xlabel=xlabel, ylabel=ylabel)
    if len(outcomes) > 1:
        ax.legend()
    return ax
