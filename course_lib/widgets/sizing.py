"""Calculators of a step's memory and time; what a setting may be and means stands in its field."""

from __future__ import annotations

from collections.abc import Sequence

import ipywidgets
import matplotlib.pyplot as plt

from course_lib.figures import plot_memory, plot_speed
from course_lib.memory import estimate_memory
from course_lib.sizing import ARCHITECTURES, GPUS
from course_lib.sizing.settings import OPTIONS
from course_lib.speed import estimate_throughput

LENGTHS = tuple(2**i for i in range(7, 16))
RANKS = (None, 4, 8, 16, 32, 64, 128)


def memory_explorer() -> ipywidgets.Widget:
    """Choose a model, a method and what saves memory; see where each phase's bytes go, and what fits."""

    def show(**settings):
        settings["zero_stage"] = 3 if settings["gpus"] > 1 else 0
        plot_memory(**settings)
        plt.show()
        found = estimate_memory(**settings)
        print("fits:", ", ".join(found.gpus_that_fit) or "no GPU in the table")
        print("\n".join(found.advice))

    return ipywidgets.interactive(
        show,
        model=_model(),
        algorithm=_control("algorithm", value="dpo"),
        batch_size=_control("batch_size", range(1, 33)),
        sequence_length=_control("sequence_length", LENGTHS),
        lora_rank=_control("lora_rank", RANKS),
        gpus=_control("gpus", [2**i for i in range(7)]),
        optimizer=_control("optimizer"),
        precision=_control("precision"),
        logits=_control("logits"),
        gradient_checkpointing=_control("gradient_checkpointing"),
    )


def speed_explorer() -> ipywidgets.Widget:
    """Choose a model, a method, a GPU and how many; see what bounds each phase, and how long it takes."""

    def show(**settings):
        settings["zero_stage"] = 3 if settings["gpus"] > 1 else 0
        plot_speed(**settings)
        plt.show()
        print(estimate_throughput(**settings))

    return ipywidgets.interactive(
        show,
        model=_model(),
        algorithm=_control("algorithm", value="ppo"),
        gpu=_control("gpu", list(GPUS)),
        gpus=_control("gpus", [2**i for i in range(13)]),
        batch_size=_control("batch_size", [2**i for i in range(10)], value=8),
        sequence_length=_control("sequence_length", LENGTHS),
        lora_rank=_control("lora_rank", RANKS),
        gradient_checkpointing=_control("gradient_checkpointing"),
        utilization=_control("utilization"),
        bandwidth_utilization=_control("bandwidth_utilization"),
    )


def _model() -> ipywidgets.Widget:
    return ipywidgets.Dropdown(options=list(ARCHITECTURES), value="llama-3-8b", tooltip="whose shapes are counted")


def _control(name: str, values: Sequence | None = None, **changed) -> ipywidgets.Widget:
    """A control for one setting as its field describes it; `values` are what a number or name can be set to."""
    field = OPTIONS[name]
    known = field.metadata
    about = {"value": field.default, "tooltip": known["help"]} | changed
    if isinstance(field.default, bool):
        return ipywidgets.Checkbox(**about)
    if "share" in known:
        return ipywidgets.FloatSlider(min=0.05, max=1, step=0.05, continuous_update=False, **about)
    options = [(str(value or known.get("none")), value) for value in values or known["choices"]]
    numbers = "count" in known and field.default is not None
    kind = ipywidgets.SelectionSlider if numbers else ipywidgets.Dropdown
    return kind(options=options, **about)
