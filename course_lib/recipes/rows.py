"""Rows of a recipe's data, counted and measured before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import AutoTokenizer

from course_lib.data import PLAIN_CHAT_TEMPLATE, encode_records, fit_rows, looks_local
from course_lib.hub import offline_if_unreachable
from course_lib.models import folder_or_name
from course_lib.recipes.building import records_of
from course_lib.recipes.files import RecipeError
from course_lib.recipes.methods import METHOD_KINDS
from course_lib.recipes.settings import Recipe


@dataclass(frozen=True)
class Rows:
    """Rows of the data, and their tokens: measured where the data are at hand, else as the recipe says."""

    training: int
    held_out: int
    tokens: int  # of a row's longer side, on average
    completion_tokens: int
    longest: int
    measured: bool


def rows_of(recipe: Recipe) -> Rows:
    """Local rows are read and measured; of those on the hub the recipe says what there is."""
    data, given = recipe.data, recipe.plan
    if data.source == "pocket-world" or looks_local(data.source):
        records, held_out = records_of(recipe)
        return _measured(recipe, records, held_out)
    if not (given.rows and given.tokens and given.completion_tokens):
        raise RecipeError(
            f"a dry run downloads no data, and this recipe does not say what is in {data.source}: give plan.rows, "
            "plan.tokens and plan.completion_tokens"
        )
    rows = min(given.rows, data.limit or given.rows)
    return Rows(rows, data.held_out_limit or 0, given.tokens, given.completion_tokens, recipe.training.max_length,
                measured=False)  # fmt: skip


def _measured(recipe: Recipe, records: Sequence[dict], held_out: Sequence[dict]) -> Rows:
    """Lengths under the model's own tokenizer, of the rows that the run would train on."""
    kind, training = METHOD_KINDS[recipe.method], recipe.training
    tokenizer = _tokenizer(recipe.model.name)
    if tokenizer is None:
        raise RecipeError(
            f"the tokenizer of {recipe.model.name!r} is not at hand, so the tokens of the rows cannot be counted: "
            "connect, or give model.name a folder"
        )
    encoded = encode_records(records, kind.records, tokenizer=tokenizer)
    room = training.max_new_tokens if kind.online else 1
    encoded, kept = fit_rows(encoded, training.max_length, over_long=training.over_long, room=room)
    sides = [[row] if isinstance(row[0], list) else list(row) for row in encoded]
    longer = [max(side, key=lambda each: each.length) for side in sides]
    prompt = round(sum(len(row.prompt_ids) for row in longer) / len(longer))
    completion = round(sum(len(row.completion_ids) for row in longer) / len(longer)) or 1
    longest = min(training.max_length, max(row.length for row in longer))
    if kind.online:
        completion, longest = training.max_new_tokens, min(training.max_length, longest + training.max_new_tokens)
    return Rows(len(kept), len(held_out), prompt + completion, completion, longest, measured=True)


def _tokenizer(name: str):
    try:
        with offline_if_unreachable():
            tokenizer = AutoTokenizer.from_pretrained(folder_or_name(name))
    except (OSError, ValueError):
        return None
    tokenizer.chat_template = tokenizer.chat_template or PLAIN_CHAT_TEMPLATE
    return tokenizer
