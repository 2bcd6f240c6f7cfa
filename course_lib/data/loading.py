"""Loading records: Pocket World, a local file, or a hub data set in its published format."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from course_lib import world
from course_lib.data.records import KINDS, Problem, RecordError

WORLD_SOURCES = {
    "preference": world.preference_records,
    "unpaired": world.unpaired_records,
}


def load_records(
    source: str | Path = "pocket-world",
    kind: str = "preference",
    *,
    split: str = "train",
    limit: int | None = None,
    columns: Mapping[str, str] | None = None,
    seed: int = 0,
) -> list[dict]:
    """Records of one kind, in the form that the trainers take.

    Published formats are recognised: pairs whose chosen and rejected hold the prompt as well (hh-rlhf's
    text, UltraFeedback's messages), `messages` for SFT, prompt-completion-label rows. Nothing is dropped
    or repaired; the trainers validate what they are given.

    Args:
        source: "pocket-world", a .jsonl, .json or .parquet file, or the name of a hub data set.
        kind: "preference", "sft", "unpaired" or "prompt".
        split: of a hub data set; of Pocket World's prompts and pairs. A file has one split.
        limit: take only the first so many (for Pocket World: draw so many, by default 4,000, or 1,000 prompts).
        columns: {name in the source: name here}, for data sets with other column names.
        seed: of Pocket World's draw.

    Raises:
        ValueError: for an unknown kind, or lines that are not JSON (each with its row number).
        FileNotFoundError: if a file is meant and there is none.
        OSError: if a hub data set cannot be had; the message says what works offline.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown record kind {kind!r}; choose one of {', '.join(KINDS)}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit is at least 1, or None for all; got {limit}")
    if source == "pocket-world":
        return _from_world(kind, split, limit, seed)
    suffix = Path(source).suffix
    if suffix in (".jsonl", ".json", ".parquet"):
        rows = _from_file(Path(source), suffix)
    else:
        rows = _from_hub(str(source), split)
    rows = rows if limit is None else rows[:limit]
    return [_normalise(row, kind, columns or {}) for row in rows]


def _from_world(kind: str, split: str, limit: int | None, seed: int) -> list[dict]:
    if kind == "prompt":
        return [{"prompt": p} for p in world.prompts(split, limit or 1000, seed=seed)]
    if kind == "sft":
        return world.sft_records(limit or 4000, seed=seed)
    return WORLD_SOURCES[kind](limit or 4000, seed=seed, split=split)


def _from_file(path: Path, suffix: str) -> list[dict]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; check the path (now in {Path.cwd()})")
    if suffix == ".parquet":
        import pyarrow.parquet as parquet

        return parquet.read_table(path).to_pylist()
    text = path.read_text(encoding="utf-8")
    if suffix == ".json" and text.lstrip().startswith("["):
        return json.loads(text)
    return _json_lines(text.split("\n"))


def _json_lines(lines: list[str]) -> list[dict]:
    rows, problems = [], []
    for line in lines:
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            problems.append(Problem(len(rows) + len(problems), f"is not JSON ({error})", "write one object a line"))
    if problems:
        raise RecordError(problems, len(rows) + len(problems))
    return rows


def _from_hub(name: str, split: str) -> list[dict]:
    from datasets import load_dataset

    try:
        return list(load_dataset(name, split=split))
    except (OSError, ValueError, RuntimeError) as error:
        raise OSError(
            f"could not load the data set {name!r} (split {split!r}): {error}\n"
            "Without internet, use 'pocket-world' or a local .jsonl or .parquet file."
        ) from error


def _normalise(row, kind: str, columns: Mapping[str, str]) -> dict:
    """A row in this kind's form where it is a known variant of it, otherwise as it came."""
    if not isinstance(row, dict):
        return row
    row = {columns.get(key, key): value for key, value in row.items() if value is not None}
    if kind == "preference":
        row = _with_prompt(row)
    elif kind == "sft" and "completion" not in row and _is_dialogue(row.get("messages")):
        row = {"prompt": row["messages"][:-1], "completion": row["messages"][-1:]}
    wanted = (*KINDS[kind], "text") if kind == "sft" and "completion" not in row else KINDS[kind]
    return {key: row[key] for key in wanted if key in row}


def _with_prompt(row: dict) -> dict:
    """Pairs whose two sides are whole dialogues: take the shared beginning out as the prompt."""
    sides = [_as_dialogue(row.get(side)) for side in ("chosen", "rejected")]
    if not all(map(_is_dialogue, sides)) or any(len(side) < 2 for side in sides):
        return row
    shared = 0
    while shared < min(map(len, sides)) - 1 and sides[0][shared] == sides[1][shared]:
        shared += 1
    if not shared:
        return row
    start = row.get("prompt")
    before = start if _is_dialogue(start) and sides[0][: len(start)] != start else []
    return row | {"prompt": before + sides[0][:shared], "chosen": sides[0][shared:], "rejected": sides[1][shared:]}


_TURN = re.compile(r"\n\n(Human|Assistant):")


def _as_dialogue(value):
    """hh-rlhf's "\\n\\nHuman: ...\\n\\nAssistant: ..." as chat messages; anything else as it is."""
    if not isinstance(value, str) or not value.startswith("\n\nHuman:"):
        return value
    pieces = _TURN.split(value)[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    return [{"role": roles[who], "content": text.strip()} for who, text in zip(pieces[::2], pieces[1::2], strict=True)]


def _is_dialogue(value) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(m, dict) and "role" in m for m in value)
