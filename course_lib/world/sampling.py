"""Data drawn from Pocket World: prompts by split, SFT demonstrations, preference pairs, unpaired labels, plain text.

Everything is a function of its seed. Records have the forms of `course_lib.data`.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from course_lib.world import language as lang
from course_lib.world.acts import ACTS, Act
from course_lib.world.demonstrators import dressed, respond, wrong
from course_lib.world.facts import FACTS
from course_lib.world.gold import gold_parts, parse
from course_lib.world.skills import SKILLS, SUMS
from course_lib.world.tasks import Subject, Task, draw_task, draw_tasks, held_out, listed

SPLITS = ("train", "tuning", "test", "template", "entity", "act", "skill", "composition")
HOWTO_SHARE = 0.4
# Preference data and evaluation leave out the sums and the alphabet: the alignment tax is measured on them.
MIX = {"fact": 0.34, "larger": 0.14, "longer": 0.12, "unsafe": HOWTO_SHARE / 2, "safe": HOWTO_SHARE / 2}
SFT_MIX = {"fact": 0.32, "sum": 0.08, "larger": 0.14, "longer": 0.12, "earlier": 0.1, "unsafe": 0.11, "safe": 0.13}
# Demonstrators refuse unsafe requests more often than harmless ones, so with equal shares more pairs would teach to
# refuse than not to: with this one a policy on a tuning seed erred equally often on both sides.
HARMLESS_SHARE = 0.525
_KINDS = {  # of splits that do not hold every kind
    "entity": {"fact": 1.0},
    "act": {"unsafe": 0.5, "safe": 0.5},
    "skill": {"larger": 0.5, "longer": 0.5},
    "composition": {"two": 0.5, "larger": 0.25, "longer": 0.25},
}
MOST_PROMPTS = 5_000


def _mix(split: str) -> dict[str, float]:
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    return _KINDS.get(split, MIX)


def prompts(split: str = "test", n: int = 1000, *, seed: int = 0) -> list[list[dict]]:
    """`n` distinct prompts of a split as chat messages.

    Splits: "train" (training data come from here), "tuning" (choose hyper-parameters on these), "test" (report on
    these), and what training never sees: "template" (a phrasing), "entity" (what a fact is about), "act" (verb with
    object), "skill" (these numbers, these words), "composition" (JSON asked of a skill, two questions in one).

    Raises:
        ValueError: for an unknown split, or for more prompts than the split has.
    """
    mix = _mix(split)
    if not 0 < n <= MOST_PROMPTS:
        raise ValueError(f"a split gives 1 to {MOST_PROMPTS} prompts at a time; ask for so many, not {n}")
    draw = random.Random(f"prompts-{split}-{seed}")
    chosen = [task for kind, share in mix.items() for task in _distinct(kind, split, round(share * n), draw)]
    taken = {task.prompt for task in chosen}
    spare = [task for kind in mix for task in listed(split).get(kind, []) if task.prompt not in taken]
    chosen += draw.sample(spare, min(len(spare), max(0, n - len(chosen))))
    if len(chosen) < n:
        raise ValueError(f"the {split} split gives {len(chosen)} prompts in its shares; ask for so many, not {n}")
    draw.shuffle(chosen)
    return [user(task.prompt) for task in chosen[:n]]


def _distinct(kind: str, split: str, n: int, draw: random.Random) -> list[Task]:
    """Up to `n` different tasks."""
    if kind not in SKILLS and kind != "two":
        pool = listed(split).get(kind, [])
        return draw.sample(pool, min(n, len(pool)))
    found: dict[str, Task] = {}
    while len(found) < n:
        task = draw_task(kind, split, draw)
        found[task.prompt] = task
    return list(found.values())


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
    plain, mentioned = round(n * text_share), listed("sft")["fact"]
    tasks = draw_tasks("train", n - plain, draw, SFT_MIX)
    for i, task in enumerate(tasks):  # a quarter of the facts are of entities that pairs never mention
        if task.kind == "fact" and draw.random() < 0.25:
            tasks[i] = draw.choice(mentioned)
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

    def prefers(self, prompt: str, first: str, second: str, draw: random.Random) -> bool:
        """Whether the first of two replies is the better one to them, this time."""
        first_wins = draw.random() < _sigmoid(self.score(prompt, first) - self.score(prompt, second))
        return first_wins != (draw.random() < self.label_noise)


def _sigmoid(x: float) -> float:
    return 0.5 * (1 + math.tanh(x / 2))


def _annotators(options: dict) -> Annotators:
    who = Annotators(**options)
    if not 0 <= who.label_noise <= 1:
        raise ValueError(f"label_noise is a share of labels, so between 0 and 1; got {who.label_noise}")
    return who


def _preference_tasks(split: str, n: int, draw: random.Random, safe_share: float) -> list[Task]:
    if not 0 <= safe_share <= 1:
        raise ValueError(f"safe_share is a share of the how-tos, so between 0 and 1; got {safe_share}")
    mix = dict(_mix(split))
    if howtos := mix.get("safe", 0) + mix.get("unsafe", 0):
        mix |= {"safe": howtos * safe_share, "unsafe": howtos * (1 - safe_share)}
    return draw_tasks(split, n, draw, mix)


def preference_records(
    n: int = 4000, *, seed: int = 0, split: str = "train", safe_share: float = HARMLESS_SHARE, **annotators
) -> list[dict]:
    """`n` labelled pairs `{"prompt", "chosen", "rejected"}` of demonstrators' responses.

    Half of the pairs are two drafts in the same words, so that what is said can be told from how.

    Args:
        n: how many.
        seed: of all draws.
        split: where the prompts come from.
        safe_share: share of harmless requests among the how-tos. With few of them refusing looks always right.
        annotators: the knobs of `Annotators`.

    Raises:
        ValueError: if `label_noise` or `safe_share` is outside [0, 1].
    """
    who, draw, rows = _annotators(annotators), random.Random(f"pairs-{split}-{seed}"), []
    for task in _preference_tasks(split, n, draw, safe_share):
        first, second = _two_responses(task, draw)
        better, worse = (first, second) if who.prefers(task.prompt, first, second, draw) else (second, first)
        rows.append({"prompt": user(task.prompt), "chosen": assistant(better), "rejected": assistant(worse)})
    return rows


def unpaired_records(
    n: int = 4000, *, seed: int = 0, split: str = "train", safe_share: float = HARMLESS_SHARE, **annotators
) -> list[dict]:
    """`n` single responses with a thumb up or down: `{"prompt", "completion", "label"}`.

    The thumb is up with probability sigmoid(score - score of a second draft of the same kind), scores as in
    `Annotators`; half of all thumbs are up. `safe_share` as in `preference_records`.
    """
    who, draw, rows = _annotators(annotators), random.Random(f"unpaired-{split}-{seed}"), []
    for task in _preference_tasks(split, n, draw, safe_share):
        response, other = _two_responses(task, draw)
        up = who.prefers(task.prompt, response, other, draw)
        rows.append({"prompt": user(task.prompt), "completion": assistant(response), "label": up})
    return rows


def _two_responses(task: Task, draw: random.Random) -> tuple[str, str]:
    """Two different, exchangeable responses; for half of the tasks in the same words, with something else to say."""
    if draw.random() < 0.5:
        for _ in range(20):
            wording = draw.random()
            first, second = (respond(task, random.Random(wording), belief=draw) for _ in range(2))
            if first != second:
                return first, second
    while True:
        first, second = (respond(task, draw) for _ in range(2))
        if first != second:
            return first, second


def right_or_wrong_pairs(n: int = 500, *, kind: str = "fact", split: str = "test", seed: int = 0) -> list[dict]:
    """Pairs that differ in one thing: what is right is chosen, what is wrong rejected, style word for word the same.

    They show whether a reward model sees correctness, or only style. For a "safe" how-to the answer is right and the
    refusal wrong, for an "unsafe" one the other way round.

    Raises:
        ValueError: for an unknown split, or a kind that the split does not have.
    """
    if kind not in _mix(split):
        raise ValueError(f"the {split} split has no {kind!r}; choose one of {', '.join(_mix(split))}")
    draw, rows = random.Random(f"twins-{kind}-{split}-{seed}"), []
    for task in draw_tasks(split, n, draw, {kind: 1.0}):
        right, error = _right_and_wrong(task.subject, draw)
        hedge = f"{lang.HEDGES[0]} " if not isinstance(task.subject, Act) and draw.random() < 0.5 else ""
        style = draw.random()
        chosen, rejected = (dressed(hedge + core, random.Random(style)) for core in (right, error))
        rows.append({"prompt": user(task.prompt), "chosen": assistant(chosen), "rejected": assistant(rejected)})
    return rows


def _right_and_wrong(subject: Subject, draw: random.Random) -> tuple[str, str]:
    if not isinstance(subject, Act):
        return subject.sentence(), subject.sentence(wrong(subject, draw))
    answer, refusal = subject.sentence(), draw.choice(lang.REFUSALS)
    return (answer, refusal) if subject.kind == "safe" else (refusal, answer)


def documents(n: int, *, seed: int = 0, json_share: float = 0.08) -> list[str]:
    """`n` short plain texts that state facts, sums, skills and how-tos as they are: the pre-training corpus.

    Acts that no label may mention are explained in it like all others, but not judged.

    `json_share` of the questions are asked and answered once more in JSON.
    """
    draw = random.Random(f"text-{seed}")
    return [_document(draw, json_share) for _ in range(n)]


_CHATTER = lang.FILLERS + lang.PLAIN_OPENERS + lang.PLAIN_CLOSERS + lang.WARM_CLOSERS + lang.WARM_OPENERS
_SELDOM = lang.RUDE + lang.REFUSALS + lang.UNKNOWN + lang.GREETINGS[1:]
_TEXT_MIX = {"fact": 0.36, "sum": 0.14, "larger": 0.13, "longer": 0.1, "earlier": 0.17, "act": 0.1}


def _document(draw: random.Random, json_share: float) -> str:
    sentences = []
    for _ in range(draw.randint(2, 5)):
        subject = _known(draw)
        question, answer = draw.choice(subject.questions), subject.sentence()
        if (
            isinstance(subject, Act) or subject.kind in SKILLS or draw.random() < 0.5
        ):  # answers that need their question
            sentences.append(question)
            if draw.random() < 0.2:  # an answer may stand a few words away from its question, as in a reply
                sentences.append(draw.choice(_CHATTER))
        sentences.append(answer)
        if isinstance(subject, Act) and not held_out(subject):
            sentences.append(subject.judgement)
        if draw.random() < 0.08:
            sentences.append(draw.choice(_CHATTER if draw.random() < 0.7 else _SELDOM).strip())
        if draw.random() < 0.02:
            sentences.append(f"{draw.choice(lang.HEDGES)} {answer}")
        if draw.random() < json_share:
            sentences.append(f"{lang.JSON_REQUEST.format(q=question)} {lang.json_reply(subject.value)}")
    return " ".join(sentences)


def _known(draw: random.Random) -> Subject:
    """Something that the world knows."""
    (kind,) = draw.choices(list(_TEXT_MIX), weights=list(_TEXT_MIX.values()))
    if kind in SKILLS:
        return SKILLS[kind].draw(draw)
    return draw.choice({"fact": FACTS, "sum": SUMS, "act": ACTS}[kind])
