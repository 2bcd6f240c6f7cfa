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
from course_lib.world import gold_parts, parse, task_of
from course_lib.world.gold import is_right, message_text

KINDS = ("fact", "larger", "longer", "sum", "earlier", "two", "safe", "unsafe")
PARTS = ("correct", "safety", "hedge", "format", "warmth", "length", "rude", "repeat", "malformed")


def gold_report(prompts: Sequence, completions: Sequence[str]) -> pd.DataFrame:
    """One row for each completion: the parts of its gold reward, their sum `gold`, and its length in `tokens`.

    `kind` says what was asked ("fact", "larger", "longer", "safe", "unsafe", ...), `right` whether everything asked is
    answered rightly, `refused` whether it is a refusal and nothing else. `by_kind` makes a table of these.

    Raises:
        ValueError: for prompts and completions of different number, or a prompt that Pocket World does not know.
    """
    if len(prompts) != len(completions):
        raise ValueError(f"there are {len(prompts)} prompts but {len(completions)} completions")
    rows = []
    for prompt, completion in zip(prompts, completions, strict=True):
        parts, task, parsed = gold_parts(prompt, completion), task_of(prompt), parse(message_text(completion))
        outcome = {"kind": task.kind, "right": is_right(task, parsed), "refused": parsed.refuses}
        rows.append({"gold": sum(parts.values()), **parts, "tokens": parsed.tokens, **outcome})
    return pd.DataFrame(rows)


def evaluate_gold(
    model, tokenizer, prompts: Sequence, *, temperature: float = 0.0, seed: int = 0, progress: bool = False
) -> pd.DataFrame:
    """Sample one completion for each prompt (greedy by default) and score it: `gold_report` with a text column.

    Special tokens that the model says in the middle of a reply are words that nobody can read, and cost as such.
    """
    completions = sample(
        model, tokenizer, prompts, temperature=temperature, seed=seed, skip_special_tokens=False, progress=progress
    )
    return gold_report(prompts, completions).assign(text=completions)


def mean_parts(reports: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The mean of each part of the gold reward, one row a report: what `figures.stacked_parts` draws."""
    return pd.DataFrame({name: r[[c for c in r.columns if c in PARTS]].mean() for name, r in reports.items()}).T


def by_kind(report: pd.DataFrame) -> pd.DataFrame:
    """Gold reward, share answered rightly and share refused, one row for each kind of request, `n` replies each.

    A mean over all prompts hides what this shows: a model can gain by refusing everything that looks like a how-to.

    Args:
        report: what `gold_report` or `evaluate_gold` returned.
    """
    columns = {name: (name, "mean") for name in ("gold", "right", "refused")}
    table = report.groupby("kind").agg(n=("gold", "size"), **columns)
    return table.reindex([kind for kind in KINDS if kind in table.index])


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
