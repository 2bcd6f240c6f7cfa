"""Recipes and runs as text for a terminal."""

from __future__ import annotations

from dataclasses import fields

import yaml

from course_lib.recipes.settings import GIVEN_BY_THE_RUN, SECTIONS, Recipe, RewardPart
from course_lib.trainers.config import Checked

WIDTH = 44  # of a key and its value, before what it means


def explained(recipe: Recipe) -> str:
    """The recipe in full, as YAML that can be kept and changed, with what each setting means."""
    head = {"about": recipe.about, "method": recipe.method, "output": recipe.output, "trackers": recipe.trackers}
    lines = [f"{key}: {_value(value)}" for key, value in head.items()]
    sections: dict[str, Checked] = {name: getattr(recipe, name) for name in SECTIONS}
    order = ["model", "data", "training", "evaluation", "hardware", "plan"]
    for name in order:
        lines += ["", f"{name}:", *_lines((sections | {"training": recipe.training})[name], "  ")]
        if name == "data" and recipe.reward:
            lines += ["", "reward:"]
            for part, settings in recipe.reward.items():
                lines += [f"  {part}:", *_lines(settings, "    ")]
    return "\n".join(lines)


def _lines(settings: Checked | RewardPart, indent: str) -> list[str]:
    plain = settings.to_dict()
    return [
        f"{f'{indent}{known.name}: {_value(plain[known.name])}':{WIDTH}}  # {known.metadata['help']}"
        for known in fields(settings)
        if known.name not in GIVEN_BY_THE_RUN
    ]


def _value(value) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...")


def told(summary: dict) -> str:
    """What a run found, in a few lines."""
    if summary["interrupted"]:
        return f"stopped after step {summary['steps']}: the same command with --resume goes on"
    metrics = {k: v for k, v in summary["metrics"].items() if k in ("loss", "eval_loss", "objective/scores")}
    lines = [f"{summary['recipe']}: {summary['steps']:,} steps; last "
             + ", ".join(f"{name} {value:.3g}" for name, value in metrics.items())]  # fmt: skip
    for name, row in summary["evaluation"].items():
        text = f"  {name}: {row['after']:.3g}"
        if "difference" in row:
            text += ", before {before:.3g}: {mean:+.3g} ({low:+.3g} to {high:+.3g})".format(
                before=row["before"], **row["difference"]
            )
        lines.append(f"{text}, {row['n']} held out")
    lines.append(f"  model and its card: {summary['model']}")
    return "\n".join(lines)
