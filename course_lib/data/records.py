"""Validation of records: every problem is named with its row number and a remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from course_lib.data.formats import KINDS, ROLES, is_dialogue, keys_of, normalised, only_known_keys
from course_lib.data.lengths import length_problems
from course_lib.data.problems import Problem, RecordError
from course_lib.data.tokenization import Encoded, encode_row


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
    records = _listed(records)
    encoded: list[list[Encoded]] = []
    problems = find_problems(records, kind, tokenizer=tokenizer, max_length=max_length, encoded=encoded)
    if problems:
        raise RecordError(problems, len(records), _keep_the_others(kind, max_length))
    return [only_known_keys(normalised(record, kind), kind) for record in records]


def encode_records(records: Sequence[dict], kind: str, *, tokenizer, max_length: int | None = None) -> list:
    """The records as token ids, once each has been validated: an `Encoded` a row, or for pairs (chosen, rejected).

    Arguments and errors as in `validate_records`.
    """
    records, encoded = _listed(records), []
    problems = find_problems(records, kind, tokenizer=tokenizer, max_length=max_length, encoded=encoded)
    if problems:
        raise RecordError(problems, len(records), _keep_the_others(kind, max_length))
    return [tuple(row) if kind == "preference" else row[0] for row in encoded]


def _listed(records) -> list:
    if isinstance(records, (str, bytes, Mapping)):
        raise TypeError(f"records is a list of rows; got a {type(records).__name__}")
    records = list(records)
    if not records:
        raise ValueError("there are no records; pass at least one row")
    return records


def _keep_the_others(kind: str, max_length: int | None) -> str:
    """The call that leaves out exactly the rows that were named."""
    length = "" if max_length is None else f", tokenizer=tokenizer, max_length={max_length}"
    return f"Mend them, or keep the others: records, _ = course_lib.data.keep_valid(records, {kind!r}{length})"


def keep_valid(records: Sequence[dict], kind: str, *, tokenizer=None, max_length: int | None = None):
    """Split records into those that can be trained on and the problems of the others: `(valid, problems)`.

    Arguments as in `validate_records`; without a tokenizer, rows that are too long are not found.
    """
    records = _listed(records)
    problems = find_problems(records, kind, tokenizer=tokenizer, max_length=max_length)
    bad = {p.row for p in problems}
    return [r for i, r in enumerate(records) if i not in bad], problems


def find_problems(
    records: Sequence[dict], kind: str, *, tokenizer=None, max_length=None, encoded: list | None = None
) -> list[Problem]:
    """Every problem of every row, in row order (arguments as in `validate_records`).

    Published variants of a kind count as that kind (see `load_records`). Rows that were tokenised are appended to
    `encoded`, if it is given.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown record kind {kind!r}; choose one of {', '.join(KINDS)}")
    problems, first_format = [], None
    for row, record in enumerate(records):
        record = normalised(record, kind)
        found = list(_shape_problems(record, kind))
        if not found:
            record = only_known_keys(record, kind)
            this_format = _format(record)
            if this_format in ("text", "messages"):
                first_format = first_format or this_format
            found = list(_content_problems(record, kind, this_format, first_format))
        if not found and tokenizer is not None:
            found = list(_token_problems(record, tokenizer, max_length, [] if encoded is None else encoded))
        problems += [Problem(row, what, remedy) for what, remedy in found]
    return problems


def _shape_problems(record, kind: str):
    """Missing keys and wrong types."""
    if not isinstance(record, dict):
        yield f"is a {type(record).__name__}, not a dict", f"give a dict with the keys {_names(KINDS[kind])}"
        return
    keys = keys_of(record, kind)
    missing = [key for key in keys if key not in record]
    if missing:
        yield (
            f"lacks {_names(missing)} (it has {_names(record) or 'no keys'})",
            f"a {kind} record needs {_names(keys)}: add or rename them, as load_records(..., columns="
            f"{{'name there': {missing[0]!r}}}) does",
        )
        return
    if not isinstance(record.get("tools", []), list):
        yield f"'tools' is a {type(record['tools']).__name__}", "give a list of tool descriptions, or leave it out"
    for key in keys:
        if key == "label":
            if not isinstance(record[key], bool):
                yield f"'label' is {record[key]!r}", "use True or 1 (desirable), False or 0 (undesirable)"
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
        if not _is_message(message):
            yield (
                f"{key!r} holds {message!r:.60}, which is no chat message",
                'write each message as {"role": ..., "content": ...} with string values',
            )
        elif message["role"] not in ROLES:
            yield f"{key!r} has the unknown role {message['role']!r}", f"use one of {_names(ROLES)}"


def _is_message(message) -> bool:
    """A role with words, or an assistant that calls tools and may say nothing."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        return False
    content = message.get("content")
    return isinstance(content, str) or (content is None and bool(message.get("tool_calls")))


def _format(record: dict) -> str:
    """ "text" for strings, "messages" for chat, "mixed" for both, "plain" for a plain-text SFT row."""
    if "text" in record:
        return "plain"
    answers = {_form(record[key]) for key in ("chosen", "rejected", "completion") if key in record}
    if len(answers) > 1:
        return "mixed"
    return "messages" if "messages" in answers | {_form(record["prompt"])} else "text"


def _form(value) -> str:
    return "messages" if isinstance(value, list) else "text"


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
        elif isinstance(record.get(key), list) and not _is_answer(record["prompt"], record[key]):
            yield (
                f"has a {key!r} that does not begin and end with the assistant",
                "move the other messages to the prompt, or drop the row",
            )
    if kind == "preference" and _same(record["chosen"], record["rejected"]):
        yield (
            "has 'chosen' equal to 'rejected', so it says nothing about preference",
            "drop the row, or find the pair that was meant",
        )


def _is_answer(prompt, completion: list) -> bool:
    """Whether the assistant has the last word, and the first one too, unless it spoke last in the prompt."""
    spoke_last = is_dialogue(prompt) and prompt[-1]["role"] == "assistant"
    first, last = completion[0]["role"], completion[-1]["role"]
    return last == "assistant" and (first == "assistant" or spoke_last)


def _same(first, second) -> bool:
    if isinstance(first, str) and isinstance(second, str):
        return first.strip() == second.strip()
    return first == second


def _is_empty(value) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return not value or not ((value[-1].get("content") or "").strip() or value[-1].get("tool_calls"))


def _token_problems(record: dict, tokenizer, max_length: int | None, encoded: list[list[Encoded]]):
    try:
        row = encode_row(record, tokenizer)
    except Exception as error:  # chat templates and tokenizers raise what they like
        yield f"cannot be tokenised ({error})", "mend its text or roles to suit the tokenizer and its chat template"
        return
    encoded.append(row)
    if max_length is not None:
        yield from length_problems(row, max_length)
    if len(row) == 2 and row[0] == row[1]:
        yield "has 'chosen' and 'rejected' that are the same tokens", "drop the row, or find the pair that was meant"


def _names(keys) -> str:
    return ", ".join(repr(key) for key in keys)
