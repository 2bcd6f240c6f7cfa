"""The card of a model: how it was made, what was measured, and what is not known of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import yaml

from course_lib.hub import looks_like_hub_name
from course_lib.models.smollm2 import HUB_NAME
from course_lib.recipes.folder import versions
from course_lib.recipes.settings import Recipe

NAMES = {"rewards": "reward of the judge", "words": "words of an answer", "right": "held-out pairs ranked rightly"}


def card(recipe: Recipe, summary: dict, samples: Sequence[tuple]) -> str:
    """A README in the hub's form: a table for machines on top, then sentences and tables for people.

    Args:
        recipe: what was run.
        summary: as `run_recipe` gives it.
        samples: `(prompt, answer before, answer after)` of a few held-out prompts.
    """
    adapters = recipe.model.lora_rank is not None
    source = Path(recipe.data.source).name if Path(recipe.data.source).exists() else recipe.data.source
    top = {"library_name": "peft" if adapters else "transformers", "tags": ["course-lib", recipe.method]}
    base = HUB_NAME if recipe.model.name == "smollm2" else recipe.model.name
    if looks_like_hub_name(base):
        top["base_model"] = base
    if looks_like_hub_name(recipe.data.source):
        top["datasets"] = [recipe.data.source]
    how = f"LoRA adapters of rank {recipe.model.lora_rank}" if adapters else "all weights"
    found = versions()["packages"]
    pieces = [
        f"---\n{yaml.safe_dump(top, sort_keys=False)}---",
        f"# {recipe.name}",
        f"{recipe.about or 'A run of course_lib.'} Made from `{recipe.model.name}` by `{recipe.method}`: {how}, "
        f"{summary['steps']:,} optimiser steps on `{source}`.",
        "## What was measured",
        _measured(summary.get("evaluation", {}), summary["metrics"]),
        *(["## The same prompts before and after", *map(_sample, samples)] if samples else []),
        "## What is not known",
        "Nothing was measured but what stands above: not truthfulness, not safety, no other kinds of prompts. What "
        "held for the model and the data that it was made from, their licences included, holds for it too.",
        "## How to make it again",
        f"`course train recipe.yaml` with the file below, under {', '.join(f'{k} {v}' for k, v in found.items())}.",
        f"```yaml\n{yaml.safe_dump(recipe.to_dict(), sort_keys=False, allow_unicode=True, width=100)}```",
    ]
    return "\n\n".join(pieces) + "\n"


def _measured(evaluation: dict, metrics: dict) -> str:
    looks = ", ".join(f"`{name}` {value:.3g}" for name, value in metrics.items() if name.startswith("eval_"))
    looks = f"Over the held-out rows, at the end: {looks}." if looks else ""
    if not evaluation:
        return looks or "Nothing: the recipe holds no data out."
    rows = ["| on held-out data | before | after | difference, with its 95% interval |", "| --- | --- | --- | --- |"]
    for name, row in evaluation.items():
        before = f"{row['before']:.3g}" if "before" in row else ""
        change = "{mean:+.3g} ({low:+.3g} to {high:+.3g})".format(**row["difference"]) if "difference" in row else ""
        rows.append(f"| {NAMES[name]}, n = {row['n']} | {before} | {row['after']:.3g} | {change} |")
    return "\n".join(rows) + (f"\n\n{looks}" if looks else "")


def _sample(row: tuple) -> str:
    prompt, before, after = row
    asked = prompt if isinstance(prompt, str) else prompt[-1]["content"]
    return "\n".join(f"> **{who}** {' '.join(text.split())}  " for who, text in
                     (("asked:", asked), ("before:", before), ("after:", after)))  # fmt: skip
