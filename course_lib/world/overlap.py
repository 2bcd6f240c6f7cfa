"""Proof of the splits: how much of each stands in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from course_lib.world.gold import task_of
from course_lib.world.sampling import SPLITS, preference_records, prompts, sft_records, unpaired_records
from course_lib.world.tasks import Task

LEVELS = {  # what may be shared, from the text itself to what it is about
    "prompt": lambda task: {task.prompt},
    "question": lambda task: {task.question},
    "subject": lambda task: {(s.kind, s.group) for s in task.subjects},
    "template": lambda task: {(type(s).__name__, task.template) for s in task.subjects},
    "form": lambda task: {(task.kind, task.wants_json)},
}
NEVER_SHARED = {  # what a split promises; all else is shared on purpose
    "tuning": ("prompt", "question"),
    "test": ("prompt", "question"),
    "template": ("prompt", "question", "template"),
    "entity": ("prompt", "question", "subject"),
    "act": ("prompt", "question", "subject"),
    "skill": ("prompt", "question", "subject"),
    "composition": ("prompt", "question", "form"),
}


def overlap(training: Mapping[str, Sequence[dict]] | None = None, *, n: int = 500) -> pd.DataFrame:
    """How much of each evaluation split stands in the records of training.

    Args:
        training: sets of records with a "prompt", by name; without it 20,000 demonstrations, 20,000 pairs and 8,000
            single responses are drawn as the course draws them.
        n: prompts of each split that are looked up.

    Returns:
        One row for a split, a training set and a level: "prompt" (the text), "question" (the text without greeting and
        request for JSON), "subject" (entity, act, numbers or words), "template", "form" (kind of question, JSON?).
        `share` is the share of the split's prompts that have it in common with training, and `never` says whether the
        split promises that this is zero.

    Raises:
        ValueError: for a record whose prompt is not one of Pocket World's.
    """
    training = training or {
        "sft": sft_records(20_000),
        "pairs": preference_records(20_000),
        "unpaired": unpaired_records(8_000),
    }
    seen = {name: _seen([task_of(row["prompt"]) for row in rows if "prompt" in row]) for name, rows in training.items()}
    rows = []
    for split in SPLITS[1:]:
        tasks = [task_of(p) for p in prompts(split, n)]
        for name, levels in seen.items():
            for level, parts in LEVELS.items():
                shared = sum(bool(parts(task) & levels[level]) for task in tasks) / len(tasks)
                rows.append((split, name, level, shared, level in NEVER_SHARED[split]))
    return pd.DataFrame(rows, columns=["split", "training", "level", "share", "never"])


def _seen(tasks: list[Task]) -> dict[str, set]:
    return {level: {part for task in tasks for part in parts(task)} for level, parts in LEVELS.items()}
