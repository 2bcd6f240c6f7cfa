"""One short loop, and what each method feeds it. Imports data, models, logprobs and losses."""

from course_lib.trainers.history import History
from course_lib.trainers.kto import KTOConfig, KTOTrainer
from course_lib.trainers.loop import TrainingConfig, TrainingError
from course_lib.trainers.preference import PreferenceConfig, PreferenceTrainer
from course_lib.trainers.reward import RewardTrainer
from course_lib.trainers.sft import SFTTrainer

__all__ = [
    "History",
    "KTOConfig",
    "KTOTrainer",
    "PreferenceConfig",
    "PreferenceTrainer",
    "RewardTrainer",
    "SFTTrainer",
    "TrainingConfig",
    "TrainingError",
]
