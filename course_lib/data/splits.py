"""Splits of data sets: asked of the hub, and as `datasets` spells rows of them: "train[:1000]", "train[95%:]"."""

from __future__ import annotations

import re

from course_lib.hub import is_reachable, offline_if_unreachable

_SPELLED = re.compile(r"[\w.-]+(?:\[(-?\d+%?)?:(-?\d+%?)?\])?")


def load_split(name: str, subset: str | None, split: str, *, streaming: bool):
    """A split of a hub data set, or of a local folder that is laid out as one.

    Args:
        name: of the data set, or the folder.
        subset: one of its configurations, or a folder in it; None where it has one.
        split: its name, and rows of it unless they are streamed.
        streaming: whether rows come only as they are asked for.

    Raises:
        OSError: if it cannot be had; the message says what works offline.
    """
    from datasets import get_dataset_config_names, load_dataset

    subsets: list[str] = []
    try:
        with offline_if_unreachable():
            which = {}
            if subset is not None:
                subsets = get_dataset_config_names(name)
                which = {"name" if subset in subsets else "data_dir": subset}
            return load_dataset(name, split=split, streaming=streaming, **which)
    except (OSError, ValueError, RuntimeError) as error:
        what = f"{name!r} (split {split!r}" + (f", subset {subset!r}, of {', '.join(subsets)}" if subset else "") + ")"
        offline = "\nWithout internet, use 'pocket-world', a local .jsonl or .parquet file, or a folder of a data set."
        raise OSError(f"could not load the data set {what}: {error}{'' if is_reachable() else offline}") from error


def of_split(split: str, rows: int) -> range:
    """Which of so many rows a split takes: counts or percents, from the end if negative.

    A border in percents is rounded to the nearest row, as `datasets` does.

    Raises:
        ValueError: if it is not spelled so.
    """
    return range(rows)[slice(*(_place(border, rows) for border in _borders(split)))]


def of_stream(split: str) -> tuple[str, int, int | None]:
    """The name of a split, its first row, and the row before which it ends, where nobody knows how many there are.

    Raises:
        ValueError: for percents and for counts from the end.
    """
    first, last = _borders(split)
    if any(border and not border.isdigit() for border in (first, last)):
        raise ValueError(f"nobody knows a stream's length: of {split!r} give rows counted from its start")
    return split.partition("[")[0], int(first or 0), int(last) if last else None


def _borders(split: str) -> tuple[str | None, str | None]:
    match = _SPELLED.fullmatch(split)
    if match is None or len({border.endswith("%") for border in match.groups() if border}) == 2:
        raise ValueError(f"split is a name, or one with rows, as 'train[:1000]' or 'train[95%:]'; got {split!r}")
    return match.groups()


def _place(border: str | None, rows: int) -> int | None:
    if border is None:
        return None
    return round(int(border[:-1]) * rows / 100) if border.endswith("%") else int(border)
