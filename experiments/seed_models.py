"""The models of a seed, in its folder under `runs/`: trained and kept there if they are missing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

from course_lib import load_policy
from course_lib import shipped_models as recipe
from course_lib.models import save_pretrained

FOLDER = Path("runs/pocket_world")


def kept(folder: Path, train: Callable, load: Callable = load_policy) -> tuple:
    """The checkpoint in `folder`; without one, what `train` returns is written there."""
    if not folder.exists():
        save_pretrained(*train(), folder)
    return load(str(folder))


def base_and_sft(seed: int) -> tuple:
    """`(base, sft, tokenizer)` of a seed, by the recipe of the shipped models."""
    folder = FOLDER / str(seed)
    base, tokenizer = kept(folder / "base", lambda: recipe.train_base(seed, progress=False))

    def train_sft():
        return recipe.train_sft(copy.deepcopy(base), tokenizer, seed, progress=False), tokenizer

    return base, kept(folder / "sft", train_sft)[0], tokenizer
