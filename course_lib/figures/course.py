"""The map of the course's lessons."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

from course_lib.figures.alt_text import describe
from course_lib.figures.style import COLORS, PART_TINTS


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
    for part in parts:
        members = [
            f"{n} {t.replace(chr(10), ' ')}{'' if n in ready else ' (planned)'}" for n, t, p in lessons if p == part
        ]
        describe(axes, f"{part}: {', '.join(members)}.")
    return figure
