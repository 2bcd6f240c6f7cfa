"""The course's figures by subject: one style, a method keeps its colour everywhere. The right end of the flow."""

from course_lib.figures.course import course_map, token_masks
from course_lib.figures.exact import policy_bars, policy_sweep
from course_lib.figures.preferences import log_ratio_scatter, loss_family, margin_histogram
from course_lib.figures.resources import memory_bars, memory_timeline, roofline_plot, time_bars
from course_lib.figures.style import COLORS, KIND_COLORS, PHASE_COLORS, STYLE, label, use_style
from course_lib.figures.training import bars, curves, intervals, shifts, stacked_parts, sweep, temperature_sweep

__all__ = [
    "COLORS",
    "KIND_COLORS",
    "PHASE_COLORS",
    "STYLE",
    "bars",
    "course_map",
    "curves",
    "intervals",
    "label",
    "log_ratio_scatter",
    "loss_family",
    "margin_histogram",
    "memory_bars",
    "memory_timeline",
    "policy_bars",
    "policy_sweep",
    "roofline_plot",
    "shifts",
    "stacked_parts",
    "sweep",
    "temperature_sweep",
    "time_bars",
    "token_masks",
    "use_style",
]
