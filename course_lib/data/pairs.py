"""What preference pairs are filtered by: how alike their replies are."""

from __future__ import annotations

import re
from collections import Counter


def shared_words(pair: dict) -> float:
    """Share of the words of a pair's two replies that stand in both, each as often as it occurs; 1 if empty.

        |chosen and rejected| / |chosen or rejected|        of words with their numbers (Jaccard)

    Args:
        pair: `{"chosen", "rejected"}`, texts or chat messages.
    """
    chosen, rejected = (Counter(_words(pair[side])) for side in ("chosen", "rejected"))
    either = (chosen | rejected).total()
    return (chosen & rejected).total() / either if either else 1.0


def same_length(pair: dict) -> bool:
    """Whether a pair's two replies have equally many words."""
    chosen, rejected = (len(_words(pair[side])) for side in ("chosen", "rejected"))
    return chosen == rejected


def _words(reply) -> list[str]:
    text = reply if isinstance(reply, str) else " ".join(message["content"] for message in reply)
    return re.findall(r"\w+", text.lower())
