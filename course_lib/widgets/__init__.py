"""Interactive forms of the course's figures, for JupyterLab; each lesson shows a static figure beside them."""

from course_lib.figures import plot_dpo_loss, plot_memory, plot_next_token, plot_optimum, plot_speed
from course_lib.widgets.exact import optimum_explorer
from course_lib.widgets.labelling import pair_labeller
from course_lib.widgets.losses import dpo_loss_explorer, loss_family_explorer
from course_lib.widgets.sampling import next_token_explorer, reply_explorer, rollout_explorer
from course_lib.widgets.sizing import memory_explorer, speed_explorer

__all__ = [
    "dpo_loss_explorer",
    "loss_family_explorer",
    "memory_explorer",
    "next_token_explorer",
    "optimum_explorer",
    "pair_labeller",
    "plot_dpo_loss",
    "plot_memory",
    "plot_next_token",
    "plot_optimum",
    "plot_speed",
    "reply_explorer",
    "rollout_explorer",
    "speed_explorer",
]
