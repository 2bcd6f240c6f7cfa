"""Loading records: Pocket World, rows in memory, a local file, or a hub data set in its published format."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path

from course_lib.data.files import looks_local, rows_of
from course_lib.data.formats import KINDS, keys_of, normalised, only_known_keys
from course_lib.data.hub import offline_if_unreachable


def load_records(
    source: str | Path | Iterable[dict] = "pocket-world",
    kind: str = "preference",
    *,
    split: str = "train",
    limit: int | None = None,
    columns: Mapping[str, str] | None = None,
    turns: str = "last",
    seed: int = 0,
) -> list[dict]:
    """Records of one kind, in the form that the trainers take.

    Published formats are recognised: pairs whose chosen and rejected hold the prompt as well (hh-rlhf's
    text, UltraFeedback's messages), `messages` for SFT, prompt-completion-label rows with labels true and false or 1
    and 0. Nothing is dropped or repaired; the trainers validate what they are given. A `tools` column is kept: the
    chat template gets it.

    Args:
        source: "pocket-world", a .jsonl, .json, .parquet or .csv file (or one of them gzipped), the name of a hub data
            set, or rows: a list of dicts, a `datasets.Dataset`, or an `IterableDataset`, which needs a limit.
        kind: "preference", "sft", "unpaired" or "prompt".
        split: of a hub data set; of Pocket World's prompts and pairs. A file has one split.
        limit: take only the first so many (for Pocket World: draw so many, by default 4,000, or 1,000 prompts).
        columns: {name in the source: name here}, for data sets with other column names.
        turns: of dialogues in `messages` for SFT: "last" trains on the last answer, "all" on every answer.
        seed: of Pocket World's draw.

    Raises:
        ValueError: for an unknown kind, lines that are not JSON (each with its row number), a file in another encoding
            or damaged, or a stream without a limit.
        FileNotFoundError: if a file is meant and there is none.
        OSError: if a hub data set cannot be had; the message says what works offline.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown record kind {kind!r}; choose one of {', '.join(KINDS)}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit is at least 1, or None for all; got {limit}")
    if turns not in ("last", "all"):
        raise ValueError(f"turns is 'last' or 'all'; got {turns!r}")
    if isinstance(source, str) and source == "pocket-world":
        return _from_world(kind, split, limit, seed)
    rows = itertools.islice(_rows(source, split, limit), limit)
    found = [normalised(row, kind, columns, turns=turns) for row in rows]
    return [_in_order(row, kind) for row in found]


def _rows(source, split: str, limit: int | None) -> Iterable:
    if isinstance(source, (str, Path)):
        if isinstance(source, Path) or looks_local(source):
            return rows_of(Path(source))
        return _from_hub(source, split)
    if isinstance(source, Mapping):
        raise ValueError(
            f"the source has splits: pass one of them, for example source[{next(iter(source), 'train')!r}]"
        )
    if not hasattr(source, "__len__") and limit is None:
        raise ValueError("a stream may never end; say how many rows to take with limit=")
    return source


def _in_order(row, kind: str):
    """The row without other columns, if it is whole; otherwise as it came, so that validation can name what it has."""
    whole = isinstance(row, dict) and all(key in row for key in keys_of(row, kind))
    return only_known_keys(row, kind) if whole else row


def _from_world(kind: str, split: str, limit: int | None, seed: int) -> list[dict]:
    from course_lib import world

    if kind == "prompt":
        return [{"prompt": p} for p in world.prompts(split, limit or 1000, seed=seed)]
    if kind == "sft":
        return world.sft_records(limit or 4000, seed=seed)
    draw = world.preference_records if kind == "preference" else world.unpaired_records
    return draw(limit or 4000, seed=seed, split=split)


def _from_hub(name: str, split: str) -> Iterable:
    from datasets import load_dataset

    try:
        with offline_if_unreachable():
            return load_dataset(name, split=split)
    except (OSError, ValueError, RuntimeError) as error:
        raise OSError(
            f"could not load the data set {name!r} (split {split!r}): {error}\n"
            "Without internet, use 'pocket-world' or a local .jsonl or .parquet file."
        ) from error
