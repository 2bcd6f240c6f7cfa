"""Settings that the lessons and their experiments share, so that both run the same thing."""

from __future__ import annotations

from course_lib.trainers import PreferenceConfig

DPO_PAIRS = 4_000


def dpo_config(seed: int = 0, **changes) -> PreferenceConfig:
    """The course's DPO run on Pocket World."""
    settings = {"learning_rate": 1e-4, "beta": 0.3, "batch_size": 32, "epochs": 1, "seed": seed, "progress": False}
    return PreferenceConfig(**(settings | changes))
