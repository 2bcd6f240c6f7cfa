"""From a YAML file, and changes to it, to a recipe; whatever cannot be meant is refused in one line."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from course_lib.recipes.files import RecipeError, nearest, parsed, path_of, title
from course_lib.recipes.methods import METHOD_KINDS
from course_lib.recipes.settings import GIVEN_BY_THE_RUN, SECTIONS, Recipe, RewardPart, keys_of

HEAD = ("about", "method", "output", "trackers")


def read_recipe(name: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """A recipe of the package, by its name, or a YAML file, with changes.

    Args:
        name: such as "tiny/dpo", or the path of a file that ends in .yaml.
        changes: "section.key=value", or "key=value" where only one section has the key; values as YAML has them.

    Raises:
        RecipeError: for a file that is missing or no YAML, unknown keys (the nearest one is named), and values that
            cannot be meant.
    """
    path = path_of(str(name))
    values = parsed(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(values, Mapping):
        raise RecipeError(f"{path} is no recipe: it has no keys")
    values = _copied(values)
    for change in sorted(changes, key=lambda change: not change.startswith("method=")):  # it decides what others mean
        _apply(change, values)
    return _recipe(title(path), values, path.parent)


def _copied(values):
    return {key: _copied(value) for key, value in values.items()} if isinstance(values, Mapping) else values


def _apply(change: str, values: dict) -> None:
    """Write one change into the plain values of a recipe."""
    key, equals, text = change.partition("=")
    if not equals or not key:
        raise RecipeError(f"{change!r} is no change: write key=value, such as training.learning_rate=1e-4")
    value = parsed(text, change)
    known = list(_known_keys(values))
    if key not in known:
        endings = [name for name in known if name.rpartition(".")[2] == key and not name.startswith("reward.")]
        if len(endings) > 1:
            raise RecipeError(f"{key!r} stands in several sections; write one of {', '.join(endings)}")
        if not endings and not key.startswith("reward."):
            raise RecipeError(_unknown(key, known))
        key = endings[0] if endings else key
    *sections, last = key.split(".")
    place = values
    for section in sections:
        if place.get(section) is None:
            place[section] = {}
        if not isinstance(place[section], dict):
            raise RecipeError(f"{section} is a section with keys of its own; it is {place[section]!r}")
        place = place[section]
    place[last] = value


def _known_keys(values: Mapping) -> Iterator[str]:
    """All keys that a recipe of this method may have, with their sections."""
    yield from HEAD
    for section, kind in SECTIONS.items():
        yield from (f"{section}.{key}" for key in keys_of(kind))
    if _is_method(values.get("method")):
        yield from (f"training.{key}" for key in keys_of(METHOD_KINDS[values["method"]].config))
    for part in values["reward"] if isinstance(values.get("reward"), Mapping) else {}:
        yield from (f"reward.{part}.{key}" for key in keys_of(RewardPart))


def _unknown(key: str, known: Sequence[str]) -> str:
    """What to say of a key that no recipe of this method has, its ending compared too."""
    last = key.rpartition(".")[2]
    near = difflib.get_close_matches(key, known, n=1) or [
        name for ending in difflib.get_close_matches(last, [k.rpartition(".")[2] for k in known], n=1)
        for name in known if name.rpartition(".")[2] == ending
    ]  # fmt: skip
    return f"there is no key {key!r}" + (f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(known)}")


def _recipe(name: str, values: dict, folder: Path) -> Recipe:
    for key in values:
        if key not in (*HEAD, *SECTIONS, "training", "reward"):
            raise RecipeError(_unknown(str(key), [*HEAD, *SECTIONS, "training", "reward"]))
    method = values.get("method")
    if not _is_method(method):
        raise RecipeError(f"method is one of {', '.join(METHOD_KINDS)}; got {method!r}"
                          f"{nearest(str(method), list(METHOD_KINDS))}")  # fmt: skip
    kind = METHOD_KINDS[method]
    sections = {key: _section(key, made_of, values.get(key)) for key, made_of in SECTIONS.items()}
    sections["data"].source = _beside(folder, sections["data"].source)
    recipe = Recipe(
        name=name,
        about=str(values.get("about") or ""),
        method=method,
        output=_text_of("output", values.get("output", f"runs/{name}")),
        trackers=_trackers(values.get("trackers")),
        training=_training(kind, values.get("training"), values.get("output", f"runs/{name}")),
        reward=_reward(kind, values.get("reward"), method, folder),
        **sections,
    )
    if judge := recipe.evaluation.judge:
        recipe.evaluation.judge = _beside(folder, judge)
    _refuse_what_does_not_go_together(recipe)
    return recipe


def _section(name: str, made_of, values, **given):
    if values is not None and not isinstance(values, Mapping):
        raise RecipeError(f"{name} is a section with keys of its own; got {values!r}")
    known = keys_of(made_of)
    for key in values or {}:
        if key not in known:
            raise RecipeError(_unknown(f"{name}.{key}", [f"{name}.{each}" for each in known]))
    try:
        return made_of(**(values or {}), **given)
    except ValueError as error:
        begins_with_a_key = str(error).split()[0] in known
        raise RecipeError(f"{name}{'.' if begins_with_a_key else ': '}{error}") from error


def _is_method(value) -> bool:
    return isinstance(value, str) and value in METHOD_KINDS


def _training(kind, values, output):
    for key in GIVEN_BY_THE_RUN:
        if isinstance(values, Mapping) and key in values:
            raise RecipeError(f"training.{key} is given by the {'output folder' if 'folder' in key else 'method'}: "
                              "leave it out")  # fmt: skip
    folder = {"checkpoint_folder": str(Path(str(output), "checkpoints"))}
    return _section("training", kind.config, values, **folder, **kind.settings)


def _reward(kind, parts, method: str, folder: Path) -> dict[str, RewardPart]:
    if parts is not None and not isinstance(parts, Mapping):
        raise RecipeError("reward has parts by name, each a model or a function, such as reward: {gold: {function: "
                          "gold}}")  # fmt: skip
    parts = {name: part for name, part in (parts or {}).items() if part is not None}  # None takes a part out
    if bool(parts) != kind.online:
        raise RecipeError(
            f"{method} learns from its own samples and needs a reward: give reward.NAME.model or reward.NAME.function"
            if kind.online
            else f"{method} takes no reward; leave the section out"
        )
    found = {str(name): _section(f"reward.{name}", RewardPart, part) for name, part in parts.items()}
    for part in found.values():
        part.function = part.function and _beside(folder, part.function)
    return found


def _beside(folder: Path, name: str) -> str:
    """A file that lies beside the recipe, by its full path; any other name as it is."""
    file, colon, function = name.partition(".py:")
    there = (folder / (f"{file}.py" if colon else name)).resolve()
    return f"{there}{colon and ':'}{function}" if there.is_file() and not Path(name).is_absolute() else name


def _text_of(key: str, value) -> str:
    if not isinstance(value, str) or not value.strip():
        raise RecipeError(f"{key} is a folder's path; got {value!r}")
    return value


def _trackers(names) -> list[str]:
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    names = [names] if isinstance(names, str) else [] if names is None else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RecipeError(f"trackers is a list of names, such as [tensorboard]; got {names!r}")
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise RecipeError(f"trackers are of {', '.join(LOGGER_TYPE_TO_CLASS)}; got {name!r}")
    return names


def _refuse_what_does_not_go_together(recipe: Recipe) -> None:
    model, data, evaluation = recipe.model, recipe.data, recipe.evaluation
    if model.quantization and model.lora_rank is None:
        raise RecipeError("model.quantization holds frozen weights in few bits: give model.lora_rank too")
    if model.lora_rank is None and (model.lora_alpha or model.lora_targets):
        raise RecipeError("model.lora_alpha and model.lora_targets belong to adapters: give model.lora_rank too")
    if recipe.method == "reward" and (model.lora_rank or model.quantization):
        raise RecipeError("reward models are trained whole here: leave model.lora_rank and model.quantization out")
    if recipe.method == "reward" and (model.revision or model.attention or evaluation.judge):
        raise RecipeError("a reward model is loaded and judged as it is: leave model.revision, model.attention and "
                          "evaluation.judge out")  # fmt: skip
    unusual = recipe.training.optimizer != "adamw" or getattr(recipe.training, "critic_warmup", 0)
    if unusual and "zero" in recipe.hardware.strategy:
        raise RecipeError("DeepSpeed's engines have no training.optimizer but adamw, and no training.critic_warmup: "
                          "leave them out, or take another hardware.strategy")  # fmt: skip
    if data.streaming and data.limit is None:
        raise RecipeError("a stream may never end: give data.limit with data.streaming")
    if recipe.training.eval_every and not data.held_out_split:
        raise RecipeError("training.eval_every looks at held-out rows: give data.held_out_split")
    if evaluation.judge and not data.held_out_split:
        raise RecipeError("evaluation.judge scores answers to held-out prompts: give data.held_out_split")
