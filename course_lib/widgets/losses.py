"""Sliders over losses."""

from __future__ import annotations

from collections.abc import Callable

import ipywidgets
import matplotlib.pyplot as plt

from course_lib.figures import plot_dpo_loss


def dpo_loss_explorer() -> ipywidgets.Widget:
    """Sliders for beta and one pair's difference of log-ratios over `plot_dpo_loss`."""

    def show(beta: float, h: float):
        plot_dpo_loss(beta, h)
        plt.show()

    return ipywidgets.interactive(
        show,
        beta=ipywidgets.FloatSlider(value=0.1, min=0.02, max=1.0, step=0.02, continuous_update=False),
        h=ipywidgets.FloatSlider(value=0.0, min=-60, max=60, step=2, continuous_update=False),
    )


def loss_family_explorer(draw: Callable[[float, float], plt.Figure]) -> ipywidgets.Widget:
    """Sliders for beta and for the share of labels taken for wrong over `draw(beta, label_smoothing)`."""

    def show(beta: float, label_smoothing: float):
        draw(beta, label_smoothing)
        plt.show()

    return ipywidgets.interactive(
        show,
        beta=ipywidgets.FloatSlider(value=0.1, min=0.05, max=0.5, step=0.05, continuous_update=False),
        label_smoothing=ipywidgets.FloatSlider(value=0.3, min=0.05, max=0.45, step=0.05, continuous_update=False),
    )
