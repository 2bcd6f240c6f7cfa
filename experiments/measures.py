"""What the experiments measure of a policy, the same way everywhere."""

from __future__ import annotations

import torch

from course_lib import evaluation, sample, sequence_logps, world
from course_lib.data import collate_completions, encode_completion

HELD_OUT = {"n": 1000, "split": "test", "seed": 99}


def describe(policy, sft, tokenizer, *, prompts: int = 500, split: str = "test") -> dict[str, float]:
    """A policy's gold reward, its distance from the SFT model, and what became of held-out pairs.

    `gold` is greedy, `gold_sampled` at temperature 1; `kl` is the mean log-ratio of those samples, nats a
    response; `tokens` and `repeats` are per greedy response; `distinct` is the share of different texts among
    the samples; `chosen` and `rejected` are mean log-ratios of held-out pairs, `accuracy` the share in order. A
    sample that was cut off at the limit of tokens is scored as if it ended there.
    """
    asked = world.prompts(split, prompts)
    greedy = evaluation.evaluate_gold(policy, tokenizer, asked)
    texts = sample(policy, tokenizer, asked, temperature=1.0, seed=1)
    pairs = evaluation.implicit_reward_report(policy, sft, tokenizer, world.preference_records(**HELD_OUT))
    chosen, rejected = pairs.policy_chosen - pairs.ref_chosen, pairs.policy_rejected - pairs.ref_rejected
    figures = {
        "gold": greedy.gold.mean(),
        "correct": greedy.correct.mean(),
        "tokens": greedy.tokens.mean(),
        "repeats": (greedy["repeat"] < 0).mean(),
        "malformed": (greedy.malformed < 0).mean(),
        "gold_sampled": world.gold_reward(asked, texts).mean(),
        "kl": kl(policy, sft, tokenizer, asked, texts),
        "distinct": len(set(texts)) / len(texts),
        "chosen": chosen.mean(),
        "rejected": rejected.mean(),
        "accuracy": (chosen > rejected).mean(),
        "facts": evaluation.cloze_accuracy(policy, tokenizer, "facts"),
    }
    return {name: round(float(value), 4) for name, value in figures.items()}


@torch.inference_mode()
def kl(policy, sft, tokenizer, prompts, texts) -> float:
    """KL(policy || SFT) in nats a response, estimated (k1) on the policy's own samples."""
    batch = encode(prompts, texts, tokenizer)
    return (sequence_logps(policy, **batch) - sequence_logps(sft, **batch)).mean().item()


def encode(prompts, texts, tokenizer) -> dict[str, torch.Tensor]:
    """One batch of all prompts, each with its response."""
    rows = [encode_completion(p, t, tokenizer) for p, t in zip(prompts, texts, strict=True)]
    return collate_completions(rows, tokenizer.pad_token_id)
