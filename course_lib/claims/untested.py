"""Claims that no lesson tests yet, with the lesson that will: their place in the ledger is kept."""

from __future__ import annotations

from functools import partial

from course_lib.claims.judging import NOT_YET, Claim, Judgement

_ROWS = [  # id, who says so, lesson, text
    ("O6a", "A", "05", "O6, its first half: DPO without SFT learns format before preference"),
    ("O7", "A", "12", "DPO's reward moves with the policy, PPO's reward model stands still"),
    (
        "R1",
        "A",
        "15",
        "MT-Bench from 6.8 (SFT) to 8.1 PPO, 7.9 DPO, 7.8 DPO + LoRA, 8.2 SimPO; MMLU from 66.2 to 65.8, "
        "63.5, 64.1, 65.5: DPO pays more alignment tax than PPO",
    ),
    ("R4", "A", "15", "PPO generalises better out of distribution, because it explores"),
    ("D1", "B", "16", "a published scoreboard gives DPO 7 of 8 criteria and RLHF 1"),
    (
        "D2",
        "B",
        "16",
        "choose DPO when new to the field, short of memory, in need of stability, and with good pairs; RLHF "
        "when the reward must be iterated on, prompts are many and preferences few, several objectives must "
        "be balanced, the model is very large, or the infrastructure exists; KTO when feedback is thumbs up "
        "or down",
    ),
]


def not_yet(lesson: str) -> Judgement:
    return Judgement(NOT_YET, f"Lesson {lesson} will test it.", "")


def _claim(name: str, source: str, lesson: str, text: str) -> Claim:
    text = text if text.startswith(name[:2]) else f"{name}: {text}"
    return Claim(name, text, source, "fixed when the experiment's protocol is", partial(not_yet, lesson), (lesson,))


CLAIMS = [_claim(*row) for row in _ROWS]
