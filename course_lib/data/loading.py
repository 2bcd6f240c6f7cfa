"""Loading records: Pocket World, rows in memory, local files, or a hub data set in its published format."""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from course_lib.data.files import looks_local, rows_of, stream_of
from course_lib.data.filters import Filters
from course_lib.data.formats import KINDS, keys_of, normalised, only_known_keys, renamed
from course_lib.data.splits import load_split, of_split, of_stream

logger = logging.getLogger(__name__)


def load_records(
    source: str | Path | Iterable[dict] = "pocket-world",
    kind: str = "preference",
    *,
    split: str = "train",
    subset: str | None = None,
    limit: int | None = None,
    columns: Mapping[str, str] | None = None,
    filters: Mapping | None = None,
    turns: str = "last",
    shuffle: bool = False,
    streaming: bool = False,
    seed: int = 0,
) -> list[dict]:
    """Records of one kind, in the form that the trainers take.

    Published formats are recognised: pairs whose chosen and rejected hold the prompt as well (hh-rlhf's text,
    UltraFeedback's messages) or that a column chooses between (PKU-SafeRLHF, SHP), dialogues in `messages` or
    ShareGPT's `conversations`, questions with answers (orca_dpo_pairs, Alpaca, gsm8k), and completions with a label
    that is true or false, 1 or 0. A question that stands in a column of another name becomes the user's message; a
    `prompt` that is a string stays one. Nothing is dropped but by `filters`, and nothing repaired: trainers validate
    what they are given. A `tools` column is kept, a list or JSON text: the chat template gets it.

    Args:
        source: "pocket-world"; a .jsonl, .json, .parquet or .csv file (or one of them gzipped); the name of a hub data
            set, or a folder that is laid out as one; or rows: a list of dicts, a `datasets.Dataset`, or an
            `IterableDataset`, which needs a limit.
        kind: "preference", "sft", "unpaired" or "prompt".
        split: of a hub data set, and of Pocket World's prompts and pairs. Of all others but Pocket World it may name
            rows: "train[:1000]", "train[95%:]". A file has one split, whatever it is called.
        subset: of a hub data set: one of its configurations ("main"), or a folder in it ("harmless-base").
        limit: take only the first so many that filters keep (for Pocket World: draw so many, by default 4,000, or
            1,000 prompts).
        columns: {name in the source: name here}, for data sets with other column names.
        filters: what to leave out, as {"min_score_gap": 1, "drop_ties": True}: see `Filters`. The log says how many.
        turns: of dialogues in `messages` for SFT: "last" trains on the last answer, "all" on every answer.
        shuffle: whether rows are shuffled, before the limit and within `split`.
        streaming: whether a hub data set or a file is read only as far as the limit asks for; it needs one.
        seed: of the shuffling, and of Pocket World's draw.

    Raises:
        ValueError: for settings that cannot be meant, columns that no row has, rows none of which has what its kind
            needs, lines that are not JSON (each with its row number), or a file in another encoding or damaged.
        FileNotFoundError: if a file is meant and there is none.
        OSError: if a hub data set cannot be had; the message says what works offline.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown record kind {kind!r}; choose one of {', '.join(KINDS)}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit is at least 1, or None for all; got {limit}")
    if turns not in ("last", "all"):
        raise ValueError(f"turns is 'last' or 'all'; got {turns!r}")
    rules = Filters(filters)
    if isinstance(source, str) and source == "pocket-world":
        if filters or columns or subset or shuffle or streaming:
            raise ValueError("Pocket World is drawn: it takes split, limit and seed, and no other of these settings")
        return _from_world(kind, split, limit, seed)
    rows = _rows(source, split, subset, streaming=streaming, limit=limit, order=seed if shuffle else None)
    return _records(rows, kind, columns, turns, rules, limit)


def _records(rows: Iterable, kind: str, columns, turns: str, rules: Filters, limit: int | None) -> list[dict]:
    """The first rows that filters keep, in this kind's form."""
    found, unread, first, missing = [], 0, None, set(columns or {})
    for row in rows:
        first = row if first is None else first
        missing -= row.keys() if isinstance(row, dict) else set()
        record = normalised(row, kind, columns, turns=turns)
        whole = isinstance(record, dict) and all(key in record for key in keys_of(record, kind))
        if whole:
            record = only_known_keys(record, kind)
            if not rules.keeps(renamed(row, columns), record):
                continue
        unread += not whole  # kept as it came, so that validation can name what it has
        found.append(record)
        if len(found) == limit:
            break
    if rules.wanted:
        logger.info("filters %s", rules)
    if found and (missing or unread == len(found)):
        raise ValueError(_unknown_columns(first, kind, missing))
    if not found and rules.kept + rules.dropped.total():
        raise ValueError(f"the filters leave no row: {rules}")
    return found


def _unknown_columns(row, kind: str, missing: set[str]) -> str:
    has = ", ".join(map(repr, row)) if isinstance(row, dict) else f"no columns: it is a {type(row).__name__}"
    if missing:
        return f"columns= names {', '.join(map(repr, sorted(missing)))}, which no row has; the first row has {has}"
    return (
        f"no row has what a {kind} record needs ({', '.join(map(repr, KINDS[kind]))}) or is in a published format that "
        f"is known here. The first row has {has}. If what is needed stands there under other names, say so: "
        f"columns={{'name there': {KINDS[kind][-1]!r}, ...}}"
    )


def _rows(source, split: str, subset: str | None, *, streaming: bool, limit: int | None, order: int | None):
    """The split's rows as they are taken: in the source's order, or in one that is drawn with the seed `order`."""
    if isinstance(source, Mapping):
        raise ValueError(
            f"the source has splits: pass one of them, for example source[{next(iter(source), 'train')!r}]"
        )
    where = _kind_of(source)
    if subset is not None and where != "hub":
        raise ValueError("subset= is of a hub data set, or of a folder that is laid out as one")
    if streaming or not (where != "rows" or hasattr(source, "__len__")):
        if limit is None:
            raise ValueError("a stream may never end; say how many rows to take with limit=")
        if order is not None:
            raise ValueError("a stream comes in its own order; leave out shuffle=, or streaming=")
        return _streamed(source, where, split, subset)
    rows = _all_rows(source, where, split, subset)
    return rows if order is None else (rows[i] for i in random.Random(order).sample(range(len(rows)), len(rows)))


def _kind_of(source) -> str:
    """ "rows" in memory, a "file", or a data set of the "hub" or of a folder that is laid out as one of the hub's."""
    if not isinstance(source, (str, Path)):
        return "rows"
    return "file" if (isinstance(source, Path) or looks_local(source)) and not Path(source).is_dir() else "hub"


def _streamed(source, where: str, split: str, subset: str | None) -> Iterable:
    name, start, stop = of_stream(split)
    if where == "hub":
        source = load_split(str(source), subset, name, streaming=True)
    elif where == "file":
        source = stream_of(Path(source))
    return itertools.islice(source, start, stop)


def _all_rows(source, where: str, split: str, subset: str | None) -> Sequence:
    if where == "hub":
        return load_split(str(source), subset, split, streaming=False)
    rows = rows_of(Path(source)) if where == "file" else source
    places = of_split(split, len(rows))
    return rows if len(places) == len(rows) else [rows[i] for i in places]


def _from_world(kind: str, split: str, limit: int | None, seed: int) -> list[dict]:
    from course_lib import world

    if kind == "prompt":
        return [{"prompt": p} for p in world.prompts(split, limit or 1000, seed=seed)]
    if kind == "sft":
        return world.sft_records(limit or 4000, seed=seed)
    draw = world.preference_records if kind == "preference" else world.unpaired_records
    return draw(limit or 4000, seed=seed, split=split)
