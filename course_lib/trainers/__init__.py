"""One short loop, and what each method feeds it. Imports data, models, logprobs and losses.

`config` holds the settings, `method` what a method is, `run` all that changes while it trains, `loop` the loop, `part`
and `parts` what happens around its steps, `batches` and `checkpoint` where it reads and what it leaves, `base` puts
them together; then one file a method. Those that learn from their own samples share `online`, `rollout_batches` and
`scoring`. Of several processes `together` says what they tell one another, and `sharded` is all that knows DeepSpeed.
"""

from course_lib.trainers.base import Trainer
from course_lib.trainers.config import OnlineConfig, TrainingConfig
from course_lib.trainers.group import GroupConfig, GroupTrainer
from course_lib.trainers.history import History
from course_lib.trainers.kto import KTOConfig, KTOTrainer
from course_lib.trainers.method import Method
from course_lib.trainers.online import OnlineTrainer
from course_lib.trainers.online_preference import OnlinePreferenceConfig, OnlinePreferenceTrainer
from course_lib.trainers.part import Part
from course_lib.trainers.parts import Samples, TrainingError
from course_lib.trainers.ppo import PPOConfig, PPOTrainer
from course_lib.trainers.preference import PreferenceConfig, PreferenceTrainer
from course_lib.trainers.reward import RewardTrainer
from course_lib.trainers.run import Run
from course_lib.trainers.sft import SFTTrainer

__all__ = [
    "GroupConfig",
    "GroupTrainer",
    "History",
    "KTOConfig",
    "KTOTrainer",
    "Method",
    "OnlineConfig",
    "OnlinePreferenceConfig",
    "OnlinePreferenceTrainer",
    "OnlineTrainer",
    "PPOConfig",
    "PPOTrainer",
    "Part",
    "PreferenceConfig",
    "PreferenceTrainer",
    "RewardTrainer",
    "Run",
    "SFTTrainer",
    "Samples",
    "Trainer",
    "TrainingConfig",
    "TrainingError",
]
