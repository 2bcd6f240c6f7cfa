"""A judge's question in Pocket World's words, and records that teach a model to answer it."""

from __future__ import annotations

import random
from collections.abc import Sequence

from course_lib.world.gold import message_text

ANSWERS = ("one", "two")


def which_is_best(prompt, one: str, two: str) -> list[dict]:
    """What a judge is asked: the question, both answers, and which one is best."""
    content = f"{message_text(prompt)} answer one: {one} answer two: {two} which answer is best, one or two?"
    return [{"role": "user", "content": content}]


def judge_records(records: Sequence[dict], *, seed: int = 0) -> list[dict]:
    """Pairs as demonstrations of judging: `{"prompt", "completion"}`, the chosen reply first in half of them."""
    draw, found = random.Random(f"judge-{seed}"), []
    for row in records:
        chosen, rejected = message_text(row["chosen"]), message_text(row["rejected"])
        first = draw.random() < 0.5
        one, two = (chosen, rejected) if first else (rejected, chosen)
        answer = [{"role": "assistant", "content": ANSWERS[not first]}]
        found.append({"prompt": which_is_best(row["prompt"], one, two), "completion": answer})
    return found
