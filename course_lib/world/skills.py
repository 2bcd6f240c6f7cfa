"""Questions that a rule answers: sums, the larger of two numbers, the longer of two words, the alphabet."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar, Self

from course_lib.world.facts import ENTITIES

NUMBERS = [str(n) for n in range(100)]
WORDS = [name for kind, name in ENTITIES if kind in ("animal", "food")]


@dataclass(frozen=True)
class Sum:
    """Adding two digits: a hundred questions, so a table as much as a rule."""

    a: int
    b: int
    kind = "sum"

    @property
    def group(self) -> tuple:
        return self.a, self.b

    @property
    def value(self) -> str:
        return str(self.a + self.b)

    @property
    def values(self) -> list[str]:
        return [str(total) for total in range(19)]

    @property
    def questions(self) -> list[str]:
        a, b = self.a, self.b
        return [f"what is {a} + {b}?", f"how much is {a} + {b}?", f"add {a} and {b}.", f"{a} + {b} makes what?"]

    def sentence(self, value: str | None = None) -> str:
        """The answer as a sentence; `value` replaces the true one."""
        return f"{self.a} + {self.b} is {value or self.value}."


@dataclass(frozen=True)
class _Comparison:
    """Two of a pool, one of which comes first by the skill's rule."""

    a: str
    b: str
    kind: ClassVar[str]
    pool: ClassVar[list[str]]
    relation: ClassVar[str]

    @classmethod
    def draw(cls, draw: random.Random) -> Self:
        return cls(*draw.sample(cls.pool, 2))

    @classmethod
    def statements(cls) -> list[str]:
        """Everything that an answer can say, true or false."""
        return [cls(a, b).sentence(a) for a in cls.pool for b in cls.pool if a != b]

    def known(self) -> bool:
        """Whether the world has this question."""
        return self.a != self.b and {self.a, self.b} <= set(self.pool)

    @property
    def group(self) -> tuple:
        return tuple(sorted((self.a, self.b)))

    @property
    def values(self) -> list[str]:
        return [self.a, self.b]

    def sentence(self, value: str | None = None) -> str:
        """The answer as a sentence; `value` replaces the true one."""
        first = value or self.value
        return f"{first} {self.relation} {self.b if first == self.a else self.a}."


class Larger(_Comparison):
    """The larger of two numbers. Demonstrators tend to name the one that is named first."""

    kind, pool, relation = "larger", NUMBERS, "is larger than"

    @property
    def value(self) -> str:
        return max(self.a, self.b, key=int)

    @property
    def habit(self) -> str:
        """What demonstrators say who do not compare."""
        return self.a

    @property
    def questions(self) -> list[str]:
        a, b = self.a, self.b
        return [
            f"which is larger, {a} or {b}?",
            f"what is the larger of {a} and {b}?",
            f"name the larger number: {a} or {b}.",
            f"tell me which is larger, {a} or {b}.",
            f"is {a} or {b} the larger number?",
        ]


class Longer(_Comparison):
    """The longer of two words. Demonstrators tend to name the one that is named last."""

    kind, pool, relation = "longer", WORDS, "is longer than"

    @classmethod
    def draw(cls, draw: random.Random) -> Self:
        while True:
            subject = super().draw(draw)
            if subject.known():
                return subject

    def known(self) -> bool:
        """Whether the world has this question; of two words as long as each other it asks nothing."""
        return super().known() and len(self.a) != len(self.b)

    @property
    def value(self) -> str:
        return max(self.a, self.b, key=len)

    @property
    def habit(self) -> str:
        """What demonstrators say who do not compare."""
        return self.b

    @property
    def questions(self) -> list[str]:
        a, b = self.a, self.b
        return [
            f"which word is longer, {a} or {b}?",
            f"what is the longer word, {a} or {b}?",
            f"name the longer of the words {a} and {b}.",
            f"tell me which word has more letters, {a} or {b}.",
            f"is {a} or {b} the longer word?",
        ]


class Earlier(_Comparison):
    """Which of two words the alphabet has first. No preference pair asks it: the alignment tax is measured on it."""

    kind, pool, relation = "earlier", WORDS, "comes before"

    @property
    def value(self) -> str:
        return min(self.a, self.b)

    @property
    def questions(self) -> list[str]:
        a, b = self.a, self.b
        return [
            f"which comes first in the alphabet, {a} or {b}?",
            f"in the alphabet, is {a} or {b} first?",
            f"{a} or {b}: which has the alphabet first?",
            f"name the one of {a} and {b} that comes first in the alphabet.",
        ]


SUMS = [Sum(a, b) for a in range(10) for b in range(10)]
SKILLS = {"larger": Larger, "longer": Longer, "earlier": Earlier}  # thousands of questions each: drawn, not listed
