"""DPO on SmolLM2-135M here against TRL's, on pairs of equal and of very different lengths.

python benchmarks/real_model.py      after `course fetch smollm2`; about 15 minutes on the CPU, one thread

Writes results/real_model.json. As in `dpo_step.py`, whose arms these are: an epoch in a process of its own, arms in
turn, medians over rounds, ratios inside each round. All weights are trained, in fp32. Pairs of equal lengths have no
padding to save, and long prompts would favour whoever shares them: these are short.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from dpo_step import our_run, trl_run
from harness import THREADS, in_own_process, measure, summary, table, timed

from course_lib import load_policy
from course_lib.machine import description

RESULTS = Path(__file__).parent / "results" / "real_model.json"
ARMS = {"trl": "TRL's DPOTrainer", "shared": "PreferenceTrainer as it is"}
WORDS = ("the", "answer", "is", "short", "clear", "and", "people", "like", "to", "read", "it", "again", "by", "day")
SENTENCES = {"equal": (24, 24), "different": (6, 96)}  # words of the two replies: both sides, or the least and the most
SPEC = {"pairs": 4, "steps": 8}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--arm", choices=ARMS, help="run this arm alone, in this process, and print its figures")
    parser.add_argument("--lengths", choices=SENTENCES, nargs="+", default=list(SENTENCES))
    options = parser.parse_args()
    if options.arm:
        print(json.dumps(one_arm(options.arm, options.lengths[0])))
        return
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for lengths in options.lengths:
        rounds = [
            {arm: in_own_process(__file__, "--lengths", lengths, "--arm", arm) for arm in ARMS}
            for _ in range(options.rounds)
        ]
        found[lengths] = {"machine": description() | {"threads": THREADS}, "arms": summary(rounds, ARMS, "trl")}
        print(table(f"replies of {lengths} lengths", found[lengths]["arms"]))
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")


def one_arm(arm: str, lengths: str) -> dict:
    run, stamps = trl_run if arm == "trl" else our_run, []

    def epoch(steps: int) -> tuple[float, float]:
        stamps.append([])
        model, tokenizer = load_policy("smollm2")
        return timed(
            lambda: run(model.train(), tokenizer, pairs(steps * SPEC["pairs"], lengths), SPEC, arm, stamps[-1])
        )

    figures = measure(epoch, SPEC["steps"])
    _, timed_epoch, *_ = stamps
    return figures | {"step_milliseconds": 1000 * (timed_epoch[-1] - timed_epoch[0]) / (len(timed_epoch) - 1)}


def pairs(count: int, lengths: str) -> list[dict]:
    """Pairs as chat messages, with two replies of so many words each: always the same pairs."""
    draw, (least, most) = random.Random(0), SENTENCES[lengths]

    def reply(place: int) -> list[dict]:
        words = draw.choices(WORDS, k=least if place == 0 else most)
        return [{"role": "assistant", "content": " ".join(words) + "."}]

    rows = []
    for number in range(count):
        sides = [reply(0), reply(1)]
        draw.shuffle(sides)
        asked = [{"role": "user", "content": f"Say something about the number {number}."}]
        rows.append({"prompt": asked, "chosen": sides[0], "rejected": sides[1]})
    return rows


if __name__ == "__main__":
    main()
