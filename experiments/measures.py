"""What the experiments measure of a policy, the same way everywhere; see protocol.md."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from statistics import fmean

import pandas as pd
import torch

from course_lib import evaluation, sample, sequence_logps, world
from course_lib.data import collate_completions, encode_completion

HELD_OUT = {"n": 300, "split": "test", "seed": 99}
UNSEEN = ("template", "entity", "act", "skill", "composition")
DRAWS = 2  # of one model; arms with two orders of batches have one draw of each


def describe(
    policy, sft, tokenizer, *, prompts: int = 1000, draws: int = DRAWS, knows: bool = True, unseen: Sequence[str] = ()
) -> dict:
    """A policy's gold reward, kind by kind; its distance from the SFT model; and what became of held-out pairs.

    `gold_sampled` is the primary outcome: the mean over draws at temperature 1. `gold` is greedy; so are `kinds`,
    `parts`, `tokens` and `repeats`. `kl` is the mean log-ratio of the first draw, nats for each reply; `distinct` the
    share of different texts in it; `chosen` and `rejected` are mean log-ratios of held-out pairs, `accuracy` the share
    in order; `knows` are plain-text probes. `unseen` names splits that training never saw, to be reported by kind.
    """
    asked = world.prompts("test", prompts)
    greedy = evaluation.evaluate_gold(policy, tokenizer, asked)
    drawn = [evaluation.evaluate_gold(policy, tokenizer, asked, temperature=1.0, seed=1 + i) for i in range(draws)]
    chosen, rejected = held_out_logps(policy, tokenizer) - of_the_reference(sft, tokenizer)
    found = {
        "gold_sampled": fmean(report.gold.mean() for report in drawn),
        "gold": greedy.gold.mean(),
        "kinds": by_kind(greedy),
        "kinds_sampled": by_kind(pd.concat(drawn)),
        "parts": evaluation.mean_parts({"": greedy}).iloc[0].to_dict(),
        "tokens": greedy.tokens.mean(),
        "repeats": (greedy["repeat"] < 0).mean(),
        "malformed": (greedy.malformed < 0).mean(),
        "kl": kl(policy, sft, tokenizer, asked, drawn[0].text),
        "distinct": drawn[0].text.nunique() / len(asked),
        "chosen": chosen.mean(),
        "rejected": rejected.mean(),
        "margin": (chosen - rejected).mean(),
        "accuracy": (chosen > rejected).float().mean(),
    }
    if knows:
        found["knows"] = {kind: evaluation.cloze_accuracy(policy, tokenizer, kind) for kind in evaluation.PROBES}
    found["unseen"] = {split: unseen_split(policy, tokenizer, split) for split in unseen}
    return rounded(found)


def unseen_split(policy, tokenizer, split: str) -> dict:
    report = evaluation.evaluate_gold(policy, tokenizer, world.prompts(split, 300))
    return {"gold": report.gold.mean(), "kinds": by_kind(report)}


def by_kind(report: pd.DataFrame) -> dict[str, dict[str, float]]:
    return evaluation.by_kind(report).drop(columns="n").to_dict("index")


def best_of(policy, score, tokenizer, prompts, sizes: Sequence[int], *, seed: int = 1) -> dict[int, pd.DataFrame]:
    """For each n the gold report of the reply that a reward function likes best among n draws at temperature 1."""
    drawn = [sample(policy, tokenizer, prompts, temperature=1.0, seed=seed + i) for i in range(max(sizes))]
    scores = torch.stack([score(prompts, texts) for texts in drawn])
    best = {n: scores[:n].argmax(dim=0).tolist() for n in sizes}
    return {n: evaluation.gold_report(prompts, [drawn[d][i] for i, d in enumerate(best[n])]) for n in sizes}


def mean_of(runs: list[dict]) -> dict:
    """The mean of the same figures over several runs of one seed."""
    first = runs[0]
    return {
        key: mean_of([run[key] for run in runs]) if isinstance(value, dict) else fmean(run[key] for run in runs)
        for key, value in first.items()
        if isinstance(value, dict | float | int)
    }


def rounded(found):
    if isinstance(found, dict):
        return {key: rounded(value) for key, value in found.items()}
    return round(float(found), 4)


def kl(policy, sft, tokenizer, prompts, texts) -> float:
    """KL(policy || SFT) in nats for each reply, estimated (k1) on 300 of the policy's own samples."""
    some = slice(0, 300)
    theirs, before = (logps(model, tokenizer, prompts[some], list(texts)[some]) for model in (policy, sft))
    return (theirs - before).mean().item()


def held_out_logps(model, tokenizer) -> torch.Tensor:
    """Log-probabilities of held-out pairs: chosen and rejected, (2, N)."""
    pairs = world.preference_records(**HELD_OUT)
    asked = [pair["prompt"] for pair in pairs]
    said = [[pair[side][0]["content"] for pair in pairs] for side in ("chosen", "rejected")]
    return torch.stack([logps(model, tokenizer, asked, texts) for texts in said])


of_the_reference = cache(held_out_logps)  # the same SFT model stands beside every arm of a seed


@torch.inference_mode()
def logps(model, tokenizer, prompts, texts) -> torch.Tensor:
    """Summed log-probability of each text as the reply to its prompt, nats."""
    rows = [encode_completion(p, t, tokenizer) for p, t in zip(prompts, texts, strict=True)]
    batches = [rows[i : i + 250] for i in range(0, len(rows), 250)]
    return torch.cat([sequence_logps(model, **collate_completions(b, tokenizer.pad_token_id)) for b in batches])
