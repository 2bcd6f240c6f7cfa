"""The course's own pictures: tokens by role, and the map of its lessons."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

from course_lib.figures.style import COLORS, PART_TINTS, ROLE_COLORS


def token_masks(tokens: Sequence[Sequence[str]], roles: Sequence[Sequence[str]]) -> plt.Figure:
    """Rows of tokens in boxes, coloured by what each is: "prompt", "completion", "end" or "padding"."""
    columns = max(map(len, tokens))
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
            0.1 + 2.4 * i, 0.72, f" {role} ", fontsize=8.5, bbox={"facecolor": fill, "edgecolor": COLORS["quiet"]}
        )
    axes.set(xlim=(0, columns), ylim=(-len(tokens) + 0.4, 1.1))
    axes.axis("off")
    return figure


def course_map(lessons: Sequence[tuple[str, str, str]], *, ready: Sequence[str]) -> plt.Figure:
    """The lessons as boxes by part; those in `ready` are filled. Rows of `lessons`: number, title, part."""
    parts = list(dict.fromkeys(part for _, _, part in lessons))
    widest = max(sum(p == part for _, _, p in lessons) for part in parts)
    figure, axes = plt.subplots(figsize=(11, 0.92 * len(parts)))
    for y, part in enumerate(parts):
        axes.text(-0.1, -y, part, ha="right", va="center", fontsize=10, weight="bold")
        members = [(n, t) for n, t, p in lessons if p == part]
        for x, (number, title) in enumerate(members):
            filled = number in ready
            box = FancyBboxPatch((x + 0.04, -y - 0.36), 0.92, 0.72, boxstyle="round,pad=0,rounding_size=0.08")
            box.set(
                facecolor=PART_TINTS[y % len(PART_TINTS)] if filled else "white",
                edgecolor=COLORS["edge"] if filled else COLORS["faint edge"],
            )
            axes.add_patch(box)
            ink = COLORS["ink"] if filled else COLORS["faint ink"]
            axes.text(x + 0.5, -y, f"{number}\n{title}", ha="center", va="center", fontsize=8, color=ink)
    axes.set(xlim=(-1.1, widest), ylim=(-len(parts) + 0.5, 0.5))
    axes.axis("off")
    return figure
