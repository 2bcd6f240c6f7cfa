"""Write CLAIMS.md and docs/pocket_world.md from the committed results: `python experiments/reports.py`."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from course_lib import dpo_loss, exact, ipo_loss

ROOT = Path(__file__).resolve().parent.parent
HEADER = """# What articles claim, and what was measured here

Each claim gets one verdict: holds, holds in part, refuted, depends on the seed, or open. The figures are from the
committed results in `experiments/results/` (three seeds, each with its own pre-training), and this page is written
from them by `python experiments/reports.py`. All of it is measured on Pocket World, with a model of 0.9 million
parameters: it says what *can* happen and why, not how large the effect is in a model of billions. Where a figure
speaks of *exact worlds*, it is a sum over six replies with random rewards and a random reference, and no model.

| claim | verdict | figure | lesson |
| --- | --- | --- | --- |
"""


def seeds(name: str) -> list[dict]:
    return json.loads((ROOT / f"experiments/results/{name}.json").read_text())["seeds"]


def verdict(outcomes: list[bool]) -> str:
    return "holds" if all(outcomes) else "refuted" if not any(outcomes) else "depends on the seed"


def pipeline_stages() -> tuple[str, str]:
    return "holds", "by construction: SFT, then pairs, and no reward model in between"


def off_policy() -> tuple[str, str]:
    runs = [run["misconceptions_right"] for run in seeds("pocket_world")]
    gain = {where: [run[where]["dpo"] - run[where]["sft"] for run in runs] for where in ("seen", "unseen")}
    more = [a > b for a, b in zip(gain["seen"], gain["unseen"], strict=True)]
    none = [b <= 0.02 for b in gain["unseen"]]
    outcome = "holds" if all(more) and all(none) else "holds in part" if any(more) else "refuted"
    return outcome, (
        f"misconceptions mended: {fmean(gain['seen']):+.2f} of those that the pairs mention, "
        f"{fmean(gain['unseen']):+.2f} of the others"
    )


def displacement() -> tuple[str, str]:
    ratios = [run["dpo"]["held_out"]["log_ratio_chosen"] for run in seeds("pocket_world")]
    return verdict([r < 0 for r in ratios]), f"mean log-ratio of held-out chosen replies {fmean(ratios):+.1f} nats"


def sft_first() -> tuple[str, str]:
    runs = seeds("pocket_world")
    gold = {arm: [run[arm]["gold"]["0.0"] for run in runs] for arm in ("dpo_from_base", "sft", "dpo")}
    outcome = verdict([a < b for a, b in zip(gold["dpo_from_base"], gold["sft"], strict=True)])
    means = {arm: f"{fmean(values):.2f}" for arm, values in gold.items()}
    return (
        outcome,
        f"gold reward: DPO from base {means['dpo_from_base']}, SFT {means['sft']}, DPO after it {means['dpo']}",
    )


def exact_worlds(count: int = 5) -> list[tuple[Tensor, Tensor]]:
    """Log-probabilities of a reference over six replies, and their rewards (all different), fp64."""
    generator = torch.Generator().manual_seed(0)
    draw = partial(torch.randn, count, 6, generator=generator, dtype=torch.float64)
    return list(zip(draw().log_softmax(-1), draw(), strict=True))


def pair_objective(logps: Tensor, ref: Tensor, preferences: Tensor, *, loss=dpo_loss, beta: float) -> Tensor:
    return exact.expected_pair_loss(partial(loss, beta=beta), logps, ref, preferences)


def dpo_minimiser(ref: Tensor, rewards: Tensor, *, beta: float) -> Tensor:
    labels = exact.bradley_terry(rewards)
    return exact.minimise(lambda logps: pair_objective(logps, ref, labels, beta=beta), ref)


def regularisers(beta: float = 0.5) -> tuple[str, str]:
    same, held = [], {"IPO": [], "DPO": []}
    for ref, rewards in exact_worlds():
        best, dpo = exact.optimal_policy(ref, rewards, beta=beta), dpo_minimiser(ref, rewards, beta=beta)
        same.append(abs(exact.kl_divergence(dpo, ref) - exact.kl_divergence(best, ref)).item() < 1e-6)
        certain = 0.5 + 0.5 * (rewards[:, None] - rewards).sign()
        log_ratios = exact.ipo_optimum(ref, certain, beta=beta) - ref
        for name, loss in (("IPO", ipo_loss), ("DPO", dpo_loss)):
            near, far = (pair_objective(ref + k * log_ratios, ref, certain, loss=loss, beta=beta) for k in (1, 10))
            held[name].append((far > near).item())
    parts = [*same, *held["IPO"], *held["DPO"]]
    outcome = "holds" if all(parts) else "holds in part" if any(parts) else "refuted"
    return outcome, (
        f"of {len(same)} exact worlds, DPO ends at RLHF's KL in {sum(same)} where labels have Bradley-Terry's doubt; "
        f"where labels never err, ten times the log-ratios raise IPO's loss in {sum(held['IPO'])} and DPO's in "
        f"{sum(held['DPO'])}"
    )


def baked_in(beta: float = 0.5) -> tuple[str, str]:
    readable, lost = [], []
    edit = torch.eye(6, dtype=torch.float64)[0]
    for ref, rewards in exact_worlds():
        dpo = dpo_minimiser(ref, rewards, beta=beta)
        target = exact.optimal_policy(ref, rewards + edit, beta=beta)
        edited = exact.optimal_policy(ref, beta * (dpo - ref) + edit, beta=beta)
        readable.append(torch.allclose(edited, target, rtol=0, atol=1e-6))
        error = beta * dpo - rewards
        lost.append((error - error.mean()).abs().max().item())
    return "holds in part" if any(readable) else "holds", (
        f"RLHF's optimum needs the new reward alone; but in {sum(readable)} of {len(readable)} exact worlds DPO's "
        f"reward was read out of policy and reference, edited, and gave the same optimum; without the reference the "
        f"read-out errs by {min(lost):.1f} to {max(lost):.1f} reward units"
    )


def not_yet() -> tuple[str, str]:
    return "open", "needs RLHF beside it on the same pairs"


SFT_LESSON = "[01](notebooks/01_logprobs_and_sft.ipynb)"
OBJECTIVE_LESSON = "[03](notebooks/03_the_objective_both_share.ipynb)"
DPO_LESSON = "[04](notebooks/04_dpo_from_scratch.ipynb)"
CLAIMS = [
    ("P1: DPO has two stages where RLHF has three", pipeline_stages, DPO_LESSON),
    (
        "P4, for PPO, DPO, IPO: an explicit KL, an implicit KL, a squared pull regularise",
        regularisers,
        OBJECTIVE_LESSON,
    ),
    ("P5, DPO's half: it can only use what is in its data", off_policy, DPO_LESSON),
    ("P7: the reward can be swapped alone; DPO's preferences are baked in", baked_in, OBJECTIVE_LESSON),
    ("O2: DPO can lower the log-probability of the chosen response too", displacement, DPO_LESSON),
    ("O6, its second half: DPO without SFT gives poor output", sft_first, SFT_LESSON),
    ("R7: DPO learns more per preference pair than RLHF", not_yet, "08"),
]


def ledger() -> str:
    rows = []
    for claim, measure, lesson in CLAIMS:
        outcome, figure = measure()
        rows.append(f"| {claim} | {outcome} | {figure} | {lesson} |")
    return HEADER + "\n".join(rows) + "\n"


WORLD_HEADER = """# Pocket World in figures

Three seeds, each from its own pre-training on: the mean, and in brackets the lowest and the highest seed. Gold reward
is measured on 1,000 test prompts that no training and no tuning uses. This page is written from
`experiments/results/pocket_world.json` by `python experiments/reports.py`.

| what | figure |
| --- | --- |
"""


def spread(values: list[float]) -> str:
    return f"{fmean(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def world_page() -> str:
    runs = seeds("pocket_world")
    names = {"base": "base", "sft": "SFT", "dpo_from_base": "DPO from base", "dpo": "DPO from SFT"}
    rows = [(f"{name}: gold reward, greedy", [r[arm]["gold"]["0.0"] for r in runs]) for arm, name in names.items()]
    rows += [
        ("SFT: gold reward at its best temperature", [max(r["sft"]["gold"].values()) for r in runs]),
        (
            "DPO over SFT at its best temperature",
            [r["dpo"]["gold"]["0.0"] - max(r["sft"]["gold"].values()) for r in runs],
        ),
        ("SFT: gold reward sampled at temperature 1", [r["sft"]["gold"]["1.0"] for r in runs]),
        ("DPO: gold reward sampled at temperature 1", [r["dpo"]["gold"]["1.0"] for r in runs]),
    ]
    for split in ("template", "entity"):
        rows += [(f"{names[a]}: gold reward, {split} OOD", [r[a]["ood"][split] for r in runs]) for a in ("sft", "dpo")]
    for kind in ("facts", "sums"):
        rows += [
            (f"{names[a]}: {kind} known in plain text", [r[a][kind] for r in runs]) for a in ("base", "sft", "dpo")
        ]
    rows.append(("SFT without plain text: sums known", [r["sft_without_text"]["sums"] for r in runs]))
    for arm, name in (("reward_weak", "reward model, 6,000 pairs"), ("reward", "reward model, 20,000 pairs")):
        rows.append((f"{name}: held-out pairs in order", [r[arm]["all_pairs"] for r in runs]))
        rows.append((f"{name}: right over wrong in the same words", [r[arm]["right_or_wrong"] for r in runs]))
    return WORLD_HEADER + "\n".join(f"| {what} | {spread(values)} |" for what, values in rows) + "\n"


if __name__ == "__main__":
    (ROOT / "CLAIMS.md").write_text(ledger())
    (ROOT / "docs/pocket_world.md").write_text(world_page())
