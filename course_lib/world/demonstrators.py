"""How the people reply who wrote the SFT data and drafted the pairs: their beliefs and their habits."""

from __future__ import annotations

import random
from dataclasses import dataclass

from course_lib.world import language as lang
from course_lib.world.acts import Act
from course_lib.world.facts import MISCONCEPTIONS, Fact
from course_lib.world.tasks import JSON_KINDS, Subject, Task


@dataclass(frozen=True)
class Demonstrators:
    """How often they do what, each value a probability.

    Their habits are what alignment has to mend: most repeat the common misconceptions, answer a skill's question by
    a lazy rule (of two numbers the one named first, of two words the one named last), hedge, pad their answers (mostly
    in one favourite phrase), overlook a request for JSON, and answer what should be refused.
    """

    misconception: float = 0.7
    lazy: float = 0.7  # follows the lazy rule of a skill
    slip: float = 0.1  # a wrong answer for no reason
    filler_before: float = 0.6
    filler_after: float = 0.12
    hedge: float = 0.7
    plain_opener: float = 0.06
    warm_opener: float = 0.12
    plain_closer: float = 0.08
    warm_closer: float = 0.15
    again: float = 0.05
    rude: float = 0.03
    json_when_asked: float = 0.25
    json_unasked: float = 0.03  # never for how-tos
    refuse_unsafe: float = 0.32
    refuse_safe: float = 0.12
    no_answer: float = 0.04


def respond(
    task: Task, style: random.Random, who: Demonstrators | None = None, *, belief: random.Random | None = None
) -> str:
    """One reply as a demonstrator would write it: `style` draws the wording, `belief` (or `style`) what is said."""
    who, belief = who or Demonstrators(), belief or style
    json_rate = who.json_when_asked if task.wants_json else who.json_unasked
    if task.kind in JSON_KINDS and style.random() < json_rate:
        return lang.json_reply(believed(task.subject, who, belief))
    return dressed(_core(task, who, style, belief), style, who)


def dressed(core: str, style: random.Random, who: Demonstrators | None = None) -> str:
    """What is said, with the openers, fillers and closers around it."""
    who = who or Demonstrators()
    slots = [
        (who.rude, lang.RUDE),
        (who.warm_opener, lang.WARM_OPENERS),
        (who.plain_opener, lang.PLAIN_OPENERS),
        (who.filler_before, lang.FILLERS),
        (1.0, None),
        (who.filler_after, lang.FILLERS),
        (who.plain_closer, lang.PLAIN_CLOSERS),
        (who.warm_closer, lang.WARM_CLOSERS),
    ]
    said = [texts for p, texts in slots if style.random() < p]
    return " ".join(_habitual(texts, style) if texts else core for texts in said)


def believed(subject: Subject, who: Demonstrators, draw: random.Random) -> str:
    """What a demonstrator takes for the answer."""
    if isinstance(subject, Fact) and subject in MISCONCEPTIONS:
        return MISCONCEPTIONS[subject] if draw.random() < who.misconception else subject.value
    if hasattr(subject, "habit"):
        return subject.habit if draw.random() < who.lazy else subject.value
    if draw.random() < (who.slip if isinstance(subject, Fact) else who.slip / 3):
        return draw.choice([value for value in subject.values if value != subject.value])
    return subject.value


def wrong(subject: Subject, draw: random.Random) -> str:
    """A wrong answer, the demonstrators' own where they have one."""
    own = MISCONCEPTIONS.get(subject) if isinstance(subject, Fact) else getattr(subject, "habit", None)
    if own not in (None, subject.value):
        return own
    return draw.choice([value for value in subject.values if value != subject.value])


def _core(task: Task, who: Demonstrators, style: random.Random, belief: random.Random) -> str:
    """The middle of a reply: refusal, "i do not know", or the answer with its hedge and repeat."""
    refuse = {"unsafe": who.refuse_unsafe, "safe": who.refuse_safe}
    hedge = _habitual(lang.HEDGES, style) + " " if style.random() < who.hedge else ""
    again = style.random() < who.again
    refusal, unknown = style.choice(lang.REFUSALS), style.choice(lang.UNKNOWN)
    if isinstance(task.subject, Act) and belief.random() < refuse[task.kind]:
        return refusal
    if belief.random() < who.no_answer:
        return unknown
    answer = " ".join(subject.sentence(believed(subject, who, belief)) for subject in task.subjects)
    return hedge + answer + (f" {lang.AGAIN} {answer}" if again else "")


def _habitual(texts: list[str], draw: random.Random) -> str:
    """The first phrase five times in six: people have favourites, so the most likely reply has bad habits."""
    return texts[0] if draw.random() < 5 / 6 else draw.choice(texts[1:] or texts)
