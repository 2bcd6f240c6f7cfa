"""Pure tensor functions, one file a family; they see log-probabilities and rewards, never a model."""

from course_lib.losses.preference import dpo_loss, implicit_reward
from course_lib.losses.reward import bradley_terry_loss
from course_lib.losses.sft import sft_loss

__all__ = ["bradley_terry_loss", "dpo_loss", "implicit_reward", "sft_loss"]
