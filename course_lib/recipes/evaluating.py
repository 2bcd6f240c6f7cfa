"""What a model is worth before and after a run: its answers to held-out prompts, or for a reward model its ranking."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from course_lib.evaluation.intervals import mean_and_spread, paired_interval
from course_lib.recipes.settings import EvaluationSettings
from course_lib.rewards import RewardFunction, learned_reward
from course_lib.rollouts import sample


def answers(policy, tokenizer, prompts: Sequence, settings: EvaluationSettings, judge: RewardFunction | None) -> dict:
    """Greedy answers, their lengths in words, and their rewards if there is a judge."""
    found = sample(
        policy, tokenizer, prompts, temperature=0, max_new_tokens=settings.max_new_tokens, skip_special_tokens=True
    )  # fmt: skip
    completions = [
        text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
        for prompt, text in zip(prompts, found, strict=True)
    ]
    rewards = {} if judge is None else {"rewards": [float(value) for value in judge(prompts, completions)]}
    return {"answers": found, "words": [len(text.split()) for text in found]} | rewards


def ranking(model, tokenizer, pairs: Sequence[dict]) -> dict:
    """How many held-out pairs a reward model ranks as people did."""
    score: Callable = learned_reward(model, tokenizer)
    prompts = [pair["prompt"] for pair in pairs]
    chosen, rejected = (score(prompts, [pair[side] for pair in pairs]) for side in ("chosen", "rejected"))
    return {"right": (chosen > rejected).float().tolist()}


def comparison(before: dict | None, after: dict) -> dict:
    """Means after and before, and for each the paired difference with its 95% interval."""
    found = {}
    for name, values in after.items():
        if name == "answers":
            continue
        row = {"n": len(values), "after": mean_and_spread(values)[0]}
        if before:
            row["before"] = mean_and_spread(before[name])[0]
            if len(values) > 1:
                row["difference"] = dict(
                    zip(("mean", "low", "high"), paired_interval(values, before[name]), strict=True)
                )  # fmt: skip
        found[name] = row
    return found
