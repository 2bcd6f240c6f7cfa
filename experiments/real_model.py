"""Lesson 18: brevity on SmolLM2-135M, over seeds; writes results/real_model.json. Needs `course fetch smollm2`.

python experiments/real_model.py --seeds 0 1 2 3 4      about 9 minutes a seed on one core
python experiments/real_model.py --arms rloo            this one alone

What an earlier run has measured is kept, so that the same command goes on where one was stopped.

What is asked and how replies are judged stands in `course_lib.lessons`, in `questions` and `short_answers`; what is
compared stands in protocol.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from statistics import fmean

import torch
from measures import rounded
from results_io import FOLDER, add_seed
from tqdm import tqdm

from course_lib import load_policy, sample
from course_lib.lessons.questions import HELD_OUT, STATEMENTS, TRAINING
from course_lib.lessons.short_answers import (
    ASKED,
    PREFERENCES,
    REPLY_TOKENS,
    SAMPLES,
    SHOWN_TOKENS,
    TEMPERATURE,
    brevity_reward,
    brief_dpo,
    brief_rloo,
    brief_sft,
    half_turned,
    hand_written_pairs,
    own_pairs,
)
from course_lib.rollouts import Decoding, merged_adapters, roll_out
from course_lib.trainers import GroupTrainer, PreferenceTrainer, SFTTrainer

RANK = 16
UNTRAINED = ("start", *(f"asked, {wish}" for wish in ASKED))
ARMS = ("dpo", "rloo", "hand-written", "half turned", "sft on best")
Train = Callable[[object, object], list[dict]]  # trains a policy in place, and gives its history


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), help="run these alone")
    options = parser.parse_args()
    for seed in options.seeds:
        before = measured_before()
        untrained, here = next(iter(before.values()), {}), before.get(seed, {"seed": seed})
        if "samples" not in here:
            policy, tokenizer = fresh(seed)
            here |= {name: untrained[name] for name in UNTRAINED if name in untrained} or as_it_is(policy, tokenizer)
            here["samples"] = drawn(policy, tokenizer, seed)
            add_seed("real_model", here)
        missing = [name for name in options.arms if name not in here]
        train = arms(here["samples"]["pairs"], seed)
        for name in tqdm(missing, desc=f"seed {seed}", mininterval=30):
            add_seed("real_model", {"seed": seed, name: measured(train[name], seed)}, to_earlier=True)


def measured_before() -> dict[int, dict]:
    """What earlier runs have left, by seed: it is not measured again."""
    path = FOLDER / "real_model.json"
    return {run["seed"]: run for run in json.loads(path.read_text())["seeds"]} if path.exists() else {}


def as_it_is(policy, tokenizer) -> dict:
    """The model without training, and asked by a system prompt: the same for all seeds."""
    asked = {f"asked, {wish}": {"replies": greedy(policy, tokenizer, told)} for wish, told in ASKED.items()}
    return {"start": described(policy, tokenizer)} | asked


def drawn(policy, tokenizer, seed: int) -> dict:
    """The samples' pairs, how many questions each preference tells apart, and the share that ended by itself."""
    replies, ended = samples(policy, tokenizer, seed)
    return {"pairs": own_pairs(TRAINING, replies, ended), "varied": varied(replies), "ended": round(fmean(ended), 4)}


def fresh(seed: int):
    """The model with new adapters, which do nothing yet; the seed draws their start."""
    torch.manual_seed(seed)
    return load_policy("smollm2", lora_rank=RANK)


def samples(policy, tokenizer, seed: int) -> tuple[list[str], list[bool]]:
    rollout = roll_out(
        policy, tokenizer, [question.prompt for question in TRAINING], n=SAMPLES, max_new_tokens=REPLY_TOKENS,
        decoding=Decoding(TEMPERATURE), seed=seed,
    )  # fmt: skip
    return rollout.texts, rollout.ended.tolist()


def arms(pairs: list[dict], seed: int) -> dict[str, Train]:
    written, turned = hand_written_pairs(), half_turned(pairs, seed=seed)
    best = [{"prompt": pair["prompt"], "completion": pair["chosen"]} for pair in pairs]
    asked = [{"prompt": question.prompt} for question in TRAINING]

    def dpo(records: Sequence[dict]) -> Train:
        config = brief_dpo(records, seed)
        return lambda policy, tokenizer: PreferenceTrainer(
            policy, tokenizer, records, config, reference="precomputed"
        ).train().rows  # fmt: skip

    return {
        "dpo": dpo(pairs),
        "sft on best": lambda policy, tokenizer: (
            SFTTrainer(policy, tokenizer, best, brief_sft(best, seed)).train().rows
        ),
        "half turned": dpo(turned),
        "hand-written": dpo(written),
        "rloo": lambda policy, tokenizer: (
            GroupTrainer(policy, tokenizer, asked, brief_rloo(seed), reward=brevity_reward).train().rows
        ),
    }


def measured(train: Train, seed: int) -> dict:
    policy, tokenizer = fresh(seed)
    began = time.process_time()
    rows = train(policy, tokenizer)
    seconds = time.process_time() - began
    kept = ("loss", "rewards/chosen", "rewards/rejected", "rewards/margins", "objective/scores", "objective/kl")
    history = [rounded({name: row[name] for name in kept if name in row}) for row in rows]
    return described(policy, tokenizer) | {"history": history, "cpu_seconds": round(seconds, 1)}


def described(policy, tokenizer) -> dict:
    return {"replies": greedy(policy, tokenizer), "knows": round(knows(policy, tokenizer), 4)}


def greedy(policy, tokenizer, system: str = "") -> list[str]:
    """Greedy replies to the held-out questions, in their order, with a system prompt in place of the model's own."""
    told = [{"role": "system", "content": system}] if system else []
    with merged_adapters(policy):
        prompts = [told + question.prompt for question in HELD_OUT]
        return sample(policy, tokenizer, prompts, temperature=0, max_new_tokens=SHOWN_TOKENS)


@torch.inference_mode()
def knows(policy, tokenizer) -> float:
    """The share of plain-text beginnings after which the true end's first token is likelier than the false one's."""
    right = []
    for beginning, *ends in STATEMENTS:
        true, false = (tokenizer(f" {end}")["input_ids"][0] for end in ends)
        logits = policy(**tokenizer(beginning, return_tensors="pt")).logits[0, -1]
        right.append(float(logits[true] > logits[false]))
    return fmean(right)


def varied(replies: list[str]) -> dict[str, int]:
    """For each preference, the questions whose samples it tells apart: all that it could make pairs of."""
    groups = [replies[i : i + SAMPLES] for i in range(0, len(replies), SAMPLES)]
    return {
        name: sum(len({score(q, reply) for reply in group}) > 1 for q, group in zip(TRAINING, groups, strict=True))
        for name, score in PREFERENCES.items()
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
