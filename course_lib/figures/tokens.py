"""Tokens: what each one is, and what a model expects next."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.patches import FancyBboxPatch

from course_lib.figures.alt_text import describe, listed
from course_lib.figures.style import COLORS, ROLE_COLORS


def token_masks(tokens: Sequence[Sequence[str]], roles: Sequence[Sequence[str]]) -> plt.Figure:
    """Rows of tokens in boxes, coloured by what each is: "prompt", "completion", "end" or "padding"."""
    columns = max(8, *map(len, tokens))  # eight leave room for the names of the roles
    figure, axes = plt.subplots(figsize=(min(13, 0.72 * columns), 0.62 * len(tokens) + 0.6))
    for y, (row, row_roles) in enumerate(zip(tokens, roles, strict=True)):
        for x, (token, role) in enumerate(zip(row, row_roles, strict=True)):
            box = FancyBboxPatch((x + 0.06, -y - 0.42), 0.88, 0.78, boxstyle="round,pad=0,rounding_size=0.1")
            box.set(
                facecolor=ROLE_COLORS[role],
                edgecolor=COLORS["faint edge"] if role == "padding" else COLORS["edge"],
                linewidth=0.6,
            )
            axes.add_patch(box)
            axes.text(x + 0.5, -y - 0.03, token, ha="center", va="center", fontsize=7.5 if len(token) < 9 else 6)
    for i, (role, fill) in enumerate(ROLE_COLORS.items()):
        axes.text(
            0.1 + min(2.4, columns / 4) * i,
            0.72,
            f" {role} ",
            fontsize=8.5,
            bbox={"facecolor": fill, "edgecolor": COLORS["quiet"]},
        )
    axes.set(xlim=(0, columns), ylim=(-len(tokens) + 0.4, 1.1))
    axes.axis("off")
    for number, (row, row_roles) in enumerate(zip(tokens, roles, strict=True), 1):
        runs = groupby(zip(row_roles, row, strict=True), key=itemgetter(0))
        described = [f"{role}: {' '.join(token for _, token in run)}" for role, run in runs]
        describe(axes, f"Row {number}, {'; '.join(described)}.")
    return figure


def plot_next_token(tokens: Sequence[str], probabilities: pd.DataFrame, position: int) -> plt.Figure:
    """The likeliest next tokens after `tokens[:position]`, and the true one in colour, however unlikely."""
    whole, true = probabilities.iloc[position - 1], tokens[position]
    row = whole.nlargest(8)
    row = row if true in row.index else pd.concat([row, whole[[true]]])
    row = row[::-1]
    figure, axes = plt.subplots(figsize=(6, 2.8))
    colors = [COLORS["chosen"] if t == tokens[position] else COLORS["quiet"] for t in row.index]
    axes.barh(row.index, row.to_numpy(), color=colors)
    axes.set(xlabel="probability")
    axes.locator_params(axis="x", nbins=5)
    truth = probabilities.iloc[position - 1][tokens[position]]
    describe(axes, f"Bars of the likeliest next tokens: {listed(row[::-1])}.")
    axes.set_title(
        f"after “… {' '.join(tokens[max(0, position - 5) : position])}”: ln p({tokens[position]}) = {np.log(truth):.2f}"
    )
    return figure
