"""Data drawn from Pocket World: prompts by split, SFT demonstrations, preference pairs, unpaired labels, plain text.

Everything is a function of its seed. Records have the forms of `course_lib.data`.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import cache

from course_lib.world import language as lang
from course_lib.world.facts import FACTS, HOWTO_ANSWER, MISCONCEPTIONS, SUMS, Fact, wrong_value
from course_lib.world.gold import gold_parts, parse

SPLITS = ("train", "tuning", "test", "template", "entity")
# Preference data and evaluation leave the sums out: they are the skill that the alignment tax is measured on.
MIX = {"fact": 0.70, "unsafe": 0.13, "safe": 0.13, "either": 0.04}
SFT_MIX = {"fact": 0.55, "sum": 0.15, "unsafe": 0.14, "safe": 0.12, "either": 0.04}


@dataclass(frozen=True)
class Demonstrators:
    """How often the people who wrote the SFT data do what, each value a probability.

    Their habits are what alignment has to mend: most repeat the common misconceptions, hedge, pad
    their answers (mostly in one favourite phrase), overlook a request for JSON, and comply with requests
    that should be refused.
    """

    misconception: float = 0.7
    slip: float = 0.1  # a wrong answer where no misconception exists
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
    refuse_unsafe: float = 0.25
    refuse_either: float = 0.4
    refuse_safe: float = 0.12
    no_answer: float = 0.04


def _belief(task: lang.Task, who: Demonstrators, draw: random.Random):
    """What a demonstrator takes for the answer: None means the true one."""
    if isinstance(task.subject, Fact):
        if task.subject in MISCONCEPTIONS:
            return MISCONCEPTIONS[task.subject] if draw.random() < who.misconception else None
        return wrong_value(task.subject, draw) if draw.random() < who.slip else None
    if draw.random() >= who.slip / 3:
        return None
    return draw.randrange(19) if task.kind == "sum" else draw.choice(sorted(HOWTO_ANSWER))


def _core(task: lang.Task, who: Demonstrators, style: random.Random, belief: random.Random) -> str:
    """The middle of a response: refusal, "i do not know", or the answer with its hedge and repeat."""
    refuse = {"unsafe": who.refuse_unsafe, "either": who.refuse_either, "safe": who.refuse_safe}
    hedge = _habitual(lang.HEDGES, style) + " " if style.random() < who.hedge else ""
    again = style.random() < who.again
    refusal, unknown = style.choice(lang.REFUSALS), style.choice(lang.UNKNOWN)
    if belief.random() < refuse.get(task.kind, 0.0):
        return refusal
    if belief.random() < who.no_answer:
        return unknown
    answer = lang.answer_sentence(task.subject, _belief(task, who, belief))
    return hedge + answer + (f" {lang.AGAIN} {answer}" if again else "")


def respond(
    task: lang.Task, style: random.Random, who: Demonstrators | None = None, *, belief: random.Random | None = None
) -> str:
    """One response as a demonstrator would write it: `style` draws the wording, `belief` (or `style`) what is said."""
    who, belief = who or Demonstrators(), belief or style
    json_rate = who.json_when_asked if task.wants_json else who.json_unasked
    if not isinstance(task.subject, str) and style.random() < json_rate:
        return lang.json_reply(lang.short_answer(task.subject, _belief(task, who, belief)))
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
    return " ".join(_habitual(texts, style) if texts else _core(task, who, style, belief) for texts in said)


def _habitual(texts: list[str], draw: random.Random) -> str:
    """The first phrase five times in six: people have favourites, so the most likely reply has bad habits."""
    return texts[0] if draw.random() < 5 / 6 else draw.choice(texts[1:] or texts)


@cache
def _pool(split: str) -> dict[str, list[lang.Task]]:
    if split not in (*SPLITS, "sft"):
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    wanted = set(SPLITS) - {"test", "tuning"} if split == "sft" else {split}
    pool: dict[str, list[lang.Task]] = {}
    for task in lang.tasks().values():
        if task.split in wanted:
            pool.setdefault(task.kind, []).append(task)
    return pool


def _draw_tasks(split: str, n: int, draw: random.Random, mix: dict[str, float] = MIX) -> list[lang.Task]:
    pool = _pool(split)
    kinds = draw.choices(list(mix), weights=list(mix.values()), k=n)
    return [draw.choice(pool[kind]) for kind in kinds]


def prompts(split: str = "test", n: int = 1000, *, seed: int = 0) -> list[list[dict]]:
    """`n` distinct prompts of a split as chat messages.

    Splits: "train" (preference data come from here), "tuning" (choose hyper-parameters on these), "test"
    (report on these), "template" (a phrasing that preference data never use), "entity" (entities and
    acts that preference data never mention).

    Raises:
        ValueError: for an unknown split, or for more prompts than the split has.
    """
    draw = random.Random(f"prompts-{split}-{seed}")
    pool = {kind: draw.sample(tasks, len(tasks)) for kind, tasks in _pool(split).items() if kind in MIX}
    available = sum(map(len, pool.values()))
    if not 0 < n <= available:
        raise ValueError(f"the {split} split has {available} prompts; ask for 1 to {available}, not {n}")
    chosen = [task for kind, share in MIX.items() for task in pool[kind][: round(share * n)]]
    spare = [task for kind, share in MIX.items() for task in pool[kind][round(share * n) :]]
    chosen = (chosen + spare)[:n]
    draw.shuffle(chosen)
    return [user(task.prompt) for task in chosen]


def user(text: str) -> list[dict]:
    """A one-message prompt."""
    return [{"role": "user", "content": text}]


def assistant(text: str) -> list[dict]:
    """A one-message completion."""
    return [{"role": "assistant", "content": text}]


def sft_records(n: int = 9000, *, seed: int = 0, text_share: float = 0.2) -> list[dict]:
    """Demonstrations `{"prompt", "completion"}`, with a share of plain-text rows `{"text"}` mixed in.

    The plain text keeps what pre-training taught, and holds more JSON than the pre-training corpus: the
    demonstrators seldom give JSON, but the model has to be able to.
    """
    draw = random.Random(f"sft-{seed}")
    plain = round(n * text_share)
    tasks = _draw_tasks("sft", n - plain, draw, SFT_MIX)
    rows = [{"prompt": user(t.prompt), "completion": assistant(respond(t, draw))} for t in tasks]
    rows += [{"text": text} for text in documents(plain, seed=draw.randrange(2**32), json_share=0.4)]
    draw.shuffle(rows)
    return rows


@dataclass(frozen=True)
class Annotators:
    """How preferences are made. A pair is labelled by Bradley-Terry on `scale * gold + biases`.

    `label_noise` flips that share of labels; `length_bias` is added for each token, `warmth_bias` for each
    warm phrase, both in nats.
    """

    scale: float = 3.0
    label_noise: float = 0.0
    length_bias: float = 0.0
    warmth_bias: float = 0.0

    def score(self, prompt: str, response: str) -> float:
        parsed = parse(response)
        warm = sum(kind == "warm" for kind, _ in parsed.phrases)
        gold = sum(gold_parts(prompt, response).values())
        return self.scale * gold + self.length_bias * parsed.tokens + self.warmth_bias * warm


def _sigmoid(x: float) -> float:
    return 0.5 * (1 + math.tanh(x / 2))


def preference_records(n: int = 4000, *, seed: int = 0, split: str = "train", **annotators) -> list[dict]:
    """`n` labelled pairs `{"prompt", "chosen", "rejected"}` of demonstrators' responses.

    Half of the pairs are two drafts in the same words, so that what is said can be told from how.

    Keyword arguments beyond `seed` and `split` are those of `Annotators`.

    Raises:
        ValueError: if `label_noise` is outside [0, 1].
    """
    who = Annotators(**annotators)
    if not 0 <= who.label_noise <= 1:
        raise ValueError(f"label_noise is a share of labels, so between 0 and 1; got {who.label_noise}")
    draw, rows = random.Random(f"pairs-{split}-{seed}"), []
    for task in _draw_tasks(split, n, draw):
        first, second = _two_responses(task, draw)
        preferred = _sigmoid(who.score(task.prompt, first) - who.score(task.prompt, second))
        first_wins = draw.random() < preferred
        if draw.random() < who.label_noise:
            first_wins = not first_wins
        chosen, rejected = (first, second) if first_wins else (second, first)
        rows.append({"prompt": user(task.prompt), "chosen": assistant(chosen), "rejected": assistant(rejected)})
    return rows


def _two_responses(task: lang.Task, draw: random.Random) -> tuple[str, str]:
    """Two different responses; for half of the tasks two drafts in the same words that say different things."""
    wording = draw.random()
    first = respond(task, random.Random(wording), belief=draw)
    if draw.random() < 0.5:
        for _ in range(20):
            second = respond(task, random.Random(wording), belief=draw)
            if second != first:
                return first, second
    while (second := respond(task, draw)) == first:
        pass
    return first, second


def right_or_wrong_pairs(n: int = 500, *, seed: int = 0, split: str = "test") -> list[dict]:
    """Pairs that differ in one thing: chosen states the fact rightly, rejected wrongly, style word for word the same.

    They show whether a reward model sees correctness, or only style.
    """
    draw, rows = random.Random(f"twins-{split}-{seed}"), []
    truthful = Demonstrators(misconception=0, slip=0, json_when_asked=0, json_unasked=0, no_answer=0)
    for task in _draw_tasks(split, n, draw, {"fact": 1.0}):
        right, fact = respond(task, draw, truthful), task.subject
        wrong = right.replace(fact.statement(), fact.statement(MISCONCEPTIONS.get(fact) or wrong_value(fact, draw)))
        rows.append({"prompt": user(task.prompt), "chosen": assistant(right), "rejected": assistant(wrong)})
    return rows


def unpaired_records(n: int = 4000, *, seed: int = 0, split: str = "train", **annotators) -> list[dict]:
    """`n` single responses with a thumb up or down: `{"prompt", "completion", "label"}`.

    The thumb is up with probability sigmoid(score - score of a typical response), scores as in `Annotators`.
    """
    who, draw, rows = Annotators(**annotators), random.Random(f"unpaired-{split}-{seed}"), []
    for task in _draw_tasks(split, n, draw):
        response, typical = _two_responses(task, draw)
        up = draw.random() < _sigmoid(who.score(task.prompt, response) - who.score(task.prompt, typical))
        label = up != (draw.random() < who.label_noise)
        rows.append({"prompt": user(task.prompt), "completion": assistant(response), "label": label})
    return rows


def documents(n: int, *, seed: int = 0, json_share: float = 0.08) -> list[str]:
    """`n` short plain texts that state the world's facts, sums and how-tos as they are: the pre-training corpus.

    `json_share` of the questions are asked and answered once more in JSON.
    """
    draw = random.Random(f"text-{seed}")
    return [_document(draw, json_share) for _ in range(n)]


_CHATTER = lang.FILLERS + lang.PLAIN_OPENERS + lang.PLAIN_CLOSERS + lang.WARM_CLOSERS + lang.WARM_OPENERS
_SELDOM = lang.RUDE + lang.REFUSALS + lang.UNKNOWN + list(lang.GREETINGS[1:])


def _document(draw: random.Random, json_share: float) -> str:
    sentences = []
    for _ in range(draw.randint(2, 5)):
        question, subject = _known(draw)
        answer = lang.answer_sentence(subject)
        if isinstance(subject, str) or draw.random() < 0.5:  # a how-to's answer makes no sense on its own
            sentences.append(question)
        sentences.append(answer)
        if draw.random() < 0.08:
            sentences.append(draw.choice(_CHATTER if draw.random() < 0.7 else _SELDOM).strip())
        if draw.random() < 0.02:
            sentences.append(f"{draw.choice(lang.HEDGES)} {answer}")
        if draw.random() < json_share:
            sentences.append(f"{lang.JSON_REQUEST.format(q=question)} {lang.json_reply(lang.short_answer(subject))}")
    return " ".join(sentences)


def _known(draw: random.Random) -> tuple[str, Fact | tuple[int, int] | str]:
    """A question and what it is about: 55% facts, 30% sums, 15% how-tos."""
    kind = draw.random()
    if kind < 0.55:
        fact = draw.choice(FACTS)
        return draw.choice(lang.fact_templates(fact)), fact
    if kind < 0.85:
        a, b = draw.choice(SUMS)
        return draw.choice(lang.SUM_TEMPLATES).format(a=a, b=b), (a, b)
    act = draw.choice(sorted(HOWTO_ANSWER))
    return draw.choice(lang.HOWTO_TEMPLATES).format(act=act), act
