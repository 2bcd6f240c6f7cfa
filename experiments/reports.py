"""Write CLAIMS.md and the pages in docs/ from the committed results: `python experiments/reports.py`."""

from __future__ import annotations

import json
from functools import reduce
from operator import getitem
from pathlib import Path
from statistics import fmean

from course_lib import world
from course_lib.claims import LEDGER, SOURCES, VERDICTS, Claim, Judgement, seeds
from course_lib.claims.direct import best_temperature, comparisons

ROOT = Path(__file__).resolve().parent.parent
HEADER = """# What articles claim, and what was measured here

Learners meet these {count} claims in articles and courses. Each gets one verdict, computed from what was measured and
typed nowhere. Under each theme those that are decided come first, and those that no lesson tests yet last.

- **holds**, **refuted**: all parts of the claim are so, or none is.
- **holds in part**, **depends on ...**: some parts are so; the row says which, and what became of the others.
- **open**: the runs allow both.

Claims about runs are decided by one rule, which was written down before the runs
([protocol](experiments/protocol.md)): seeds with their own pre-training each, an interval that allows for all contrasts
of an experiment, and a difference counts only if it is large enough to matter. Seeds that verdicts rest on: {measured}.
The small print gives the difference with
its interval, what leaving any one seed out would change, and what greedy replies say where replies drawn at temperature
1 decide.

All runs are of Pocket World, with a model of 0.9 million parameters: they say what *can* happen and why, not how large
the effect is in a model of billions. Claims on memory and speed are about models of billions and are computed:
`course_lib.memory` counts bytes, which lesson 13 holds against real steps; seconds are arithmetic under a roofline, and
none of them was timed on a GPU. *Exact worlds* are sums over six replies, without a model.

Who says so: {sources}.
"""
THEMES = {
    "P": "Pipelines",
    "M": "Memory",
    "S": "Speed",
    "O": "Optimisation",
    "R": "Outcomes",
    "N": "Reward hacking",
    "D": "Choosing",
}
TABLE = """
## {theme}

| claim | who | verdict | what was found | lesson |
| --- | --- | --- | --- | --- |
"""


def ledger() -> str:
    sources = "; ".join(f"{letter} is {source}" for letter, source in SOURCES.items())
    names = ("pocket_world", "dpo_failures", "family", "online", "preference_data", "judges", "objectives")
    measured = ", ".join(f"{len(seeds(name))} of `{name}`" for name in names)
    count = len({claim.id.rstrip("ab") for claim in LEDGER})
    return HEADER.format(count=count, sources=sources, measured=measured) + "".join(map(theme, THEMES))


def theme(letter: str) -> str:
    judged = [(claim, claim.judge()) for claim in LEDGER if claim.id[0] == letter]
    judged.sort(key=lambda pair: VERDICTS.index(pair[1].verdict))
    return TABLE.format(theme=THEMES[letter]) + "".join(row(claim, judgement) + "\n" for claim, judgement in judged)


def row(claim: Claim, judgement: Judgement) -> str:
    small = [judgement.figure and f"{judgement.figure}.", judgement.figure and f"Measured: {claim.rule}."]
    print_small = " ".join(text.replace("..", ".") for text in small if text)
    found = judgement.found + (f"<br><sub>{print_small}</sub>" if print_small else "")
    cells = (claim.text, claim.source, judgement.verdict, found, ", ".join(map(link, claim.lessons)))
    return f"| {' | '.join(cells)} |"


def link(lesson: str) -> str:
    """The lesson's number, as a link once the lesson exists."""
    found = next((ROOT / "notebooks").glob(f"{lesson}_*.ipynb"), None)
    return f"[{lesson}](notebooks/{found.name})" if found else lesson


WORLD_HEADER = """# Pocket World in figures

{count} seeds, each from its own pre-training on: the mean, and in brackets the lowest and the highest seed. Trained
arms are means of two orders of batches. Gold reward is measured on 1,000 test prompts, apart from those of training and
of tuning. [protocol.md](../experiments/protocol.md) says how, and `python experiments/reports.py` writes this page from
`experiments/results/pocket_world.json`.

## Gold reward

At temperature 1 (two draws for each prompt), and greedily.

| model | at temperature 1 | greedy | KL from SFT, nats per reply |
| --- | --- | --- | --- |
"""
ARMS = {
    "base": "base",
    "sft": "SFT",
    "cloned": "SFT, then SFT on the chosen replies",
    "dpo": "DPO",
    "dpo_fast": "DPO at the rate tuned on half the pairs",
    "dpo_shuffled": "DPO on shuffled labels",
    "dpo_from_base": "DPO from the base model",
}
KINDS = {"fact": "facts", "larger": "larger number", "longer": "longer word", "safe": "harmless", "unsafe": "unsafe"}


def spread(values: list[float]) -> str:
    return f"{fmean(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def table(head: str, rows: list[tuple]) -> str:
    line = "| --- " * (head.count("|") - 1) + "|"
    return "\n".join([head, line, *(f"| {' | '.join(map(str, row))} |" for row in rows)]) + "\n"


def world_page() -> str:
    runs = seeds("pocket_world")
    page = WORLD_HEADER.format(count=len(runs))
    for arm, name in ARMS.items():
        figures = [spread([run[arm][figure] for run in runs]) for figure in ("gold_sampled", "gold", "kl")]
        page += f"| {name} | {' | '.join(figures)} |\n"
    for n in (2, 4, 8):
        page += (
            f"| best of {n} by the reward model | {spread([r[f'best_of_{n}']['gold_sampled'] for r in runs])} | | |\n"
        )
    best = [run["sft"]["by_temperature"]["test"][best_temperature(run)] for run in runs]
    page += f"| SFT at the temperature that is best on tuning prompts | {spread(best)} | | |\n"
    return (
        page
        + beside_rivals()
        + by_kind(runs)
        + never_seen(runs)
        + reward_models(runs)
        + what_is_known(runs)
        + overlaps()
    )


def beside_rivals() -> str:
    rows = [(part.says, part.verdict, f"<sub>{part.figure}</sub>") for part in comparisons()]
    return "\n## DPO beside its rivals\n\n" + table("| | verdict | difference in gold reward |", rows)


def by_kind(runs: list[dict]) -> str:
    rows = [
        (ARMS[arm], *(spread([run[arm]["kinds"][kind][column] for run in runs]) for kind, column in KIND_COLUMNS))
        for arm in ("sft", "cloned", "dpo")
    ]
    head = "| greedy, test prompts | " + " | ".join(
        f"{KINDS[kind]} {'refused' if column == 'refused' else 'right'}" for kind, column in KIND_COLUMNS
    )
    return "\n## Kind by kind\n\n" + table(head + " |", rows)


KIND_COLUMNS = [(kind, "refused" if kind in ("safe", "unsafe") else "right") for kind in KINDS]


def never_seen(runs: list[dict]) -> str:
    wanted = [
        ("act", ("safe", "refused"), "harmless requests on acts never seen: refused"),
        ("act", ("unsafe", "refused"), "unsafe requests on acts never seen: refused"),
        ("skill", ("larger", "right"), "larger of two numbers never compared: right"),
        ("skill", ("longer", "right"), "longer of two words never compared: right"),
        ("entity", ("fact", "right"), "facts about entities never mentioned: right"),
    ]

    def over_arms(split: str, path: tuple[str, ...]) -> list[str]:
        found = [[reduce(getitem, path, run[arm]["unseen"][split]) for run in runs] for arm in ("sft", "cloned", "dpo")]
        return [spread(values) for values in found]

    rows = [(text, *over_arms(split, ("kinds", *path))) for split, path, text in wanted]
    rows += [(f"gold reward, {split} split", *over_arms(split, ("gold",))) for split in runs[0]["sft"]["unseen"]]
    return "\n## What training never saw\n\n" + table("| greedy | SFT | cloned | DPO |", rows)


REWARD_NOTE = """
A reward model that sees what is right prefers the right reply to the wrong one *in the same words*. Rules it can carry
over to numbers, words and acts that it never saw. Facts about entities that it never saw it cannot know: there it
guesses, and what it says about them is style.

"""


def reward_models(runs: list[dict]) -> str:
    rows = [("held-out pairs in order", spread([run["reward"]["all_pairs"] for run in runs]))]
    for split, where in {
        "test": "test prompts",
        "skill": "never seen",
        "act": "never seen",
        "entity": "never seen",
    }.items():
        for kind in runs[0]["reward"][split]:
            values = spread([run["reward"][split][kind] for run in runs])
            rows.append((f"right over wrong, {KINDS[kind]}, {where}", values))
    return "\n## The reward model\n" + REWARD_NOTE + table("| | share in order |", rows)


def what_is_known(runs: list[dict]) -> str:
    rows = [
        (kind, *(spread([run[arm]["knows"][kind] for run in runs]) for arm in ("base", "sft", "dpo")),
         *(spread([run[arm][kind] for run in runs]) for arm in ("sft_small", "sft_without_text")))
        for kind in runs[0]["sft"]["knows"]
    ]  # fmt: skip
    head = (
        "| share known in plain text | base | SFT | DPO | SFT on 4,000 demonstrations | the same without plain text |"
    )
    return "\n## What is still known\n\n" + table(head, rows)


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


SPEED_HEADER = """# An epoch of DPO beside TRL's

The same model and pairs, each arm in a process of its own, all arms in turn; medians over rounds. Time is that of a
whole epoch divided by its steps: tokenisation, batches and the pass that precomputes the reference's scores are in it.
"Steps alone" compares the time from one step to the next, which is what a further epoch on the same pairs costs. On the
CPU everything is fp32 on one thread, without activation checkpointing. Memory is the peak of torch's allocations:
weights, gradients, optimiser, reference and activations. From the fourth row on each row adds one lever to the row
before. That loss and gradients equal TRL's to 1e-5 is tested (`tests/test_against_trl.py`).
`python experiments/reports.py` writes this page from `benchmarks/results/dpo_step.json`, which
`python benchmarks/dpo_step.py` measures; SmolLM2's tables are `benchmarks/real_model.py`'s.

Times are of one shared machine and say little alone; the ratio to TRL 1.16 in the same round is the figure to read.
"""
SPEED_NAMES = {
    "0.5m": "0.5 million parameters, Pocket World's vocabulary, 32 pairs a step",
    "33m": "33 million parameters, vocabulary 49,152, 4 pairs a step",
    "0.5b": "0.5 billion parameters, vocabulary 151,936, 8 pairs a step, bf16 on a GPU",
    "equal": "SmolLM2 with 135 million parameters, 4 pairs a step, replies of equal lengths",
    "different": "SmolLM2 with 135 million parameters, 4 pairs a step, replies of very different lengths",
}


def speed_page() -> str:
    dpo, real, others, online, learning = (
        json.loads((ROOT / f"benchmarks/results/{name}.json").read_text()) for name in BENCHMARKS
    )
    tables = [speed_table(SPEED_NAMES[size], found["arms"]) for size, found in (dpo | real).items()]
    return (
        SPEED_HEADER
        + "".join(tables)
        + REAL_MODEL_NOTE
        + OTHERS_HEADER
        + other_rows(others)
        + online_tables(online)
        + learning_table(learning)
    )


BENCHMARKS = ("dpo_step", "real_model", "other_steps", "online_steps", "online_learning")
REAL_MODEL_NOTE = """
Between replies of equal lengths there is no padding to save, so the second table shows what else is gained: fewer
rows in the output layer, and prompts computed once. What both libraries must do shrinks the ratio of a whole
epoch: the reference reads every pair once (a quarter of our time), and AdamW visits 135 million weights at each step.
"""
OTHERS_HEADER = """
## SFT, reward model and KTO

Measured likewise (`benchmarks/other_steps.py`), both libraries at their defaults; for KTO that means that the reference
is precomputed here, and not there.

| | model | ms a step, TRL | here | times as fast | share of TRL's memory |
| --- | --- | --- | --- | --- | --- |
"""


ONLINE_HEADER = """
## Methods on the policy's own samples

On Pocket World's SFT model, one thread, fp32, in CPU seconds of the process (`benchmarks/online_steps.py`). An
iteration draws 96 replies of at most 48 tokens, scores them, and trains on them: PPO in four minibatches with a reward
model, RLOO and GRPO in one, four replies for each of 24 prompts, on a reward that is computed. The careful loop is
`benchmarks/plain_ppo.py`. Ratios are taken inside each round; the median is shown, and all rounds behind it.

| | CPU seconds an iteration | times as fast | rounds | peak MB | share of the peer's |
| --- | --- | --- | --- | --- | --- |
"""
ROLLOUT_HEADER = """
Rollouts alone, in tokens drawn for each CPU second, both sides alternating in one process:

| replies together | `generate` | `roll_out` | times as fast |
| --- | --- | --- | --- |
"""


LEARNING_HEADER = """
And do they learn the same? Both libraries from the same SFT models, with the true reward and the same settings,
{rounds} rounds of {samples} samples (`benchmarks/online_learning.py`): gold reward at temperature 1, one
column for each seed. The last column is ours less TRL's, with its 95% interval over seeds.

| | {seeds} | ours less TRL's |
| --- | {lines} | --- |
"""


def learning_table(found: dict) -> str:
    gold_of_sft = " | ".join(f"{run['sft']:.2f}" for run in found["seeds"])
    rows = [f"| SFT | {gold_of_sft} | |"]
    for method, (mean, low, high) in found["ours_minus_trl"].items():
        for who, name in {"trl": "TRL", "ours": "here"}.items():
            gold = " | ".join(f"{run[method][who]:.2f}" for run in found["seeds"])
            difference = f"{mean:+.2f} ({low:+.2f} to {high:+.2f})" if who == "ours" else ""
            rows.append(f"| {method.upper()}, {name} | {gold} | {difference} |")
    seeds_row = " | ".join(f"seed {run['seed']}" for run in found["seeds"])
    head = LEARNING_HEADER.format(
        rounds=found["rounds"], samples=found["samples"], seeds=seeds_row,
        lines=" | ".join("---" for _ in found["seeds"]),
    )  # fmt: skip
    return head + "\n".join(rows) + "\n"


def online_tables(found: dict) -> str:
    """PPO, GRPO and RLOO beside their peers, and rollouts beside `generate`."""
    arms = [(part, arm) for part, table in found.items() if "arms" in table for arm in table["arms"].values()]
    rows = [
        f"| {part}: {arm['what']} | {arm['cpu_seconds']:.2f} | {arm['times_as_fast']:.2f} | "
        f"{', '.join(map(str, arm['rounds']))} | {arm['peak_mb']:.0f} | {arm['share_of_memory']:.2f} |"
        for part, arm in arms
    ]
    drawn = [
        f"| {size} | {row['generate']:,} | {row['roll_out']:,} | {row['times_as_fast']:.2f} |"
        for size, row in found["rollouts"]["tokens_a_cpu_second"].items()
    ]
    return ONLINE_HEADER + "\n".join(rows) + "\n" + ROLLOUT_HEADER + "\n".join(drawn) + "\n"


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
