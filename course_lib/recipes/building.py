"""From a recipe to what it names: records, model, reward function, trainer."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from accelerate.state import PartialState

from course_lib.data import load_records
from course_lib.models import load_policy, load_reward_model
from course_lib.recipes.files import RecipeError
from course_lib.recipes.methods import METHOD_KINDS, MethodKind
from course_lib.recipes.settings import STRATEGIES, DataSettings, ModelSettings, Recipe, RewardPart
from course_lib.rewards import RewardFunction, learned_reward, weighted_reward
from course_lib.trainers import Trainer

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, None: None}


def records_of(recipe: Recipe) -> tuple[list[dict], list[dict]]:
    """What is trained on, and what is held out."""
    data, kind = recipe.data, METHOD_KINDS[recipe.method].records
    training = _rows(data, kind, data.split, data.limit, data.seed)
    if not data.held_out_split:
        return training, []
    # another seed, as Pocket World draws demonstrations from no split
    return training, _rows(data, kind, data.held_out_split, data.held_out_limit, data.seed + 1)


def _rows(data: DataSettings, kind: str, split: str, limit: int | None, seed: int) -> list[dict]:
    return load_records(
        data.source,
        kind,
        split=split,
        subset=data.subset,
        limit=limit,
        columns=data.columns,
        filters=data.filters,
        turns=data.turns,
        shuffle=data.shuffle,
        streaming=data.streaming,
        seed=seed,
    )


def held_out_prompts(recipe: Recipe, held_out: Sequence[dict]) -> list:
    """Different prompts to be answered before and after training, as many as the evaluation asks for at most."""
    most, data = recipe.evaluation.prompts, recipe.data
    if not (most and held_out):
        return []
    if data.source == "pocket-world":
        held_out = load_records("pocket-world", "prompt", split=data.held_out_split, limit=most, seed=data.seed)
    different = {json.dumps(record["prompt"], sort_keys=True): record["prompt"] for record in held_out
                 if "prompt" in record}  # fmt: skip
    return list(different.values())[:most]


def policy_of(model: ModelSettings, method: str, *, device=None):
    """The model to train and its tokenizer."""
    if method == "reward":
        return load_reward_model(model.name, dtype=DTYPES[model.dtype], device=device)
    return load_policy(
        model.name,
        lora_rank=model.lora_rank,
        lora_alpha=model.lora_alpha,
        lora_targets=model.lora_targets,
        quantization=model.quantization,
        dtype=DTYPES[model.dtype],
        device=device,
        attention=model.attention,
        revision=model.revision,
    )


def device_of_process(strategy: str):
    """Where this process's model begins: with its weights to be sharded, in the CPU's memory."""
    return torch.device("cpu") if STRATEGIES[strategy][0] == 3 else PartialState().device


def reward_of(parts: dict[str, RewardPart], *, device=None, dtype: str | None = None) -> RewardFunction:
    """One part of weight 1 as it is, several as their weighted sum, each part logged by its name."""
    functions = {name: _part(part, device, dtype) for name, part in parts.items()}
    if len(parts) == 1 and next(iter(parts.values())).weight == 1:
        return next(iter(functions.values()))
    return weighted_reward({name: (parts[name].weight, function) for name, function in functions.items()})


def _part(part: RewardPart, device, dtype: str | None) -> RewardFunction:
    return function_named(part.function) if part.function else _model_reward(part.model, device, dtype)


def _model_reward(name: str, device, dtype: str | None) -> RewardFunction:
    return learned_reward(*load_reward_model(name, device=device, dtype=DTYPES[dtype]))


def judge_named(name: str, *, device=None, dtype: str | None = None) -> RewardFunction:
    """What an evaluation's `judge` names: "gold", FILE.py:NAME, or a reward model."""
    return function_named(name) if name == "gold" or ".py:" in name else _model_reward(name, device, dtype)


def function_named(name: str) -> RewardFunction:
    """ "gold", or the function NAME of FILE.py, a file of this machine.

    Raises:
        RecipeError: there is no such file, or no such function in it.
    """
    if name == "gold":
        from course_lib.world import gold_reward

        return gold_reward
    file, colon, attribute = name.rpartition(":")
    path = Path(file)
    if not colon or path.suffix != ".py":
        raise RecipeError(f"a function is gold, or FILE.py:NAME; got {name!r}")
    if not path.is_file():
        raise RecipeError(f"there is no file {path} with the function {attribute!r}; check the path")
    spec = importlib.util.spec_from_file_location(f"recipe_function_{path.stem}", path)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = getattr(module, attribute, None)
    if not callable(found):
        raise RecipeError(f"{path} has no function {attribute!r}")
    return found


def trainer_of(
    recipe: Recipe, policy, tokenizer, records: Sequence[dict], held_out: Sequence[dict], reward: Callable | None
) -> Trainer:
    """The method's trainer, with checkpoints in the run's folder."""
    kind: MethodKind = METHOD_KINDS[recipe.method]
    shows = {"progress": recipe.training.progress and sys.stderr.isatty()}
    config = replace(recipe.training, **shows)
    make = partial(kind.trainer, policy, tokenizer, records, config, eval_records=held_out or None, **kind.arguments)
    return make(reward=reward) if kind.online else make()


def bytes_to_write(trained: int, whole: int, keep: int) -> float:
    """What a run leaves on the disk at most: its checkpoints and a new one beside them, and the model.

    Args:
        trained: weights that are trained, each with its two moments, in fp32.
        whole: weights of the model that is written in the end: all of them, or the adapters'.
        keep: checkpoints that stay.
    """
    return 12.0 * trained * (keep + 1) + 4.0 * whole


def refuse_full_disk(folder: Path, needed: float) -> None:
    """See that the disk of a folder has room for what a run will leave.

    Raises:
        RecipeError: it has not; it says how much is needed.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise RecipeError(
            f"the run will leave {needed / 1e9:.2f} GB in {folder}, and its disk has {free / 1e9:.2f} GB free: give "
            "output=FOLDER on another disk, or lower training.keep_checkpoints"
        )
