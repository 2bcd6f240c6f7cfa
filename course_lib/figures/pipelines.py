"""Which models a method holds while it trains, and which of them it trains."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

from course_lib.figures.alt_text import describe
from course_lib.figures.style import COLORS, HELD_TINTS

ROLES = {  # name: what it does
    "policy": "what we want to improve;\nPPO calls it the actor",
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
            ax.text(x + 0.5, -y + 0.22, f"{name}, {state}", ha="center", va="center", fontsize=10, weight="bold")
            ax.text(x + 0.5, -y - 0.12, does, ha="center", va="center", fontsize=9, color=COLORS["ink"])
        describe(ax, f"{method} trains {' and '.join(trained)}, and holds frozen {' and '.join(frozen)}.")
    ax.set(xlim=(-0.45, len(ROLES)), ylim=(-len(HELD) + 0.5, 0.5))
    ax.set_title("PPO holds four models and trains two; DPO holds two and trains one")
    ax.axis("off")
    return figure
