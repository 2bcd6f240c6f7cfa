"""What a prompt asks, read from its text alone, and where it may be used: the splits.

Whatever is held out is in no SFT record and no preference pair: the fact's entity ("entity"), the combination of verb
and object ("act"), the numbers or words of a skill ("skill"), the last template of each kind ("template"), and ways of
asking that training never uses ("composition": JSON asked of a skill, two questions in one). All other questions fall
into "train", "tuning" and "test" with all their greetings together, so no test question stands in training in another
dress. "sft" are questions about entities that SFT mentions and pairs do not.
"""

from __future__ import annotations

import random
import re
import zlib
from dataclasses import dataclass, fields
from functools import cache, lru_cache

from course_lib.world import language as lang
from course_lib.world.acts import ACTS, Act
from course_lib.world.facts import FACTS, HELD_OUT_ENTITIES, SFT_ONLY_ENTITIES, Fact
from course_lib.world.skills import SKILLS, SUMS, Earlier, Larger, Longer, Sum

Subject = Fact | Sum | Larger | Longer | Earlier | Act
JSON_KINDS = ("fact", "sum")  # of these alone training asks JSON


@dataclass(frozen=True)
class Task:
    """What one prompt asks.

    Attributes:
        prompt: its text.
        question: the text without greeting and request for JSON.
        subjects: what is asked about, one thing or two; each has `value`, `sentence()`, `values` and `group`.
        template: which of its subject's questions it is.
        wants_json: whether the reply should be JSON.
        split: where the prompt may be used.
    """

    prompt: str
    question: str
    subjects: tuple[Subject, ...]
    template: int
    wants_json: bool
    split: str

    @property
    def kind(self) -> str:
        """fact, sum, larger, longer, earlier, safe, unsafe, or two (questions in one)."""
        return self.subjects[0].kind if len(self.subjects) == 1 else "two"

    @property
    def subject(self) -> Subject:
        return self.subjects[0]

    @property
    def answer(self) -> str:
        """The right answer in sentences."""
        return " ".join(subject.sentence() for subject in self.subjects)


@cache
def _listed() -> dict[str, tuple[Subject, int]]:
    """Every question about facts, sums and acts -> its subject and the number of its template."""
    return {q: (subject, i) for subject in (*FACTS, *SUMS, *ACTS) for i, q in enumerate(subject.questions)}


@cache
def _patterns() -> list[tuple[re.Pattern, type, int]]:
    """The questions of each skill as patterns, made from one whose words are told apart."""
    found = []
    for skill in SKILLS.values():
        names = [field.name for field in fields(skill)]
        for i, question in enumerate(skill(*(f"{n}{n}0" for n in names)).questions):
            pattern = re.escape(question)
            for name in names:
                pattern = pattern.replace(f"{name}{name}0", rf"(?P<{name}>\w+)")
            found.append((re.compile(pattern), skill, i))
    return found


def _question(text: str) -> tuple[Subject, int] | None:
    if text in _listed():
        return _listed()[text]
    for pattern, skill, i in _patterns():
        if (match := pattern.fullmatch(text)) and (subject := skill(**match.groupdict())).known():
            return subject, i
    return None


@lru_cache(maxsize=100_000)
def read(text: str) -> Task | None:
    """The task of a prompt's text; None if Pocket World has no such prompt."""
    for greeting in reversed(lang.GREETINGS):
        if text.startswith(greeting):
            break
    question = text.removeprefix(greeting)
    wants_json = not greeting and question.startswith("in json: ")
    question = question.removeprefix("in json: ") if wants_json else question
    if found := _question(question):
        subject, template = found
        if wants_json and isinstance(subject, Act):
            return None
        return Task(text, question, (subject,), template, wants_json, _split(subject, template, question, wants_json))
    if greeting or wants_json:
        return None
    return _two_questions(text)


def _two_questions(text: str) -> Task | None:
    for cut in re.finditer(r"(?<=[?.]) ", text):
        first, second = _question(text[: cut.start()]), _question(text[cut.end() :])
        if first and second and isinstance(first[0], Fact) and isinstance(second[0], Fact):
            return Task(text, text, (first[0], second[0]), first[1], False, "composition")
    return None


def _split(subject: Subject, template: int, question: str, wants_json: bool) -> str:
    if wants_json and subject.kind not in JSON_KINDS:
        return "composition"
    last_template = template == len(subject.questions) - 1
    if held_out(subject):
        names = {Fact: "entity", Act: "act"}
        return "unused" if last_template else names.get(type(subject), "skill")
    if last_template:
        return "template"
    if subject.group in SFT_ONLY_ENTITIES:
        return "sft"
    bucket = _number(question) % 100
    return "test" if bucket < 30 else "tuning" if bucket < 40 else "train"


def held_out(subject: Subject) -> bool:
    """Whether no training record mentions this entity, this combination of verb and object, these numbers or words."""
    if isinstance(subject, Fact):
        return subject.group in HELD_OUT_ENTITIES
    return not isinstance(subject, Sum) and _number(f"{subject.kind} {subject.group}") % 5 == 0


def _number(text: str) -> int:
    return zlib.crc32(text.encode())


@cache
def listed(split: str) -> dict[str, list[Task]]:
    """All tasks of a split about facts, sums and acts, by kind."""
    pool: dict[str, list[Task]] = {}
    for question, (subject, _) in _listed().items():
        texts = [greeting + question for greeting in lang.GREETINGS]
        if subject.kind in JSON_KINDS:
            texts.append(lang.JSON_REQUEST.format(q=question))
        for text in texts:
            task = read.__wrapped__(text)
            if task.split == split:
                pool.setdefault(task.kind, []).append(task)
    return pool


def draw_task(kind: str, split: str, draw: random.Random) -> Task:
    """A task of that kind and split."""
    if kind == "two":
        return _draw_two(draw)
    if kind not in SKILLS:
        return draw.choice(listed(split)[kind])
    while True:
        subject = SKILLS[kind].draw(draw)
        question, in_json = draw.choice(subject.questions), split == "composition"
        if read(question).split == ("test" if in_json else split):
            return read(lang.JSON_REQUEST.format(q=question) if in_json else draw.choice(lang.GREETINGS) + question)


def _draw_two(draw: random.Random) -> Task:
    """Two questions that training asks one by one."""
    while True:
        first, second = (draw.choice(listed("train")["fact"]) for _ in range(2))
        if first.subject.group != second.subject.group:
            return read(f"{first.question} {second.question}")


def draw_tasks(split: str, n: int, draw: random.Random, mix: dict[str, float]) -> list[Task]:
    """`n` tasks of a split, their kinds in the shares of `mix`."""
    kinds = draw.choices(list(mix), weights=list(mix.values()), k=n)
    return [draw_task(kind, split, draw) for kind in kinds]
