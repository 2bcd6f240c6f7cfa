"""Who holds what when data-parallel GPUs share a model's states, stage by stage of ZeRO."""

from __future__ import annotations

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from course_lib.figures.alt_text import describe
from course_lib.figures.style import COLORS, KIND_COLORS

BYTES = {"weights": 2, "gradients": 2, "optimizer": 12}  # of a parameter, as DeepSpeed trains in bf16
NAMES = {"weights": "weights", "gradients": "gradients", "optimizer": "moments and fp32 copy"}
STAGES = {  # the kinds that are cut into shards, and what a step sends
    "plain": ((), "gradients: all-reduce"),
    "stage 1": (("optimizer",), "gradients: reduce-scatter\nnew weights: all-gather"),
    "stage 2": (("gradients", "optimizer"), "gradients: reduce-scatter\nnew weights: all-gather"),
    "stage 3": (("weights", "gradients", "optimizer"), "weights: all-gather, twice\ngradients: reduce-scatter"),
}


def who_holds_what(gpus: int = 4) -> plt.Figure:
    """A row of boxes for each stage, a box for each GPU: filled is what it holds, hollow what others hold for it."""
    figure, ax = plt.subplots(figsize=(11, 5))
    for row, (stage, (sharded, sends)) in enumerate(STAGES.items()):
        held = sum(size / (gpus if kind in sharded else 1) for kind, size in BYTES.items())
        for gpu in range(gpus):
            _gpu(ax, 1.3 * gpu, -1.3 * row, sharded, gpu, gpus)
        ax.text(-0.15, -1.3 * row + 0.5, stage, ha="right", va="center", fontsize=11, weight="bold")
        ax.text(1.3 * gpus, -1.3 * row + 0.5, f"{held:g} bytes", va="center", fontsize=11, weight="bold")
        ax.text(1.3 * gpus + 1.45, -1.3 * row + 0.5, sends, va="center", fontsize=10)
        cut = f"cuts {', '.join(NAMES[kind] for kind in sharded)} into shards" if sharded else "cuts nothing"
        describe(ax, f"{stage.capitalize()} {cut}; {held:g} bytes on each GPU; sends {sends.replace(chr(10), ', ')}.")
    for gpu in range(gpus):
        ax.text(1.3 * gpu + 0.5, 1.08, f"GPU {gpu}", ha="center", va="bottom", fontsize=10)
    ax.text(1.3 * gpus, 1.08, "per parameter", va="bottom", fontsize=10)
    ax.text(1.3 * gpus + 1.45, 1.08, "and sent in a step", va="bottom", fontsize=10)
    handles = [plt.Rectangle((0, 0), 1, 1, color=KIND_COLORS[kind]) for kind in BYTES]
    ax.legend(handles, NAMES.values(), loc="upper center", bbox_to_anchor=(0.35, 0.02), ncols=3)
    ax.set(xlim=(-0.9, 1.3 * gpus + 3.8), ylim=(-1.3 * len(STAGES) + 1.2, 1.35))
    ax.set_title(f"Each stage of ZeRO cuts one kind more into {gpus} shards")
    ax.axis("off")
    return figure


def _gpu(ax: Axes, x: float, y: float, sharded: tuple[str, ...], gpu: int, gpus: int) -> None:
    """Three bars, each as high as its kind has bytes; of a sharded one this GPU holds one piece."""
    top = y + 1
    for kind, size in BYTES.items():
        height = size / sum(BYTES.values())
        top -= height
        ax.add_patch(plt.Rectangle((x, top), 1, height, facecolor="none", edgecolor=COLORS["faint edge"]))
        left, width = (x + gpu / gpus, 1 / gpus) if kind in sharded else (x, 1)
        ax.add_patch(plt.Rectangle((left, top), width, height, color=KIND_COLORS[kind], linewidth=0))
