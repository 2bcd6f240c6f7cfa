"""Policies over few replies, computed exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from course_lib.figures.alt_text import describe, listed
from course_lib.figures.style import COLORS

if TYPE_CHECKING:
    from torch import Tensor


def policy_bars(replies: Sequence[str], policies: Mapping[str, Sequence[float]], *, ax: Axes | None = None) -> Axes:
    """Each reply's probability under several policies; the first word of a policy's name picks its colour."""
    ax = ax or plt.subplots(figsize=(7, 0.16 * len(replies) * (len(policies) + 1) + 1))[1]
    height, used = 0.84 / len(policies), []
    for i, (name, probabilities) in enumerate(policies.items()):
        color = COLORS.get(name.split()[0].lower(), COLORS["quiet"])
        y = np.arange(len(replies)) + (i - (len(policies) - 1) / 2) * height
        ax.barh(y, probabilities, height=0.9 * height, color=color, alpha=0.45 if color in used else 1, label=name)
        used.append(color)
        describe(ax, f"{name}: {listed(dict(zip(replies, probabilities, strict=True)))}.")
    ax.set_yticks(range(len(replies)), [fill(reply, 36) for reply in replies])
    ax.set_ylim(len(replies) - 0.5, -0.5)
    ax.grid(axis="y", visible=False)
    ax.set_xlabel("probability")
    if len(policies) > 1:
        ax.legend(loc="lower right")
    return ax


def policy_sweep(
    replies: Sequence[str], rewards: Sequence[float], betas: Sequence[float], policies: Sequence[Sequence[float]]
) -> Axes:
    """How a policy shares its probability out as beta grows: one band per reply, the darker the more reward."""
    ax = plt.subplots(figsize=(8, 3.8))[1]
    policies, rewards = np.asarray(policies)[:, ::-1], np.asarray(rewards)[::-1]
    shades = plt.get_cmap("cividis_r")(0.08 + 0.84 * (rewards - rewards.min()) / np.ptp(rewards))
    ax.stackplot(betas, policies.T, colors=shades, edgecolor="white", linewidth=0.6)
    middles = policies[-1].cumsum() - policies[-1] / 2
    for reply, reward, middle in zip(reversed(replies), rewards, middles, strict=True):
        ax.text(1.02 * betas[-1], middle, f" {reply}  ({reward:+.1f})", va="center", fontsize=8.5)
    for row in (0, -1):
        shares = dict(zip(reversed(replies), policies[row], strict=True))
        describe(ax, f"Shares at beta {betas[row]:.3g}: {listed(shares)}.")
    ax.set(xscale="log", xlim=(betas[0], betas[-1]), ylim=(0, 1), ylabel="probability")
    ax.set(xlabel="beta (reward units per nat, logarithmic)", title="one band per reply, its reward in brackets")
    return ax


def plot_optimum(replies: Sequence[str], ref_logps: Tensor, rewards: Tensor, beta: float) -> plt.Figure:
    """RLHF's optimum at `beta` beside the reference, and where it lies among all policies' reward and KL."""
    from course_lib import exact  # with torch, which no other figure needs

    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.4), width_ratios=(1, 1.1))

    def reward_and_kl(logps: Tensor) -> tuple[Tensor, Tensor]:
        return exact.kl_divergence(logps, ref_logps.expand_as(logps)), (logps.exp() * rewards).sum(-1)

    best = exact.optimal_policy(ref_logps, rewards, beta=beta)
    policy_bars(replies, {"reference": ref_logps.exp(), "RLHF optimum": best.exp()}, ax=left)
    left.set(xlim=(0, 1), title=f"beta = {beta:.2g}")
    others = np.random.default_rng(0).dirichlet(np.full(len(replies), 0.6), 1500)
    right.scatter(*reward_and_kl(ref_logps.new_tensor(np.log(others + 1e-12))), s=3, color=COLORS["quiet"], alpha=0.4)
    right.plot([], [], ".", color=COLORS["quiet"], label="random policies")
    sweep = [reward_and_kl(exact.optimal_policy(ref_logps, rewards, beta=b)) for b in np.geomspace(0.01, 100, 200)]
    right.plot(*np.array(sweep).T, color=COLORS["rlhf"], label="optimum of each beta")
    kl, reward = (float(x) for x in reward_and_kl(best))
    right.axline(
        (kl, reward), slope=beta, color=COLORS["ink"], linewidth=0.9, linestyle="--", label="equal J: slope beta"
    )
    right.plot(kl, reward, "o", color=COLORS["ink"])
    describe(right, f"The optimum of this beta has reward {reward:.3g} at {kl:.3g} nats of KL.")
    describe(right, "No random policy lies above the curve of all betas' optima, and the line of equal J touches it.")
    right.set(xlabel="KL to the reference (nats)", ylabel="expected reward (reward units)")
    right.set_xlim(-0.1, 0.1 - ref_logps.min().item())
    right.set_ylim(rewards.min().item() - 1.1, rewards.max().item() + 0.15)
    right.legend(loc="lower right", frameon=True, framealpha=0.9, edgecolor="none")
    figure.tight_layout()
    return figure
