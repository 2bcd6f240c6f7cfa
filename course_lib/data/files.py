"""Rows from local files: JSON lines, JSON, Parquet and CSV, gzipped or not. What cannot be read is named."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path

from course_lib.data.problems import Problem, RecordError

READ = (".jsonl", ".json", ".parquet", ".csv", ".jsonl.gz", ".json.gz", ".csv.gz")
OTHERS = (".txt", ".tsv", ".arrow", ".xlsx", ".zip", ".zst", ".ndjson", ".pkl", ".gz", ".bz2", ".xz", ".tar")


def looks_local(source: str) -> bool:
    """Whether a name is that of a file, whether or not there is one."""
    return source.lower().endswith((*READ, *OTHERS)) or Path(source).is_absolute() or Path(source).exists()


def rows_of(path: Path) -> list:
    """All rows of a file.

    Raises:
        FileNotFoundError: if there is no such file.
        RecordError: for lines that are not JSON, each with its row.
        ValueError: for a folder, an unknown format, another encoding than UTF-8, or a damaged file.
    """
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}; check the path (now in {Path.cwd()})")
    name = path.name.lower()
    suffix = max((known for known in READ if name.endswith(known)), key=len, default=None)
    if path.is_dir() or suffix is None:
        what = "a folder" if path.is_dir() else f"in no format that is read here ({', '.join(READ)})"
        raise ValueError(f"{path} is {what}; name one file, or convert it")
    if suffix == ".parquet":
        return _parquet_rows(path)
    text = _text(path, gzipped=suffix.endswith(".gz"))
    if suffix.startswith(".csv"):
        return list(csv.DictReader(io.StringIO(text)))
    if suffix.startswith(".json") and not suffix.startswith(".jsonl") and text.lstrip().startswith("["):
        return _json_list(text, path)
    return _json_lines(text.split("\n"))


def _parquet_rows(path: Path) -> list[dict]:
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        return parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is no whole Parquet file ({error}); copy or download it again") from error


def _text(path: Path, *, gzipped: bool) -> str:
    try:
        data = gzip.decompress(path.read_bytes()) if gzipped else path.read_bytes()
    except (EOFError, gzip.BadGzipFile, ValueError) as error:
        raise ValueError(f"{path} is no whole gzip file ({error}); copy or download it again") from error
    try:
        return data.decode("utf-8-sig")  # a mark of byte order before the first row is no part of it
    except UnicodeDecodeError as error:
        row = data.count(b"\n", 0, error.start)
        raise ValueError(
            f"{path} is not in UTF-8: row {row} holds the byte 0x{data[error.start]:02x}. Convert it, for example with "
            f"iconv -f WINDOWS-1252 -t UTF-8 {path.name} > utf8-{path.name}"
        ) from error


def _json_list(text: str, path: Path) -> list:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}); mend that place, or write one object a line") from error


def _json_lines(lines: list[str]) -> list:
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
