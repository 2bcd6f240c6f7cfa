"""The course's figures by subject: one style, a method keeps its colour everywhere. The right end of the flow."""

from course_lib.figures.alt_text import describe, description
from course_lib.figures.brevity import brief_and_right
from course_lib.figures.course import course_map
from course_lib.figures.exact import plot_optimum, policy_bars, policy_sweep
from course_lib.figures.pipelines import held_and_trained, pipelines
from course_lib.figures.preferences import log_ratio_scatter, loss_family, margin_histogram, plot_dpo_loss
from course_lib.figures.replies import conversation
from course_lib.figures.resources import (
    memory_bars,
    memory_timeline,
    plot_memory,
    plot_speed,
    roofline_plot,
    time_bars,
)
from course_lib.figures.sharding import who_holds_what
from course_lib.figures.style import COLORS, KIND_COLORS, PHASE_COLORS, STYLE, label, use_style
from course_lib.figures.tokens import plot_next_token, token_masks
from course_lib.figures.training import (
    bars,
    curves,
    intervals,
    refusals,
    shifts,
    stacked_parts,
    sweep,
    temperature_sweep,
)

__all__ = [
    "COLORS",
    "KIND_COLORS",
    "PHASE_COLORS",
    "STYLE",
    "bars",
    "brief_and_right",
    "conversation",
    "course_map",
    "curves",
    "describe",
    "description",
    "held_and_trained",
    "intervals",
    "label",
    "log_ratio_scatter",
    "loss_family",
    "margin_histogram",
    "memory_bars",
    "memory_timeline",
    "pipelines",
    "plot_dpo_loss",
    "plot_memory",
    "plot_next_token",
    "plot_optimum",
    "plot_speed",
    "policy_bars",
    "policy_sweep",
    "refusals",
    "roofline_plot",
    "shifts",
    "stacked_parts",
    "sweep",
    "temperature_sweep",
    "time_bars",
    "token_masks",
    "use_style",
    "who_holds_what",
]
