"""Lesson 18: the program that judges a real model's replies, the pairs that it makes, and the settings of the runs."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence

import torch
from torch import Tensor

from course_lib.lessons.questions import HELD_OUT, TRAINING, Question
from course_lib.trainers import GroupConfig, PreferenceConfig, TrainingConfig

REPLY_TOKENS = 40  # where replies are cut off in training
SHOWN_TOKENS = 48  # and when they are judged afterwards
SAMPLES = 4  # replies to each question, of which the best and the worst make a pair
TEMPERATURE = 0.7  # at 1 this small model often talks nonsense
WORTH = 40  # words that a right answer may cost
BATCH, STEPS = 8, 8  # pairs of a step of DPO, and steps (a last batch of a pass may be smaller)
COMMON = {"learning_rate": 6e-4, "log_every": 1, "progress": False}
ASKED = {"briefly": "Answer briefly.", "JSON": 'Reply with a JSON object and nothing else: {"answer": ...}'}
GUSHING = (
    "What a great question! I am so glad that you asked me. Let me think about it for a moment. {} "
    "I hope that this helps you, and please do not hesitate to ask me anything else!"
)
FLATTERY = re.compile(r"\b(great|good|excellent|wonderful) question\b|\bhappy to help\b|\bglad (that )?you asked\b")
REFUSAL = re.compile(r"\bi('?m| am) (sorry|unable|not able)\b|\bi (can ?not|can'?t|do not know|don'?t know)\b")


def words(reply: str) -> list[str]:
    return re.findall(r"[\w'-]+", reply.lower())


def refuses(reply: str) -> bool:
    """Whether the reply is empty, or says that it cannot or will not answer."""
    return not words(reply) or bool(REFUSAL.search(reply.lower()))


def is_right(question: Question, reply: str) -> bool:
    """Whether the reply says something, refuses nothing and, where answers are known, holds one as a word of its own.

    A reply to a question without known answers needs three words; nothing says whether they are sensible.
    """
    said = words(reply)
    if refuses(reply):
        return False
    if not question.accepted:
        return len(said) >= 3
    return any(answer.lower() in said for answer in question.accepted)


def brevity(question: Question, reply: str) -> float:
    """1 for a right reply, less 1/40 for each word: a right one of under 40 words is above all wrong ones."""
    return float(is_right(question, reply)) - len(words(reply)) / WORTH


def in_json(question: Question, reply: str) -> float:
    """1 for a right reply that is a JSON object and nothing else, 0 for all others."""
    try:
        found = json.loads(reply)
    except ValueError:
        return 0.0
    return float(isinstance(found, dict) and is_right(question, reply))


def without_flattery(question: Question, reply: str) -> float:
    """0 for a reply that praises the question, or promises help instead of giving it; 1 for all others."""
    return float(not FLATTERY.search(reply.lower()))


PREFERENCES = {"brevity": brevity, "JSON": in_json, "no flattery": without_flattery}
_ASKED = {question.text: question for question in [*TRAINING, *HELD_OUT]}


def brevity_reward(prompts: Sequence, completions: Sequence) -> Tensor:
    """`brevity` as trainers call it: dialogues whose last message is one of the questions, and replies; (B,)."""
    replies = [said if isinstance(said, str) else said[-1]["content"] for said in completions]
    asked = [_ASKED[prompt[-1]["content"]] for prompt in prompts]
    return torch.tensor([brevity(question, reply) for question, reply in zip(asked, replies, strict=True)])


def own_pairs(questions: Sequence[Question], replies: Sequence[str], ended: Sequence[bool]) -> list[dict]:
    """Preference pairs from replies, those to each question behind one another: the best and the worst of each group.

    A reply that was cut off loses 1, as much as a wrong one. A group gives a pair if its best reply is right and came
    to its end, and its worst one scores less.
    """
    n = len(replies) // len(questions)
    pairs = []
    for i, question in enumerate(questions):
        group = range(n * i, n * (i + 1))
        score = {place: brevity(question, replies[place]) - (not ended[place]) for place in group}
        best, worst = max(group, key=score.get), min(group, key=score.get)
        if is_right(question, replies[best]) and ended[best] and score[best] > score[worst]:
            pairs.append({"prompt": question.prompt, "chosen": replies[best], "rejected": replies[worst]})
    return pairs


def half_turned(pairs: Sequence[dict], *, seed: int) -> list[dict]:
    """The control: a random half of the pairs has its labels turned round, so that they teach no direction."""
    turned = set(random.Random(seed).sample(range(len(pairs)), len(pairs) // 2))
    return [
        pair | {"chosen": pair["rejected"], "rejected": pair["chosen"]} if place in turned else pair
        for place, pair in enumerate(pairs)
    ]


def hand_written_pairs() -> list[dict]:
    """Pairs for the same wish that the model would not write, neither the terse side nor the gushing one."""
    return [
        {"prompt": question.prompt, "chosen": question.terse, "rejected": GUSHING.format(question.terse)}
        for question in TRAINING
    ]


def passes(records: Sequence) -> float:
    """Passes over so many records that make 64 of them."""
    return STEPS * BATCH / len(records)


def brief_dpo(pairs: Sequence, seed: int) -> PreferenceConfig:
    return PreferenceConfig(beta=0.1, epochs=passes(pairs), batch_size=BATCH, seed=seed, **COMMON)


def brief_sft(records: Sequence, seed: int) -> TrainingConfig:
    return TrainingConfig(epochs=passes(records), batch_size=BATCH, seed=seed, **COMMON)


def brief_rloo(seed: int) -> GroupConfig:
    """As many samples as the pairs are made of, each trained on once."""
    return GroupConfig(
        loss="rloo", prompts_per_rollout=8, completions=SAMPLES, batch_size=8 * SAMPLES, accumulation=4, seed=seed,
        max_new_tokens=REPLY_TOKENS, temperature=TEMPERATURE, kl_coefficient=0.0, missing_end_penalty=1.0, **COMMON,
    )  # fmt: skip
