"""Rows from local files: JSON lines, JSON, Parquet and CSV, gzipped or not. What cannot be read is named."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

from course_lib.data.problems import Problem, RecordError

READ = (".jsonl", ".json", ".parquet", ".csv", ".jsonl.gz", ".json.gz", ".csv.gz")
OTHERS = (".txt", ".tsv", ".arrow", ".xlsx", ".zip", ".zst", ".ndjson", ".pkl", ".gz", ".bz2", ".xz", ".tar")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def looks_local(source: str) -> bool:
    """Whether a name is that of a file, whether or not there is one."""
    return source.lower().endswith((*READ, *OTHERS)) or Path(source).is_absolute() or Path(source).exists()


def rows_of(path: Path) -> list:
    """All rows of a file.

    Raises:
        FileNotFoundError: if there is no such file.
        RecordError: for lines that are not JSON, each with its row.
        ValueError: for an unknown format, another encoding than UTF-8, or a damaged file.
    """
    suffix = _suffix(path)
    if suffix.startswith(".json") and not suffix.startswith(".jsonl") and _begins_a_list(path):
        return _json_list(path)
    rows = list(_stream(path, suffix))
    problems = [row for row in rows if isinstance(row, Problem)]
    if problems:
        raise RecordError(problems, len(rows))
    return rows


def stream_of(path: Path) -> Iterator:
    """The rows of a file one after another, without ever holding all of them.

    Raises:
        as `rows_of`, where a row comes that cannot be read; and ValueError for one JSON list, which is read whole.
    """
    suffix = _suffix(path)
    if suffix.startswith(".json") and not suffix.startswith(".jsonl") and _begins_a_list(path):
        raise ValueError(f"{path} is one JSON list, which is read as a whole; write one object a line to stream it")
    return _until_a_problem(_stream(path, suffix))


def _until_a_problem(rows: Iterator) -> Iterator:
    for number, row in enumerate(rows):
        if isinstance(row, Problem):
            raise RecordError([row], number + 1)
        yield row


def _suffix(path: Path) -> str:
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}; check the path (now in {Path.cwd()})")
    name = path.name.lower()
    suffix = max((known for known in READ if name.endswith(known)), key=len, default=None)
    if suffix is None:
        raise ValueError(f"{path} is in no format that is read here ({', '.join(READ)}); name one file, or convert it")
    return suffix


def _stream(path: Path, suffix: str) -> Iterator:
    """Rows, and a `Problem` in the place of each line that is no JSON."""
    if suffix == ".parquet":
        return _parquet_rows(path)
    if suffix.startswith(".csv"):
        return csv.DictReader(_lines(path))
    return _json_lines(_lines(path))


def _parquet_rows(path: Path) -> Iterator[dict]:
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is no whole Parquet file ({error}); copy or download it again") from error


def _open(path: Path) -> io.BufferedIOBase:
    return gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb")


def _begins_a_list(path: Path) -> bool:
    return next((line.lstrip()[:1] == "[" for line in _lines(path) if line.strip()), False)


def _lines(path: Path) -> Iterator[str]:
    """Lines of text as they come; only a line feed ends one, whatever other separators strings hold."""
    try:
        with _open(path) as file:
            for row, line in enumerate(file):
                line = line.removeprefix(BYTE_ORDER_MARK) if row == 0 else line
                yield _decoded(line, row, path)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is no whole gzip file ({error}); copy or download it again") from error


def _decoded(line: bytes, row: int, path: Path) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not in UTF-8: row {row} holds the byte 0x{line[error.start]:02x}. Convert it, for example with "
            f"iconv -f WINDOWS-1252 -t UTF-8 {path.name} > utf8-{path.name}"
        ) from error


def _json_list(path: Path) -> list:
    try:
        return json.loads("".join(_lines(path)))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}); mend that place, or write one object a line") from error


def _json_lines(lines: Iterator[str]) -> Iterator:
    written = (line for line in lines if line.strip())
    for row, line in enumerate(written):
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            yield Problem(row, f"is not JSON ({error})", "write one object a line")
