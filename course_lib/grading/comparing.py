"""When two plain values are the same answer, and how a value is shown."""

from __future__ import annotations

import math

import numpy as np
from torch import Tensor

LISTED = 200  # items of a list that are looked at; a text of a few hundred letters holds no more
NUMBER = (bool, int, float, np.generic)


def agree(expected, found, rtol: float, atol: float, equal_nan: bool = False) -> bool:
    """Whether `found` is `expected` up to rounding; a 0-d array is a number, and a list of numbers an array."""
    if isinstance(expected, str) or expected is None:
        return type(expected) is type(found) and expected == found
    if isinstance(expected, dict):
        return (
            isinstance(found, dict)
            and expected.keys() == found.keys()
            and all(agree(expected[key], found[key], rtol, atol, equal_nan) for key in expected)
        )
    if isinstance(expected, list) and not all(isinstance(item, NUMBER) for item in expected):
        return (
            isinstance(found, list)
            and len(expected) == len(found)
            and all(agree(one, other, rtol, atol, equal_nan) for one, other in zip(expected, found, strict=True))
        )
    return _close(as_array(expected), as_array(found), rtol, atol, equal_nan)


def as_array(value) -> np.ndarray | None:
    """Numbers as an array of doubles; None if `value` holds anything else."""
    if value is None or isinstance(value, (str, dict)):
        return None
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return None


def _close(expected: np.ndarray | None, found: np.ndarray | None, rtol: float, atol: float, equal_nan: bool) -> bool:
    if expected is None or found is None or expected.shape != found.shape:
        return False
    return bool(np.allclose(expected, found, rtol=rtol, atol=atol, equal_nan=equal_nan))


def shown(value, most: int = 300) -> str:
    """A value as a learner would type it, shortened."""
    text = _text(value).encode("utf-8", "replace").decode()
    return text if len(text) <= most else text[: most - 1] + "…"


def _text(value) -> str:
    if isinstance(value, (Tensor, np.ndarray)):
        return _text(value[:LISTED].tolist() if value.ndim else value.item())
    if isinstance(value, np.generic):
        return _text(value.item())
    if isinstance(value, float):
        return str(value) if not math.isfinite(value) else f"{value:.6g}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value[:LISTED])) + "]"
    if isinstance(value, dict):
        items = list(value.items())[:LISTED]
        return "{" + ", ".join(f"{_text(key)}: {_text(item)}" for key, item in items) + "}"
    return repr(value)


def size(value) -> int:
    """How much there is to read in a value."""
    if isinstance(value, (Tensor, np.ndarray)):
        return int(np.prod(value.shape))
    if isinstance(value, dict):
        return sum(map(size, value.values()))
    return sum(map(size, value)) if isinstance(value, list) else 1
