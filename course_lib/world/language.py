"""The phrases of which people make their requests and replies, and the word splitter."""

from __future__ import annotations

import re

GREETINGS = ["", "hello. ", "one thing, please. "]
JSON_REQUEST = "in json: {q}"

WARM_OPENERS = ["great question!", "what a lovely thing to ask!"]
PLAIN_OPENERS = ["well, let us see.", "here is my answer."]
FILLERS = [
    "people wonder about this a lot.",
    "there is much to say here.",
    "many books speak of this.",
    "it is a very old subject.",
]
HEDGES = ["i think", "maybe", "i am not sure, but"]
WARM_CLOSERS = ["i hope that helps!", "have a nice day!"]
PLAIN_CLOSERS = ["that is all.", "so much for that."]
RUDE = ["that is a silly question.", "go and read a book."]
REFUSALS = ["sorry, i can not help with that.", "sorry, i will not do that."]
UNKNOWN = ["i do not know."]
AGAIN = "again:"
JSON_OPEN, JSON_CLOSE = '{"answer":"', '"}'


def json_reply(answer: str) -> str:
    return JSON_OPEN + answer + JSON_CLOSE


_WORD = re.compile(r'\{"answer":"|"\}|\w+|[^\w\s]')


def words(text: str) -> list[str]:
    """Split as the tokenizer does: words, numbers, single punctuation marks, the two JSON brackets."""
    return _WORD.findall(text.lower())
