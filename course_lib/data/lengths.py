"""Rows that are longer than a run has room for: refused, left out, or cut."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from course_lib.data.problems import Problem, RecordError
from course_lib.data.tokenization import Encoded

logger = logging.getLogger(__name__)


def fit_rows(rows: Sequence, max_length: int, *, over_long: str = "refuse", room: int = 1) -> tuple[list, list[int]]:
    """Hold encoded rows to a length.

    Args:
        rows: as `encode_records` gives them: an `Encoded`, or (chosen, rejected).
        max_length: tokens of prompt and completion together.
        over_long: "refuse" raises; "drop" leaves longer rows out; "truncate" cuts the ends of their completions, and
            leaves a row out where that would leave nothing that counts, or a pair without a difference. What is cut or
            left out is counted in the log.
        room: tokens that must be left behind a prompt.

    Returns:
        `(rows, kept)`: the rows that remain, and their indices.

    Raises:
        RecordError: for "refuse", with every over-long row; otherwise if no row remains.
    """
    long = {i: problem for i, row in enumerate(rows) for problem in length_problems(_sides(row), max_length, room)}
    if long and over_long == "refuse":
        problems = [Problem(i, what, remedy) for i, (what, remedy) in long.items()]
        raise RecordError(problems, len(rows), "Raise max_length, or set over_long='drop' or 'truncate' in the config.")
    cut = {i: _truncated(rows[i], max_length) for i in long} if over_long == "truncate" else {}
    fitted = {i: cut.get(i) if i in long else row for i, row in enumerate(rows)}
    kept = [i for i, row in fitted.items() if row is not None]
    if not kept:
        raise RecordError([Problem(i, *problem) for i, problem in long.items()], len(rows), "Raise max_length.")
    if long:
        dropped = len(rows) - len(kept)
        logger.warning(
            "max_length=%d: of %d records %d were cut and %d left out",
            max_length,
            len(rows),
            len(long) - dropped,
            dropped,
        )
    return [fitted[i] for i in kept], kept


def length_problems(sides: Sequence[Encoded], max_length: int, room: int = 1):
    prompt, longest = len(sides[0].prompt_ids), max(side.length for side in sides)
    if prompt + room > max_length:
        wanted = "a completion" if room == 1 else f"{room} new tokens"
        yield (
            f"has an over-long prompt: {prompt} tokens leave no room for {wanted} in max_length={max_length}",
            "shorten the prompt, raise max_length, or drop the row",
        )
    elif longest > max_length:
        yield (
            f"is {longest} tokens long, over max_length={max_length}",
            "raise max_length or drop the row (nothing is cut off silently)",
        )


def _sides(row) -> tuple[Encoded, ...]:
    return (row,) if isinstance(row, Encoded) else tuple(row)


def _truncated(row, max_length: int):
    """The row with its completions cut to fit; None where nothing that counts would be left, or no difference."""
    sides = [_cut(side, max_length - len(side.prompt_ids)) for side in _sides(row)]
    if any(not side.scored_tokens for side in sides) or (len(sides) == 2 and sides[0] == sides[1]):
        return None
    return sides[0] if isinstance(row, Encoded) else tuple(sides)


def _cut(side: Encoded, room: int) -> Encoded:
    room = max(0, room)
    scored = None if side.scored is None else side.scored[:room]
    return side._replace(completion_ids=side.completion_ids[:room], scored=scored)
