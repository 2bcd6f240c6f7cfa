"""Kinds of records, and rows as public data sets have them put into the form that the trainers take."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from numbers import Real

from course_lib.data.questions import as_chat

KINDS = {
    "preference": ("prompt", "chosen", "rejected"),
    "sft": ("prompt", "completion"),
    "unpaired": ("prompt", "completion", "label"),
    "prompt": ("prompt",),
}
ROLES = ("system", "user", "assistant", "tool")
DIALOGUES = ("prompt", "completion", "chosen", "rejected", "messages", "conversations")
SHAREGPT = {"human": "user", "gpt": "assistant", "observation": "tool"}  # its names for our roles


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
    row = renamed(row, columns)
    row = {key: value for key, value in row.items() if value is not None or (key in KINDS[kind] and kind != "sft")}
    row = row | {key: _as_dialogue(row[key]) for key in DIALOGUES if key in row}
    row = as_chat(_with_messages(row))
    row = _IN_FORM[kind](row, turns)
    if isinstance(row.get("label"), Real) and row["label"] in (0, 1):
        row = row | {"label": bool(row["label"])}
    if "tools" in row:
        row = row | {"tools": _tools(row["tools"])}
    return row


def renamed(row: dict, columns: Mapping[str, str] | None) -> dict:
    """The row under the names used here; a column that is renamed takes the place of one that has the name."""
    if not columns:
        return row
    kept = {key: value for key, value in row.items() if key not in columns}
    return kept | {columns[key]: value for key, value in row.items() if key in columns}


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


def _with_messages(row: dict) -> dict:
    """A dialogue that ShareGPT calls `conversations` as `messages`, or as the prompt of a pair that goes on from it."""
    dialogue = row.get("conversations")
    if not is_dialogue(dialogue) or "messages" in row:
        return row
    if isinstance(row.get("system"), str) and row["system"].strip() and dialogue[0]["role"] != "system":
        dialogue = [{"role": "system", "content": row["system"]}, *dialogue]
    name = "prompt" if {"chosen", "rejected"} <= row.keys() and "prompt" not in row else "messages"
    return row | {name: dialogue}


def _pair_with_prompt(row: dict, turns: str) -> dict:
    """Pairs whose two sides are whole dialogues: take the shared beginning out as the prompt."""
    sides = [row.get(side) for side in ("chosen", "rejected")]
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


def _demonstration(row: dict, turns: str) -> dict:
    """A dialogue as prompt and completion: the last answer, or all from the first answer on."""
    messages = row.get("messages")
    if "completion" in row or not is_dialogue(messages):
        return _answer_with_prompt(row, turns)
    start = len(messages) - 1 if turns == "last" else _first_answer(messages)
    return row | {"prompt": messages[:start], "completion": messages[start:]}


def _answer_with_prompt(row: dict, turns: str) -> dict:
    """A completion that repeats the prompt's message: take it out as the prompt."""
    completion, prompt = row.get("completion"), row.get("prompt")
    if not is_dialogue(completion) or completion[0]["role"] == "assistant":
        return row
    first = _first_answer(completion)
    if first == len(completion):
        return row
    if not (prompt is None or prompt in (completion[:first], completion[first - 1].get("content"))):
        return row
    return row | {"prompt": completion[:first], "completion": completion[first:]}


def _question(row: dict, turns: str) -> dict:
    """A prompt alone: what stands before the answers of a pair, or before the last answer of a dialogue."""
    if is_dialogue(row.get("prompt")):
        return row
    row, messages = _pair_with_prompt(row, turns), row.get("messages")
    if is_dialogue(row.get("prompt")) or not is_dialogue(messages):
        return row
    if "prompt" not in row:
        return row | {"prompt": messages[:-1] if messages[-1]["role"] == "assistant" else messages}
    first = _first_answer(messages)
    return row | {"prompt": messages[:first]} if row["prompt"] == messages[first - 1].get("content") else row


_IN_FORM = {
    "preference": _pair_with_prompt,
    "sft": _demonstration,
    "unpaired": _answer_with_prompt,
    "prompt": _question,
}


def _first_answer(messages: list) -> int:
    return next((i for i, message in enumerate(messages) if message["role"] == "assistant"), len(messages))


_TURN = re.compile(r"\n\n(Human|Assistant):")


def _as_dialogue(value):
    """Chat messages from hh-rlhf's "\\n\\nHuman: ...\\n\\nAssistant: ..." and from ShareGPT's; anything else as it is.

    In hh-rlhf one blank stands between a name and what it says; further blanks are the words' own, such as code's
    indentation.
    """
    if isinstance(value, list):
        return [_as_message(message) for message in value]
    if isinstance(value, dict):
        return [_as_message(value)]
    if not isinstance(value, str) or not value.startswith("\n\nHuman:"):
        return value
    pieces = _TURN.split(value)[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": roles[who], "content": text.removeprefix(" ").rstrip()}
        for who, text in zip(pieces[::2], pieces[1::2], strict=True)
    ]


def _as_message(message):
    if not isinstance(message, dict):
        return message
    if {"from", "value"} <= message.keys():
        return {"role": SHAREGPT.get(message["from"], message["from"]), "content": message["value"]}
    return without_nothing(message)


def without_nothing(value):
    """The value without keys that hold None: in a Parquet file each message has the keys of all others, empty."""
    if isinstance(value, dict):
        return {key: without_nothing(inner) for key, inner in value.items() if inner is not None}
    return [without_nothing(inner) for inner in value] if isinstance(value, list) else value


def _tools(value):
    if not isinstance(value, str):
        return without_nothing(value)
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value  # which validation names
