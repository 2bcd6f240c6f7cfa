"""Tables about a model: its gold reward part by part, its implicit rewards on held-out pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import torch

from course_lib.data import collate_pairs
from course_lib.data.tokenization import encode_row
from course_lib.logprobs import device_of, evaluating, sequence_logps
from course_lib.models import pad_id
from course_lib.rollouts import sample
from course_lib.world import gold_parts, parse


def gold_report(prompts: Sequence, completions: Sequence[str]) -> pd.DataFrame:
    """One row a completion: the parts of its gold reward, their sum `gold`, and its length in `tokens`.

    Raises:
        ValueError: for prompts and completions of different number, or a prompt that Pocket World does not know.
    """
    if len(prompts) != len(completions):
        raise ValueError(f"there are {len(prompts)} prompts but {len(completions)} completions")
    rows = []
    for prompt, completion in zip(prompts, completions, strict=True):
        parts = gold_parts(prompt, completion)
        rows.append({"gold": sum(parts.values()), **parts, "tokens": parse(completion).tokens})
    return pd.DataFrame(rows)


def evaluate_gold(
    model, tokenizer, prompts: Sequence, *, temperature: float = 0.0, seed: int = 0, progress: bool = False
) -> pd.DataFrame:
    """Sample one completion a prompt (greedy by default) and score it: `gold_report` with a text column."""
    completions = sample(model, tokenizer, prompts, temperature=temperature, seed=seed, progress=progress)
    return gold_report(prompts, completions).assign(text=completions)


def mean_parts(reports: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The mean of each part of the gold reward, one row a report: what `figures.stacked_parts` draws."""
    return pd.DataFrame(
        {name: r.drop(columns=["text", "tokens", "gold"], errors="ignore").mean() for name, r in reports.items()}
    ).T


@torch.inference_mode()
def implicit_reward_report(
    policy, reference, tokenizer, records: Sequence[dict], *, beta: float = 0.1, batch_size: int = 128
) -> pd.DataFrame:
    """Log-probabilities of held-out pairs under policy and reference, and what they say about preference.

    Columns, one row a pair: `policy_chosen`, `policy_rejected`, `ref_chosen`, `ref_rejected` (nats a
    completion) and `margin` = beta times the difference of log-ratios (reward units).
    Both models are used in evaluation mode, whatever mode they are in.

    Raises:
        ValueError: if there are no records.
    """
    if not records:
        raise ValueError("there are no records to report on")
    parts = []
    for start in range(0, len(records), batch_size):
        pairs = [tuple(encode_row(r, tokenizer)) for r in records[start : start + batch_size]]
        batch = collate_pairs(pairs, pad_id(policy, tokenizer))
        scores = [_scores(model, batch).cpu().chunk(2) for model in (policy, reference)]
        parts.append(torch.stack([*scores[0], *scores[1]], dim=1))
    table = pd.DataFrame(
        torch.cat(parts).numpy(), columns=["policy_chosen", "policy_rejected", "ref_chosen", "ref_rejected"]
    )
    ratios = (table.policy_chosen - table.ref_chosen) - (table.policy_rejected - table.ref_rejected)
    return table.assign(margin=beta * ratios)


def _scores(model, batch: dict) -> torch.Tensor:
    device = device_of(model)
    with evaluating(model):
        return sequence_logps(model, **{name: tensor.to(device) for name, tensor in batch.items()})
