"""The models of a seed, in its folder under `runs/`: trained and kept there if they are missing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

from course_lib import load_policy, rewards
from course_lib import shipped_models as recipe
from course_lib.lessons.settings import DPO_PAIRS
from course_lib.models import load_reward_model, save_pretrained

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


def strong_reward(seed: int):
    """The reward function of the shipped recipe's reward model: 12,000 pairs, twice."""
    return _reward(seed, "reward")


def weak_rewards(seed: int, members: int = 3) -> list:
    """Reward functions of models that saw a third of these pairs: the first one the very pairs of lesson 04's DPO."""
    first = [{"size": DPO_PAIRS, "pairs_seed": seed}]
    others = [{"size": DPO_PAIRS, "pairs_seed": seed + 10_000 * i} for i in range(1, members)]
    return [_reward(seed, f"reward-weak-{i}", **how) for i, how in enumerate(first + others)]


def _reward(seed: int, name: str, **how):
    folder = FOLDER / str(seed)
    _, _, tokenizer = base_and_sft(seed)

    def train():
        return recipe.train_reward(folder / "sft", seed, progress=False, **how), tokenizer

    return rewards.learned_reward(kept(folder / name, train, load_reward_model)[0], tokenizer)
