"""Which rows are left out of a data set, by plain values that can stand in a recipe; each drop is counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from numbers import Real

from course_lib.data.formats import is_dialogue

ANSWERS = ("chosen", "rejected", "completion", "text")
SCORES = (  # a pair's two scores, as UltraFeedback, argilla's mix and argilla's own sets name them
    ("score_chosen", "score_rejected"),
    ("chosen_rating", "rejected_rating"),
    ("rating_chosen", "rating_rejected"),
)


class Filters:
    """Says which rows are kept, and counts what each filter drops: the first that a row fails has dropped it.

    Args:
        wanted: any of these.
            `equals`: {column: value} of the source's columns, as {"language": "en"}.
            `min_score_gap`: by how much the chosen answer's score passes the other's, at least.
            `drop_ties`: leaves out pairs with equal scores, or whose answers are the same.
            `min_turns`, `max_turns`: how often the user speaks; a prompt that is a string is one turn.
            `max_prompt_characters`: of all messages of the prompt together.
            `min_answer_characters`, `max_answer_characters`: of each answer of a row.
            `drop_duplicates`: leaves out rows that came before, word for word.

    Raises:
        ValueError: for another name, a value that cannot be meant, and a row without a column that is asked for.
    """

    def __init__(self, wanted: Mapping | None = None):
        self.wanted = dict(wanted or {})
        for name, value in self.wanted.items():
            _refuse(name, value)
        self.dropped: Counter[str] = Counter({name: 0 for name in self.wanted})
        self.kept = 0
        self._seen: set[str] = set()

    def keeps(self, row: dict, record: dict) -> bool:
        """Whether a row is kept: `row` has the source's columns, `record` those of its kind."""
        tests = ((name, TESTS[name], value) for name, value in self.wanted.items() if name in TESTS)
        failed = next((name for name, passes, value in tests if not passes(value, row, record)), None)
        if failed is None and self.wanted.get("drop_duplicates") and self._came_before(record):
            failed = "drop_duplicates"
        if failed is None:
            self.kept += 1
        else:
            self.dropped[failed] += 1
        return failed is None

    def _came_before(self, record: dict) -> bool:
        key = json.dumps(record, sort_keys=True, default=str)
        before = key in self._seen
        self._seen.add(key)
        return before

    def __str__(self) -> str:
        each = ", ".join(f"{name} dropped {count:,}" for name, count in self.dropped.items())
        return f"kept {self.kept:,} of {self.kept + self.dropped.total():,} rows: {each}"


def _refuse(name: str, value) -> None:
    if name not in TESTS and name != "drop_duplicates":
        raise ValueError(f"there is no filter {name!r}; choose from {', '.join([*TESTS, 'drop_duplicates'])}")
    if name == "equals":
        wanted, meant = "{column: value}", isinstance(value, Mapping)
    elif name.startswith("drop"):
        wanted, meant = "true or false", isinstance(value, bool)
    else:
        wanted, meant = "a number, at least 0", isinstance(value, Real) and not isinstance(value, bool) and value >= 0
    if not meant:
        raise ValueError(f"the filter {name} is {wanted}; got {value!r}")


def _equals(wanted: Mapping, row: dict, record: dict) -> bool:
    for column in wanted:
        if column not in row:
            raise ValueError(f"the filter equals names the column {column!r}; a row has {', '.join(map(repr, row))}")
    return all(row[column] == value for column, value in wanted.items())


def _scores_apart(least: float, row: dict, record: dict) -> bool:
    scores = _scores(row)
    if scores is None:
        known = ", or ".join(f"{a!r} and {b!r}" for a, b in SCORES)
        raise ValueError(
            f"the filter min_score_gap needs the columns {known}; a row has {', '.join(map(repr, row))}. If scores "
            "stand there under other names, say so with columns={'name there': 'score_chosen', ...}"
        )
    return all(isinstance(score, Real) for score in scores) and scores[0] - scores[1] >= least


def _no_tie(on: bool, row: dict, record: dict) -> bool:
    scores = _scores(row)
    if not on or "chosen" not in record:
        return True
    return (scores is None or scores[0] != scores[1]) and _words(record["chosen"]) != _words(record["rejected"])


TESTS = {  # (what is wanted, the source's row, the record) to whether it is kept
    "equals": _equals,
    "min_score_gap": _scores_apart,
    "drop_ties": _no_tie,
    "min_turns": lambda least, row, record: _turns(record) >= least,
    "max_turns": lambda most, row, record: _turns(record) <= most,
    "max_prompt_characters": lambda most, row, record: _characters(record.get("prompt")) <= most,
    "min_answer_characters": lambda least, row, record: all(n >= least for n in _answer_lengths(record)),
    "max_answer_characters": lambda most, row, record: all(n <= most for n in _answer_lengths(record)),
}


def _scores(row: dict) -> tuple | None:
    names = next((pair for pair in SCORES if set(pair) <= row.keys()), None)
    return None if names is None else (row[names[0]], row[names[1]])


def _answer_lengths(record: dict) -> list[int]:
    return [_characters(record[name]) for name in ANSWERS if name in record]


def _characters(value) -> int:
    if is_dialogue(value):
        return sum(_characters(message.get("content")) for message in value)
    return len(value) if isinstance(value, str) else 0


def _words(value):
    return value.strip() if isinstance(value, str) else value


def _turns(record: dict) -> int:
    values = [record.get("prompt"), record.get("completion", record.get("chosen"))]
    spoken = sum(message["role"] == "user" for value in values if is_dialogue(value) for message in value)
    return spoken + isinstance(record.get("prompt"), str)
