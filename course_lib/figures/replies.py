"""What several models reply to the same prompts, as a conversation that shows each reply's true reward."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

from course_lib.figures.alt_text import describe
from course_lib.figures.style import COLORS, REPLY_TINTS, label

WRAP = 38  # characters of a reply in a line


def conversation(prompts: Sequence[str], replies: Mapping[str, Sequence[tuple[str, float]]]) -> plt.Figure:
    """One row a prompt, one column a model: the reply in a bubble, green where its gold reward is above 0.

    Args:
        prompts: what was asked.
        replies: for each model, one (text, gold reward) a prompt.
    """
    models = list(replies)
    figure, ax = plt.subplots(figsize=(2.2 + 3.9 * len(models), 0.3 + 0.95 * len(prompts)))
    for x, model in enumerate(models):
        ax.text(x + 0.49, 0.12, label(model), ha="center", va="bottom", fontsize=12, weight="bold")
    for row, prompt in enumerate(prompts):
        y = -row - 0.5
        ax.text(-0.04, y, textwrap.fill(prompt, 24), ha="right", va="center", fontsize=10, style="italic")
        for x, model in enumerate(models):
            text, gold = replies[model][row]
            bubble = FancyBboxPatch((x + 0.02, y - 0.42), 0.94, 0.84, boxstyle="round,pad=0,rounding_size=0.05")
            bubble.set(facecolor=REPLY_TINTS["good" if gold > 0 else "bad"], edgecolor=COLORS["edge"], linewidth=0.8)
            ax.add_patch(bubble)
            ax.text(x + 0.06, y, textwrap.fill(text, WRAP), ha="left", va="center", fontsize=10)
            ax.text(x + 0.93, y - 0.32, f"{gold:+.1f}", ha="right", va="center", fontsize=9, weight="bold")
            describe(ax, f'{label(model)} replies to "{prompt}" with "{text}", gold reward {gold:.3g}.')
    ax.set(xlim=(-0.62, len(models)), ylim=(-len(prompts) - 0.05, 0.4))
    ax.axis("off")
    return figure
