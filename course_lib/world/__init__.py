"""Pocket World, a small world whose facts, preferences and true reward are known. First in the flow."""

from pathlib import Path

from course_lib.world.demonstrators import Demonstrators
from course_lib.world.gold import gold_parts, gold_reward, parse, task_of
from course_lib.world.judging import judge_records, which_is_best
from course_lib.world.objectives import (
    harmless_reward,
    helpful_reward,
    mixed_labels,
    relabelled,
    sum_of_objectives,
)
from course_lib.world.overlap import overlap
from course_lib.world.sampling import (
    Annotators,
    assistant,
    documents,
    preference_records,
    prompts,
    right_or_wrong_pairs,
    sft_records,
    unpaired_records,
    user,
)
from course_lib.world.tokenizer import build_tokenizer

EDITION = 2  # of the world: results and checkpoints of another one do not compare
_HERE = Path(__file__).parent / "checkpoints"
CHECKPOINTS = {  # names that load_policy and load_reward_model know
    "pocket-world": _HERE / "base",
    "pocket-world-sft": _HERE / "sft",
    "pocket-world-reward": _HERE / "reward",
}

__all__ = [
    "CHECKPOINTS",
    "EDITION",
    "Annotators",
    "Demonstrators",
    "assistant",
    "build_tokenizer",
    "documents",
    "gold_parts",
    "gold_reward",
    "harmless_reward",
    "helpful_reward",
    "judge_records",
    "mixed_labels",
    "overlap",
    "parse",
    "preference_records",
    "prompts",
    "relabelled",
    "right_or_wrong_pairs",
    "sft_records",
    "sum_of_objectives",
    "task_of",
    "unpaired_records",
    "user",
    "which_is_best",
]
