"""A slider over exact optima."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import ipywidgets
import matplotlib.pyplot as plt

from course_lib.figures import plot_optimum

if TYPE_CHECKING:
    from torch import Tensor


def optimum_explorer(replies: Sequence[str], ref_logps: Tensor, rewards: Tensor) -> ipywidgets.Widget:
    """A slider for beta over `plot_optimum`."""

    def show(beta: float):
        plot_optimum(replies, ref_logps, rewards, beta)
        plt.show()

    slider = ipywidgets.FloatLogSlider(value=0.5, min=-2, max=2, step=0.1, continuous_update=False)
    return ipywidgets.interactive(show, beta=slider)
