"""The two ways from a base model to an aligned policy, and which models each method holds while it trains."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

from course_lib.figures.alt_text import describe
from course_lib.figures.style import COLORS, HELD_TINTS

ROLES = {  # name: what it does
    "policy": "what we want\nto improve",
    "critic": "predicts the reward\nat each token",
    "reward model": "scores a finished reply",
    "reference": "the policy\nbefore training",
}
HELD = {  # method: the models that it trains, and those that it only runs
    "PPO": (("policy", "critic"), ("reward model", "reference")),
    "DPO": (("policy",), ("reference",)),
}


def held_and_trained() -> plt.Figure:
    """PPO's four models and DPO's two as boxes: filled ones are trained, pale ones frozen."""
    figure, ax = plt.subplots(figsize=(10.5, 2.5))
    for y, (method, (trained, frozen)) in enumerate(HELD.items()):
        ax.text(-0.08, -y, method, ha="right", va="center", fontsize=12, weight="bold")
        for x, (name, does) in enumerate(ROLES.items()):
            if name not in trained + frozen:
                continue
            state = "trained" if name in trained else "frozen"
            box = FancyBboxPatch((x + 0.03, -y - 0.41), 0.94, 0.82, boxstyle="round,pad=0,rounding_size=0.08")
            box.set(facecolor=HELD_TINTS[state], edgecolor=COLORS["edge"])
            ax.add_patch(box)
            ax.text(x + 0.5, -y + 0.22, f"{name}, {state}", ha="center", va="center", fontsize=9.5, weight="bold")
            ax.text(x + 0.5, -y - 0.12, does, ha="center", va="center", fontsize=9, color=COLORS["ink"])
        describe(ax, f"{method} trains {' and '.join(trained)}, and holds frozen {' and '.join(frozen)}.")
    ax.set(xlim=(-0.45, len(ROLES)), ylim=(-len(HELD) + 0.5, 0.5))
    ax.set_title("PPO holds four models and trains two; DPO holds two and trains one")
    ax.axis("off")
    return figure


STAGES = {  # name: (centre x, centre y, half width, what it does, colour of its edge)
    "base model": (0.95, 0, 0.85, "continues text", "base"),
    "SFT": (3.05, 0, 0.85, "imitates", "sft"),
    "reward model": (8.05, 1.15, 1.05, "learns to score\na reply", "ppo"),
    "PPO": (11.2, 1.15, 1.1, "climbs the score,\npays for distance", "ppo"),
    "DPO": (11.2, -1.15, 1.1, "raises chosen\nover rejected", "dpo"),
}
DATA = {  # centre x, centre y, half width
    "demonstrations": (3.05, -1.15, 0.85),
    "preference\npairs": (5.75, 1.15, 0.65),
    "the same\npairs": (5.75, -1.15, 0.65),
    "prompts": (11.2, 2.2, 0.7),
}


def pipelines() -> plt.Figure:
    """Both ways to an aligned policy: SFT, reward model and PPO above; SFT and DPO on the same pairs below."""
    figure, ax = plt.subplots(figsize=(11.5, 4))
    for name, (x, y, half, does, color) in STAGES.items():
        box = FancyBboxPatch((x - half, y - 0.47), 2 * half, 0.94, boxstyle="round,pad=0,rounding_size=0.1")
        box.set(facecolor=HELD_TINTS["frozen" if name == "base model" else "trained"], linewidth=1.8)
        box.set_edgecolor(COLORS[color])
        ax.add_patch(box)
        ax.text(x, y + 0.24, name, ha="center", va="center", fontsize=10.5, weight="bold")
        ax.text(x, y - 0.13, does, ha="center", va="center", fontsize=9, color=COLORS["ink"])
    for name, (x, y, half) in DATA.items():
        ax.add_patch(plt.Rectangle((x - half, y - 0.3), 2 * half, 0.6, facecolor="white", edgecolor=COLORS["edge"],
                                   linestyle=(0, (3, 2))))  # fmt: skip
        ax.text(x, y, name, ha="center", va="center", fontsize=9, style="italic")
    _arrow(ax, (1.8, 0), (2.2, 0), "base")
    _arrow(ax, (3.05, -0.85), (3.05, -0.47), "sft")
    _arrow(ax, (6.4, 1.15), (7.0, 1.15), "ppo")
    _arrow(ax, (6.4, -1.15), (10.1, -1.15), "dpo")
    _arrow(ax, (11.2, 1.9), (11.2, 1.62), "ppo")
    _arrow(ax, (10.1, 1.37), (9.1, 1.37), "ppo", "replies", above=True)
    _arrow(ax, (9.1, 0.93), (10.1, 0.93), "ppo", "scores")
    ax.plot([3.9, 11.2], [0, 0], color=COLORS["sft"], linewidth=1.8)
    ax.text(7.55, 0.09, "start of the policy, and frozen reference", ha="center", fontsize=9.5, color=COLORS["sft"])
    _arrow(ax, (11.2, 0), (11.2, 0.68), "sft")
    _arrow(ax, (11.2, 0), (11.2, -0.68), "sft")
    ax.text(8.25, -1.06, "no reward model, no sampling", ha="center", fontsize=9.5, color=COLORS["dpo"])
    for name, y in {"RLHF": 1.15, "DPO": -1.15}.items():
        color = COLORS["ppo" if name == "RLHF" else "dpo"]
        _arrow(ax, (12.3, y), (12.75, y), "ppo" if name == "RLHF" else "dpo")
        ax.text(12.83, y, "aligned\npolicy", va="center", fontsize=9.5)
        ax.text(4.98, y, name, ha="right", va="center", fontsize=13, weight="bold", color=color)
    ax.set(xlim=(0, 13.7), ylim=(-1.7, 2.6))
    ax.set_title("RLHF fits a reward model to the pairs and climbs it; DPO trains the policy on the pairs directly")
    ax.axis("off")
    describe(ax, "Base model, then SFT on demonstrations: it starts the policy and is the frozen reference.")
    describe(ax, "RLHF: a reward model learns from preference pairs; PPO samples replies to prompts, which it scores.")
    describe(ax, "DPO trains the policy on the same pairs, without a reward model and without sampling.")
    return figure


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], color: str, text: str = "", *,
           above: bool = False) -> None:  # fmt: skip
    style = {"arrowstyle": "-|>", "color": COLORS[color], "linewidth": 1.8, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", end, start, arrowprops=style)
    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + (0.07 if above else -0.07))
    ax.text(*middle, text, ha="center", va="bottom" if above else "top", fontsize=9.5, color=COLORS[color])
