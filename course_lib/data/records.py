"""Record formats and their validation: every problem is named with its row number and a remedy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from course_lib.data.tokenization import Encoded, encode_row

KINDS = {
    "preference": ("prompt", "chosen", "rejected"),
    "sft": ("prompt", "completion"),
    "unpaired": ("prompt", "completion", "label"),
    "prompt": ("prompt",),
}
ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True)
class Problem:
    """What is wrong with one row (counted from 0) and what to do about it."""

    row: int
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"row {self.row}: {self.what}; {self.remedy}"


class RecordError(ValueError):
    """Some records cannot be trained on. `problems` holds all of them, the message the first ten."""

    def __init__(self, problems: list[Problem], total: int):
        self.problems = problems
        rows = len({p.row for p in problems})
        shown = "\n".join(f"  {p}" for p in problems[:10])
        more = f"\n  ... and {len(problems) - 10} more in .problems" if len(problems) > 10 else ""
        super().__init__(
            f"{rows} of {total} records cannot be used (rows count from 0):\n{shown}{more}\n"
            "Mend them, or keep the others with course_lib.data.keep_valid(records, kind)."
        )


def validate_records(records: Sequence[dict], kind: str, *, tokenizer=None, max_length: int | None = None):
    """Raise `RecordError` if any record is malformed; return the records, without other columns, otherwise.

    Args:
        records: rows of one kind, values strings or chat messages.
        kind: "preference" (prompt, chosen, rejected), "sft" (prompt, completion; or text), "unpaired"
            (prompt, completion, label) or "prompt".
        tokenizer: with `max_length`, rows longer than that many tokens are problems too.
        max_length: tokens of prompt and completion together.

    Raises:
        RecordError: a `ValueError` that lists every problem with its row number and the remedy.
        ValueError: for an unknown kind, or no records at all.
    """
    records = list(records)
    _examine(records, kind, tokenizer, max_length)
    return [{key: record[key] for key in _keys(record, kind)} for record in records]


def encode_records(records: Sequence[dict], kind: str, *, tokenizer, max_length: int) -> list:
    """The records as token ids, once each has been validated: an `Encoded` a row, or for pairs (chosen, rejected).

    Arguments and errors as in `validate_records`.
    """
    encoded = _examine(list(records), kind, tokenizer, max_length)
    return [tuple(row) if kind == "preference" else row[0] for row in encoded]


def _examine(records: list[dict], kind: str, tokenizer, max_length: int | None) -> list[list[Encoded]]:
    """The rows as token ids, if there is a tokenizer and a length to hold them to; raises if any is malformed."""
    if not records:
        raise ValueError("there are no records; pass at least one row")
    encoded: list[list[Encoded]] = []
    problems = find_problems(records, kind, tokenizer=tokenizer, max_length=max_length, encoded=encoded)
    if problems:
        raise RecordError(problems, len(records))
    return encoded


def keep_valid(records: Sequence[dict], kind: str, *, tokenizer=None, max_length: int | None = None):
    """Split records into those that can be trained on and the problems of the others: `(valid, problems)`."""
    records = list(records)
    problems = find_problems(records, kind, tokenizer=tokenizer, max_length=max_length)
    bad = {p.row for p in problems}
    return [r for i, r in enumerate(records) if i not in bad], problems


def find_problems(
    records: Sequence[dict], kind: str, *, tokenizer=None, max_length=None, encoded: list | None = None
) -> list[Problem]:
    """Every problem of every row, in row order (arguments as in `validate_records`).

    Rows that were tokenised are appended to `encoded`, if it is given.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown record kind {kind!r}; choose one of {', '.join(KINDS)}")
    problems, first_format = [], None
    for row, record in enumerate(records):
        found = list(_shape_problems(record, kind))
        if not found:
            record = {key: record[key] for key in _keys(record, kind)}
            this_format = _format(record)
            if this_format in ("text", "messages"):
                first_format = first_format or this_format
            found = list(_content_problems(record, kind, this_format, first_format))
        if not found and max_length is not None and tokenizer is not None:
            found = list(_token_problems(record, tokenizer, max_length, [] if encoded is None else encoded))
        problems += [Problem(row, what, remedy) for what, remedy in found]
    return problems


def _keys(record: dict, kind: str) -> tuple[str, ...]:
    """The keys that this record must have: a plain-text SFT row has just one."""
    if kind == "sft" and "text" in record and "completion" not in record:
        return ("text",)
    return KINDS[kind]


def _shape_problems(record, kind: str):
    """Missing keys and wrong types."""
    if not isinstance(record, dict):
        yield f"is a {type(record).__name__}, not a dict", f"give a dict with the keys {_names(KINDS[kind])}"
        return
    keys = _keys(record, kind)
    missing = [key for key in keys if key not in record]
    if missing:
        yield (
            f"lacks {_names(missing)} (it has {_names(record) or 'no keys'})",
            f"a {kind} record needs {_names(keys)}: add or rename them",
        )
        return
    for key in keys:
        if key == "label":
            if not isinstance(record[key], bool):
                yield f"'label' is {record[key]!r}", "use True (desirable) or False (undesirable)"
        else:
            yield from _value_problems(key, record[key], text_only=keys == ("text",))


def _value_problems(key: str, value, text_only: bool):
    if isinstance(value, str):
        return
    if text_only or not isinstance(value, list):
        wanted = "a string" if text_only else "a string or a list of chat messages"
        yield f"{key!r} is a {type(value).__name__}", f"give {wanted}"
        return
    for message in value:
        well_formed = (
            isinstance(message, dict)
            and isinstance(message.get("role"), str)
            and isinstance(message.get("content"), str)
        )
        if not well_formed:
            yield (
                f"{key!r} holds {message!r:.60}, which is no chat message",
                'write each message as {"role": ..., "content": ...} with string values',
            )
        elif message["role"] not in ROLES:
            yield f"{key!r} has the unknown role {message['role']!r}", f"use one of {_names(ROLES)}"


def _format(record: dict) -> str:
    """ "text" for strings, "messages" for chat, "mixed" for both, "plain" for a plain-text SFT row."""
    if "text" in record:
        return "plain"
    forms = {"messages" if isinstance(v, list) else "text" for key, v in record.items() if key != "label"}
    return forms.pop() if len(forms) == 1 else "mixed"


def _content_problems(record: dict, kind: str, this_format: str, first_format: str):
    if this_format == "mixed":
        yield "mixes strings and chat messages", "write all its values in one of the two forms"
    elif {this_format, first_format} == {"text", "messages"}:
        yield (
            f"is in {this_format} form while the rows before it are in {first_format} form",
            "write all rows in one of the two forms",
        )
    if "prompt" in record and _is_empty(record["prompt"]):
        yield "has an empty prompt", "give the model something to answer, or drop the row"
    for key in ("chosen", "rejected", "completion", "text"):
        if key in record and _is_empty(record[key]):
            yield f"has an empty {key!r}", "write what the model should say, or drop the row"
        elif isinstance(record.get(key), list) and {record[key][0]["role"], record[key][-1]["role"]} != {"assistant"}:
            yield (
                f"has a {key!r} that does not begin and end with the assistant",
                "move the other messages to the prompt, or drop the row",
            )
    if kind == "preference" and _same(record["chosen"], record["rejected"]):
        yield (
            "has 'chosen' equal to 'rejected', so it says nothing about preference",
            "drop the row, or find the pair that was meant",
        )


def _same(first, second) -> bool:
    if isinstance(first, str) and isinstance(second, str):
        return first.strip() == second.strip()
    return first == second


def _is_empty(value) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return not value or not value[-1]["content"].strip()


def _token_problems(record: dict, tokenizer, max_length: int, encoded: list[list[Encoded]]):
    try:
        row = encode_row(record, tokenizer)
    except Exception as error:  # chat templates and tokenizers raise what they like
        yield f"cannot be tokenised ({error})", "mend its text or roles to suit the tokenizer and its chat template"
        return
    encoded.append(row)
    prompt = len(row[0].prompt_ids)
    longest = max(len(e.prompt_ids) + len(e.completion_ids) for e in row)
    if prompt >= max_length:
        yield (
            f"has an over-long prompt: {prompt} tokens leave no room for a completion in max_length={max_length}",
            "shorten the prompt, raise max_length, or drop the row",
        )
    elif longest > max_length:
        yield (
            f"is {longest} tokens long, over max_length={max_length}",
            "raise max_length or drop the row (nothing is cut off silently)",
        )
    if len(row) == 2 and row[0] == row[1]:
        yield "has 'chosen' and 'rejected' that are the same tokens", "drop the row, or find the pair that was meant"


def _names(keys) -> str:
    return ", ".join(repr(key) for key in keys)
