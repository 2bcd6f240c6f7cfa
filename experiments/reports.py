"""Write CLAIMS.md and the pages in docs/ from the committed results: `python experiments/reports.py`."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean

import numpy as np

from course_lib import world
from course_lib.claims import LEDGER, SOURCES, Claim, of_this_world, seeds

ROOT = Path(__file__).resolve().parent.parent
HEADER = """# What articles claim, and what was measured here

Each claim gets one verdict: holds, holds in part, refuted, depends (on the seed, or on what it names), open, or not yet
tested. The figures are from the committed results in `experiments/results/` (several seeds, each with its own
pre-training), and this page is written from them by `python experiments/reports.py`. All of it is measured on Pocket
World, with a model of 0.9 million parameters: it says what *can* happen and why, not how large the effect is in a model
of billions. Where a figure speaks of *exact worlds*, it is a sum over six replies with random rewards and a random
reference, and no model. The claims on memory (M) and speed (S) are about models of billions: `course_lib.memory` counts
them. Lesson 13 holds its bytes against real steps; its seconds are arithmetic under a roofline, and none of them was
timed on a GPU.

Who says so: {sources}.
{edition}
| claim | who | verdict | figure | rule | lesson |
| --- | --- | --- | --- | --- | --- |
"""


def ledger() -> str:
    sources = "; ".join(f"{letter} is {source}" for letter, source in SOURCES.items())
    return (
        HEADER.format(sources=sources, edition=edition_note("pocket_world", "dpo_failures", "family"))
        + "\n".join(map(row, LEDGER))
        + "\n"
    )


def edition_note(*names: str) -> str:
    """A warning where results were measured in an earlier edition of the world than the package's."""
    old = [name for name in names if not of_this_world(name)]
    if not old:
        return ""
    return f"""
**Of an earlier edition:** {", ".join(old)} {"was" if len(old) == 1 else "were"} measured in the first edition of Pocket
World, whose models and splits were others. They are being measured anew under `experiments/protocol.md`; until then
read their figures as that world's.
"""


def row(claim: Claim) -> str:
    verdict, figure = claim.judge()
    cells = (claim.text, claim.source, verdict, figure, claim.rule, ", ".join(map(link, claim.lessons)))
    return f"| {' | '.join(cells)} |"


def link(lesson: str) -> str:
    """The lesson's number, as a link once the lesson exists."""
    found = next((ROOT / "notebooks").glob(f"{lesson}_*.ipynb"), None)
    return f"[{lesson}](notebooks/{found.name})" if found else lesson


WORLD_HEADER = """# Pocket World in figures

{count} seeds, each from its own pre-training on: the mean, and in brackets the lowest and the highest seed. Gold reward
is measured on 1,000 test prompts, apart from those of training and those on which rates and recipes were tuned. This
page is written from `experiments/results/pocket_world.json` by `python experiments/reports.py`.
{edition}
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
    for arm, name in (("reward_weak", "reward model, 6,000 pairs"), ("reward", "reward model, 38,000 pairs")):
        rows.append((f"{name}: held-out pairs in order", [r[arm]["all_pairs"] for r in runs]))
        rows.append((f"{name}: right over wrong in the same words", [r[arm]["right_or_wrong"] for r in runs]))
    return (
        WORLD_HEADER.format(count=len(runs), edition=edition_note("pocket_world"))
        + "\n".join(f"| {what} | {spread(values)} |" for what, values in rows)
        + "\n"
        + overlaps()
        + matched_kl()
    )


OVERLAP_HEADER = """
## What training never sees

Share of each split's prompts that have something in common with training (20,000 demonstrations, 20,000 pairs, 8,000
single responses; the highest of the three), as `world.overlap()` lists it: the text itself; the question without
greeting and request for JSON; what it is about (entity, act, numbers, words); the template; and the form (kind of
question, JSON or not). Bold is what a split promises to be zero. The rest is shared on purpose: a test question asks in
new words about things that training mentions.

| split | prompt | question | subject | template | form |
| --- | --- | --- | --- | --- | --- |
"""


def overlaps() -> str:
    found = (
        world.overlap().groupby(["split", "level"], sort=False).agg(share=("share", "max"), never=("never", "first"))
    )
    rows = {}
    for (split, _), (share, never) in zip(found.index, found.values, strict=True):
        rows.setdefault(split, [split]).append(f"**{share:.2f}**" if never else f"{share:.2f}")
    return OVERLAP_HEADER + "\n".join(f"| {' | '.join(row)} |" for row in rows.values()) + "\n"


MATCHED_HEADER = """
## PPO and DPO at matched KL

Both start from the SFT model. DPO learns from the lesson's 4,000 pairs, PPO from the reward model (38,000 pairs of the
same kind), with the same beta in the same units. All figures are of replies sampled at temperature 1; KL is in nats a
reply, from the SFT model. The second table puts DPO beside PPO *at DPO's KL*: PPO's gold reward there, between its
neighbouring runs (its own start, KL 0, is the SFT model), less DPO's. It is drawn twice, straight in KL and straight in
its square root, along which reward is known to bend less; a lead that depends on the choice is none. Written from
`experiments/results/matched_kl.json`.

| method | beta | KL | gold |
| --- | --- | --- | --- |
"""


def matched_kl() -> str:
    runs = seeds("matched_kl")
    arms = [(method, beta) for method in ("dpo", "ppo") for beta in runs[0][method]]
    rows = [
        f"| {method.upper()} | {beta} | {spread([run[method][beta]['kl'] for run in runs])} | "
        f"{spread([run[method][beta]['gold'] for run in runs])} |"
        for method, beta in arms
    ]
    leads = [
        f"| {beta} | {' | '.join(spread([lead(run, beta, power) for run in runs]) for power in (1.0, 0.5))} |"
        for beta in runs[0]["dpo"]
    ]
    return MATCHED_HEADER + "\n".join(rows) + LEAD_HEADER + "\n".join(leads) + "\n"


LEAD_HEADER = """

| DPO's beta | PPO over DPO, straight in KL | straight in its root |
| --- | --- | --- |
"""


def lead(run: dict, beta: str, power: float) -> float:
    """PPO's gold reward at DPO's KL less DPO's, interpolated between PPO's runs in KL ** power."""
    points = sorted([(0.0, run["sft"]["gold"])] + [(arm["kl"] ** power, arm["gold"]) for arm in run["ppo"].values()])
    dpo = run["dpo"][beta]
    return float(np.interp(dpo["kl"] ** power, *zip(*points, strict=True))) - dpo["gold"]


SPEED_HEADER = """# An epoch of DPO beside TRL's

The same model and pairs, each arm in a process of its own, all arms in turn; medians over rounds. Time is that of a
whole epoch divided by its steps: tokenisation, batches and the pass that precomputes the reference's scores are in it.
"Steps alone" compares the time from one step to the next, which is what a further epoch on the same pairs costs. On the
CPU everything is fp32 on one thread, without activation checkpointing. Memory is the peak of torch's allocations:
weights, gradients, optimiser, reference and activations. From the fourth row on each row adds one lever to the row
before. That loss and gradients equal TRL's to 1e-5 is tested (`tests/test_against_trl.py`).
`python experiments/reports.py` writes this page from `benchmarks/results/dpo_step.json`, which
`python benchmarks/dpo_step.py` measures.

Times are of one shared machine and say little alone; the ratio to TRL 1.16 in the same round is the figure to read.
"""
SPEED_NAMES = {
    "0.5m": "0.5 million parameters, Pocket World's vocabulary, 32 pairs a step",
    "33m": "33 million parameters, vocabulary 49,152, 4 pairs a step",
    "0.5b": "0.5 billion parameters, vocabulary 151,936, 8 pairs a step, bf16 on a GPU",
}


def speed_page() -> str:
    dpo, others = (json.loads((ROOT / f"benchmarks/results/{name}.json").read_text()) for name in BENCHMARKS)
    tables = [speed_table(SPEED_NAMES[size], found["arms"]) for size, found in dpo.items()]
    return SPEED_HEADER + "".join(tables) + OTHERS_HEADER + other_rows(others)


BENCHMARKS = ("dpo_step", "other_steps")
OTHERS_HEADER = """
## SFT, reward model and KTO

Measured likewise (`benchmarks/other_steps.py`), both libraries at their defaults; for KTO that means that the reference
is precomputed here, and not there.

| | model | ms a step, TRL | here | times as fast | share of TRL's memory |
| --- | --- | --- | --- | --- | --- |
"""


def speed_table(name: str, arms: dict) -> str:
    rows = [
        f"| {arm['what']} | {arm['milliseconds']:,.0f} | {arm['times_as_fast']:.1f} | "
        f"{arm['step_times_as_fast']:.1f} | {arm['peak_mb']:,.0f} | {arm['share_of_memory']:.2f} |"
        for arm in arms.values()
    ]
    head = (
        "| | ms a step | times as fast as TRL | steps alone | peak MB | share of TRL's |\n"
        "| --- | --- | --- | --- | --- | --- |\n"
    )
    return f"\n## {name}\n\n{head}" + "\n".join(rows) + "\n"


def other_rows(sizes: dict) -> str:
    rows = [
        f"| {method} | {size} | {found['arms']['trl']['milliseconds']:,.0f} | {own['milliseconds']:,.0f} | "
        f"{own['times_as_fast']:.1f} | {own['share_of_memory']:.2f} |"
        for size, methods in sizes.items()
        for method, found in methods.items()
        for own in [found["arms"]["ours"]]
    ]
    return "\n".join(rows) + "\n"


PAGES = {"CLAIMS.md": ledger, "docs/pocket_world.md": world_page, "docs/speed.md": speed_page}

if __name__ == "__main__":
    for name, page in PAGES.items():
        (ROOT / name).write_text(page())
