"""Recipes as files: where they lie, and what their YAML says, before any of it is understood. Needs no torch."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from course_lib.hub import is_cached, is_reachable, looks_like_hub_name

FOLDER = Path(__file__).parent


class RecipeError(ValueError):
    """A recipe that cannot be meant, or cannot be run here; the message says what to change."""


def recipe_names() -> list[str]:
    """The recipes of the package, tier by tier: tiny/dpo and so on."""
    tiers = ("tiny", "laptop", "single-gpu", "full")
    return [f"{tier}/{path.stem}" for tier in tiers for path in sorted((FOLDER / tier).glob("*.yaml"))]


def abouts() -> dict[str, str]:
    """What each recipe of the package is about, by its name."""
    return {name: parsed(path_of(name).read_text(encoding="utf-8"), name)["about"] for name in recipe_names()}


def refuse_unreachable_model(name: str, changes: Sequence[str]) -> None:
    """See at once that a recipe's model can be had, seconds before what trains it is imported.

    Raises:
        RecipeError: it is a name on the hub, which cannot be reached and has left nothing in the cache.
    """
    values = parsed(path_of(name).read_text(encoding="utf-8"), name)
    model = values.get("model") if isinstance(values, Mapping) else None
    wanted = model.get("name") if isinstance(model, Mapping) else None
    for change in changes:
        key, _, value = change.partition("=")
        wanted = value if key in ("model.name", "name") else wanted
    if isinstance(wanted, str) and looks_like_hub_name(wanted) and not is_reachable() and not is_cached(wanted):
        raise RecipeError(
            f"could not load {wanted!r}: the hub cannot be reached, and it is neither a folder nor in the cache. "
            "Connect, or give model.name: a shipped model (pocket-world-sft), smollm2, or a folder"
        )


def path_of(name: str) -> Path:
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise RecipeError(f"there is no file {name}; check the path (now in {Path.cwd()})")
        return Path(name)
    if name not in recipe_names():
        raise RecipeError(f"there is no recipe {name!r}{nearest(name, recipe_names())}; `course recipes` lists them")
    return FOLDER / f"{name}.yaml"


def title(path: Path) -> str:
    inside = path.resolve().is_relative_to(FOLDER)
    return path.resolve().relative_to(FOLDER).with_suffix("").as_posix() if inside else path.stem


class _Loader(yaml.SafeLoader):
    """YAML, with 1e-4 read as the number that it is, and a key that stands twice refused."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is a word", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def parsed(text: str, where: str):
    try:
        return yaml.load(text, _Loader)  # noqa: S506, a safe loader
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise RecipeError(f"{where}{line} is not YAML: {getattr(error, 'problem', None) or error}") from error


def nearest(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
