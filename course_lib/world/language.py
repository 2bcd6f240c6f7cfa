"""How people ask and answer in Pocket World: every prompt, the phrases of a response, and the word splitter.

`tasks()` enumerates every prompt that exists, so a prompt's text alone tells what was asked.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from functools import cache

from course_lib.world.facts import (
    FACTS,
    HELD_OUT_ACTS,
    HELD_OUT_ENTITIES,
    HOWTO_ANSWER,
    HOWTOS,
    SUMS,
    Fact,
)

GREETINGS = ["", "hello. ", "one thing, please. "]
JSON_REQUEST = "in json: {q}"
SUM_TEMPLATES = ["what is {a} + {b}?", "how much is {a} + {b}?", "add {a} and {b}.", "{a} + {b} makes what?"]
HOWTO_TEMPLATES = [
    "how do i {act}?",
    "what is the best way to {act}?",
    "show me how to {act}.",
    "i want to {act}. how?",
    "can you help me to {act}?",
    "teach me how to {act}.",
    "what do i do to {act}?",
    "i have to {act}. what now?",
    "my friend asks how to {act}.",
    "explain how to {act}.",
]
# In each list of templates the last one never occurs in preference data: the template OOD split.

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


@dataclass(frozen=True)
class Task:
    """What one prompt asks.

    `kind` is "fact", "sum", "safe", "unsafe" or "either" (the last three are how-tos); `subject` is a
    `Fact`, a pair of numbers or the name of an act; `split` is where the prompt may be used.
    """

    prompt: str
    kind: str
    subject: Fact | tuple[int, int] | str
    wants_json: bool
    split: str

    @property
    def answer(self) -> str:
        """The right answer as a sentence."""
        return answer_sentence(self.subject)

    @property
    def short_answer(self) -> str:
        """The right answer as it stands inside a JSON reply."""
        return short_answer(self.subject)


def answer_sentence(subject, value=None) -> str:
    """A subject's answer as a sentence; `value` replaces the true one."""
    if isinstance(subject, Fact):
        return subject.statement(value)
    if isinstance(subject, tuple):
        return f"{subject[0]} + {subject[1]} is {sum(subject) if value is None else value}."
    return HOWTO_ANSWER[value or subject]


def short_answer(subject, value=None) -> str:
    """A subject's answer as it stands inside a JSON reply."""
    if isinstance(subject, Fact):
        return value or subject.value
    if isinstance(subject, tuple):
        return str(sum(subject) if value is None else value)
    return HOWTO_ANSWER[value or subject]


def json_reply(answer: str) -> str:
    return JSON_OPEN + answer + JSON_CLOSE


def fact_templates(fact: Fact) -> list[str]:
    noun = f"the {fact.attribute.noun} of {fact.phrase}"
    return [
        fact.attribute.question.format(e=fact.phrase),
        f"what is {noun}?",
        f"tell me {noun}.",
        f"can you name {noun}?",
    ]


def _split(text: str, subject_held_out: bool, template_held_out: bool) -> str:
    if subject_held_out:
        return "unused" if template_held_out else "entity"
    if template_held_out:
        return "template"
    bucket = zlib.crc32(text.encode()) % 100
    return "test" if bucket < 30 else "tuning" if bucket < 40 else "train"


def _questions():
    """(kind, subject, question, whether the subject is held out, whether the template is, JSON allowed)."""
    for fact in FACTS:
        held_out = (fact.attribute.kind, fact.entity) in HELD_OUT_ENTITIES
        for i, question in enumerate(fact_templates(fact)):
            yield "fact", fact, question, held_out, i == 3, True
    for a, b in SUMS:
        for i, template in enumerate(SUM_TEMPLATES):
            yield "sum", (a, b), template.format(a=a, b=b), False, i == len(SUM_TEMPLATES) - 1, True
    for kind, acts in HOWTOS.items():
        for act in acts:
            for i, template in enumerate(HOWTO_TEMPLATES):
                yield kind, act, template.format(act=act), act in HELD_OUT_ACTS, i == len(HOWTO_TEMPLATES) - 1, False


@cache
def tasks() -> dict[str, Task]:
    """Every prompt of the world, by its text (about 10,000)."""
    table = {}
    for kind, subject, question, subject_held_out, template_held_out, json_allowed in _questions():
        texts = {greeting + question: False for greeting in GREETINGS}
        if json_allowed:
            texts[JSON_REQUEST.format(q=question)] = True
        for text, wants_json in texts.items():
            split = _split(text, subject_held_out, template_held_out)
            table[text] = Task(text, kind, subject, wants_json, split)
    return table


_WORD = re.compile(r'\{"answer":"|"\}|\w+|[^\w\s]')


def words(text: str) -> list[str]:
    """Split as the tokenizer does: words, numbers, single punctuation marks, the two JSON brackets."""
    return _WORD.findall(text.lower())
