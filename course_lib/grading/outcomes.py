"""What came back from a worker, read once and with suspicion: whatever a forger sends, it becomes an `Outcome`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice

from course_lib.grading.worker import decode

NODES, LONGEST_AXIS, DEEPEST = 20_000, 100_000, 30
NOTHING = object()  # no value came back


@dataclass(frozen=True)
class Outcome:
    """What an answer did on one input.

    Args:
        value: what it returned, decoded; `NOTHING` if nothing readable came back.
        gradients: by the inputs' names, decoded, or None.
        error: {"type", "message", "line"} if it raised.
        undefined: the same, if there was no function to call.
        changed: names of inputs that it changed in place.
    """

    value: object = NOTHING
    gradients: object = None
    error: dict | None = None
    undefined: dict | None = None
    changed: tuple[str, ...] = field(default=())

    @property
    def returned(self) -> bool:
        return self.value is not NOTHING

    @property
    def missing(self) -> bool:
        """Whether nothing came back, not even an error: the answer was stopped before."""
        return not self.returned and self.error is None


def read(raw) -> Outcome:
    """An outcome from a worker's reply, whatever that is."""
    if not isinstance(raw, dict):
        return Outcome()
    if "undefined" in raw:
        return Outcome(undefined=_error(raw["undefined"]))
    if "error" in raw:
        return Outcome(error=_error(raw["error"]))
    if "value" not in raw:
        return Outcome()
    try:
        _weigh(raw["value"])
        _weigh(raw.get("gradients"))
        gradients = decode(raw["gradients"]) if "gradients" in raw else None
        return Outcome(decode(raw["value"]), gradients, changed=tuple(_names(raw.get("changed"))))
    except (KeyError, TypeError, AttributeError, OverflowError, RecursionError, ValueError):
        return Outcome(error={"type": "TypeError", "message": "it returns more than can be read", "line": None})


def _error(raw) -> dict:
    raw = raw if isinstance(raw, dict) else {}
    line = raw.get("line")
    text = {"type": printable(raw.get("type"), 60), "message": printable(raw.get("message"), 300)}
    return text | {"line": line if isinstance(line, int) else None}


def _names(raw) -> Iterator[str]:
    for name in raw if isinstance(raw, list) else ():
        if isinstance(name, str):
            yield printable(name, 60)


def printable(text, most: int) -> str:
    """A text that any file and terminal can hold, shortened."""
    text = str(text)[:most].encode("utf-8", "replace").decode()
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _weigh(plain) -> None:
    """Refuse what would cost the grader more time or memory than an answer may.

    Raises:
        ValueError: there is too much of it.
    """
    waiting, nodes = [(plain, 0)], 0
    while waiting:
        each, depth = waiting.pop()
        nodes += 1
        if nodes > NODES or depth > DEEPEST:
            raise ValueError("too many values")
        if isinstance(each, dict) and "array" in each:
            if len(each["shape"]) > DEEPEST or any(not 0 <= axis <= LONGEST_AXIS for axis in each["shape"]):
                raise ValueError("too large an array")
        elif isinstance(each, dict):
            items = each.get("list", ()), *each.get("dict", ())
            waiting += [(item, depth + 1) for item in islice(chain.from_iterable(items), NODES + 1)]
