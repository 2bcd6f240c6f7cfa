"""Published formats: rows as public data sets have them, put into the form that the trainers take."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from numbers import Real

KINDS = {
    "preference": ("prompt", "chosen", "rejected"),
    "sft": ("prompt", "completion"),
    "unpaired": ("prompt", "completion", "label"),
    "prompt": ("prompt",),
}
ROLES = ("system", "user", "assistant", "tool")


def normalised(row, kind: str, columns: Mapping[str, str] | None = None, *, turns: str = "last"):
    """A row in this kind's form where it is a known variant of it, otherwise as it came.

    Args:
        row: what a file, a hub or a list holds.
        kind: one of `KINDS`.
        columns: {name in the source: name here}.
        turns: of a dialogue in `messages` for SFT, "last" takes the last answer, "all" every answer.
    """
    if not isinstance(row, dict):
        return row
    columns = columns or {}
    row = {columns.get(key, key): value for key, value in row.items()}
    row = {key: value for key, value in row.items() if value is not None or (key in KINDS[kind] and kind != "sft")}
    if kind == "preference":
        row = _pair_with_prompt(row)
    elif kind == "sft" and "completion" not in row and is_dialogue(row.get("messages")):
        row = row | _demonstration(row["messages"], turns)
    elif kind in ("sft", "unpaired"):
        row = _answer_with_prompt(row)
    if isinstance(row.get("label"), Real) and row["label"] in (0, 1):
        row = row | {"label": bool(row["label"])}
    if isinstance(row.get("tools"), str):
        row = row | {"tools": _from_json(row["tools"])}
    return row


def keys_of(row: dict, kind: str) -> tuple[str, ...]:
    """The keys that this row must have: a plain-text SFT row has just one."""
    if kind == "sft" and "text" in row and "completion" not in row:
        return ("text",)
    return KINDS[kind]


def only_known_keys(row: dict, kind: str) -> dict:
    """The row without columns that no trainer reads; `tools` stay, for the chat template."""
    return {key: row[key] for key in (*keys_of(row, kind), "tools") if key in row}


def is_dialogue(value) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(m, dict) and "role" in m for m in value)


def _pair_with_prompt(row: dict) -> dict:
    """Pairs whose two sides are whole dialogues: take the shared beginning out as the prompt."""
    sides = [_as_dialogue(row.get(side)) for side in ("chosen", "rejected")]
    if not all(map(is_dialogue, sides)) or any(len(side) < 2 for side in sides):
        return row
    shared = 0
    while shared < min(map(len, sides)) - 1 and sides[0][shared] == sides[1][shared]:
        shared += 1
    if not shared:
        return row
    start = row.get("prompt")
    before = start if is_dialogue(start) and sides[0][: len(start)] != start else []
    return row | {"prompt": before + sides[0][:shared], "chosen": sides[0][shared:], "rejected": sides[1][shared:]}


def _demonstration(messages: list, turns: str) -> dict:
    """A dialogue as prompt and completion: the last answer, or all from the first answer on."""
    if turns == "last":
        return {"prompt": messages[:-1], "completion": messages[-1:]}
    first = next((i for i, message in enumerate(messages) if message["role"] == "assistant"), len(messages))
    return {"prompt": messages[:first], "completion": messages[first:]}


def _answer_with_prompt(row: dict) -> dict:
    """A completion that repeats the prompt's message: take it out as the prompt."""
    completion, prompt = row.get("completion"), row.get("prompt")
    if not is_dialogue(completion) or completion[0]["role"] == "assistant":
        return row
    first = next((i for i, message in enumerate(completion) if message["role"] == "assistant"), None)
    if first is None or not (prompt is None or prompt in (completion[:first], completion[first - 1].get("content"))):
        return row
    return row | {"prompt": completion[:first], "completion": completion[first:]}


_TURN = re.compile(r"\n\n(Human|Assistant):")


def _as_dialogue(value):
    """hh-rlhf's "\\n\\nHuman: ...\\n\\nAssistant: ..." as chat messages; anything else as it is.

    One blank stands between a name and what it says; further blanks are the words' own, such as code's indentation.
    """
    if not isinstance(value, str) or not value.startswith("\n\nHuman:"):
        return value
    pieces = _TURN.split(value)[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": roles[who], "content": text.removeprefix(" ").rstrip()}
        for who, text in zip(pieces[::2], pieces[1::2], strict=True)
    ]


def _from_json(text: str):
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text  # which validation names
