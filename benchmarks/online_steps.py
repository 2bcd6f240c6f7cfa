"""Rollouts, PPO, GRPO and RLOO beside their peers, in CPU seconds and peak memory; writes results/online_steps.json.

python benchmarks/online_steps.py                    all of it, about ten minutes on a quiet core
python benchmarks/online_steps.py --parts rollouts   these alone, added to what was measured before

All on Pocket World's SFT model, one thread, fp32. Arms run in processes of their own, in turn; ratios are taken inside
each round, and medians over rounds are shown. CPU seconds are those of the process, so that a busy machine counts less.
Rollouts of both sides alternate inside one process, batch by batch.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from pathlib import Path

from harness import in_own_process, traced_peak

RESULTS = Path(__file__).parent / "results" / "online_steps.json"
NEW_TOKENS, WARM_UP, ITERATIONS, RATE = 48, 1, 6, 1e-5
ARMS = {
    "ppo": {"plain": "a careful loop on generate", "ours": "PPOTrainer", "shared": "PPOTrainer, a shared critic"},
    "grpo": {"trl": "TRL's GRPOTrainer", "ours": "GroupTrainer"},
    "rloo": {"trl": "TRL's RLOOTrainer", "ours": "GroupTrainer"},
}
BATCHES = (1, 16, 96, 256)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=[*ARMS, "rollouts"], default=[*ARMS, "rollouts"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--arm", help="run this arm of the one part alone, in this process, and print its figures")
    options = parser.parse_args()
    if options.arm:
        import torch

        torch.set_num_threads(1)
        part = options.parts[0]
        print(json.dumps(rollouts(options.rounds) if part == "rollouts" else one_arm(part, options.arm)))
        return
    for part in options.parts:
        if part == "rollouts":
            found = in_own_process(__file__, "--parts", part, "--arm", "both", "--rounds", str(options.rounds))
        else:
            choice = ("--parts", part, "--arm")
            rounds = [
                {arm: in_own_process(__file__, *choice, arm) for arm in ARMS[part]} for _ in range(options.rounds)
            ]
            found = summary(part, rounds)
        keep(part, found)
        print(part, json.dumps(found, indent=1))


def keep(part: str, found: dict) -> None:
    from course_lib.machine import description

    whole = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    whole[part] = {"machine": description() | {"threads": 1}} | found
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(whole, indent=1) + "\n")


def summary(part: str, rounds: list[dict]) -> dict:
    """Medians over rounds; ratios to the first arm are taken inside each round."""
    peer = next(iter(ARMS[part]))
    found = {}
    for arm, what in ARMS[part].items():
        row = {"what": what}
        row |= {k: round(statistics.median(r[arm][k] for r in rounds), 3) for k in ("cpu_seconds", "peak_mb", "score")}
        ratios = [r[peer]["cpu_seconds"] / r[arm]["cpu_seconds"] for r in rounds]
        row["times_as_fast"] = round(statistics.median(ratios), 2)
        row["rounds"] = [round(x, 2) for x in ratios]
        memory = [r[arm]["peak_mb"] / r[peer]["peak_mb"] for r in rounds]
        row["share_of_memory"] = round(statistics.median(memory), 2)
        found[arm] = row
    return {"arms": found}


def one_arm(part: str, arm: str) -> dict:
    """CPU seconds of an iteration after a warm-up, the mean reward, and the peak of two iterations."""
    run = RUNS[part, arm]
    run(WARM_UP)
    short, _ = cpu_seconds(lambda: run(WARM_UP))
    long, score = cpu_seconds(lambda: run(WARM_UP + ITERATIONS))
    peak = traced_peak(lambda: run(2))
    return {"cpu_seconds": (long - short) / ITERATIONS, "peak_mb": peak / 2**20, "score": score}


def cpu_seconds(work) -> tuple[float, float]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def models():
    from course_lib import load_policy, load_reward_model

    policy, tokenizer = load_policy("pocket-world-sft")
    return policy, load_reward_model()[0], tokenizer


def prompts(n: int) -> list:
    from course_lib import world

    return world.prompts("train", n, seed=3)


def plain_ppo(iterations: int) -> float:
    import torch
    from plain_ppo import PlainPPO

    torch.manual_seed(0)
    policy, reward, tokenizer = models()
    loop = PlainPPO(policy, reward, tokenizer, rate=RATE, kl=0.05, minibatches=4, new_tokens=NEW_TOKENS)
    asked = prompts(96 * iterations)
    return statistics.fmean(loop.iteration(asked[96 * i : 96 * (i + 1)]) for i in range(iterations))


def our_ppo(iterations: int, critic: str = "separate") -> float:
    from course_lib.rewards import learned_reward
    from course_lib.trainers import PPOConfig, PPOTrainer

    policy, reward, tokenizer = models()
    config = PPOConfig(
        learning_rate=RATE, batch_size=24, prompts_per_rollout=96, max_new_tokens=NEW_TOKENS, kl_coefficient=0.05,
        critic=critic, progress=False, log_every=1,
    )  # fmt: skip
    records = [{"prompt": prompt} for prompt in prompts(96 * iterations)]
    trainer = PPOTrainer(policy, tokenizer, records, config, reward=learned_reward(reward, tokenizer))
    return statistics.fmean(row["objective/scores"] for row in trainer.train().rows)


def gold(prompts, completions, **_) -> list[float]:
    from course_lib import world

    return world.gold_reward(prompts, completions).tolist()


def trl_group(method: str, iterations: int) -> float:
    import trl
    from datasets import Dataset

    policy, _, tokenizer = models()
    make, config = {"grpo": (trl.GRPOTrainer, trl.GRPOConfig), "rloo": (trl.RLOOTrainer, trl.RLOOConfig)}[method]
    with tempfile.TemporaryDirectory() as folder:
        settings = config(
            output_dir=folder, per_device_train_batch_size=96, num_generations=4, max_completion_length=NEW_TOKENS,
            max_steps=iterations, learning_rate=RATE, beta=0.05, temperature=1.0, report_to=[], save_strategy="no",
            disable_tqdm=True, use_cpu=True, bf16=False, activation_checkpointing=False, logging_steps=1,
            lr_scheduler_type="constant",
        )  # fmt: skip
        data = Dataset.from_list([{"prompt": prompt} for prompt in prompts(24 * iterations)])
        trainer = make(
            model=policy, reward_funcs=gold, args=settings, train_dataset=data, processing_class=tokenizer
        )  # fmt: skip
        trainer.train()
    return statistics.fmean(row["reward"] for row in trainer.state.log_history if "reward" in row)


def our_group(method: str, iterations: int) -> float:
    from course_lib import world
    from course_lib.trainers import GroupConfig, GroupTrainer

    policy, _, tokenizer = models()
    config = GroupConfig(
        loss=method, learning_rate=RATE, batch_size=96, prompts_per_rollout=24, completions=4,
        max_new_tokens=NEW_TOKENS, kl_coefficient=0.05, progress=False, log_every=1,
    )  # fmt: skip
    records = [{"prompt": prompt} for prompt in prompts(24 * iterations)]
    trainer = GroupTrainer(policy, tokenizer, records, config, reward=world.gold_reward)
    return statistics.fmean(row["objective/scores"] for row in trainer.train().rows)


RUNS = {
    ("ppo", "plain"): plain_ppo,
    ("ppo", "ours"): our_ppo,
    ("ppo", "shared"): lambda iterations: our_ppo(iterations, "shared"),
    ("grpo", "trl"): lambda iterations: trl_group("grpo", iterations),
    ("grpo", "ours"): lambda iterations: our_group("grpo", iterations),
    ("rloo", "trl"): lambda iterations: trl_group("rloo", iterations),
    ("rloo", "ours"): lambda iterations: our_group("rloo", iterations),
}


def rollouts(rounds: int) -> dict:
    """Tokens sampled for each CPU second by `generate` and by `roll_out`, alternating, at several batch sizes."""
    import torch

    from course_lib.rollouts import roll_out

    policy, _, tokenizer = models()
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id

    def theirs(asked: list) -> int:
        texts = [tokenizer.apply_chat_template(p, add_generation_prompt=True, tokenize=False) for p in asked]
        inputs = tokenizer(texts, add_special_tokens=False, padding=True, padding_side="left", return_tensors="pt")
        with torch.inference_mode():
            ids = policy.generate(
                **{k: inputs[k] for k in ("input_ids", "attention_mask")}, do_sample=True, temperature=1.0, top_k=0,
                top_p=1.0, max_new_tokens=NEW_TOKENS, pad_token_id=pad,
            )  # fmt: skip
        said = ids[:, inputs["input_ids"].shape[1] :] == eos
        return int((said.long().cumsum(1) - said.long() == 0).sum())

    def ours(asked: list) -> int:
        found = roll_out(policy, tokenizer, asked, max_new_tokens=NEW_TOKENS, seed=random.randrange(2**31))
        return int(found.lengths.sum())

    table = {}
    for size in BATCHES:
        asked, times = prompts(size * 8), {"generate": [], "roll_out": []}
        repeats = {1: 8, 16: 4, 96: 2, 256: 1}[size]
        for number in range(rounds + 1):  # the first round warms up
            for name, draw in {"generate": theirs, "roll_out": ours}.items():
                start, tokens = time.process_time(), 0
                for i in range(repeats):
                    tokens += draw(asked[i * size : (i + 1) * size])
                if number:
                    times[name].append(tokens / (time.process_time() - start))
        ratios = [b / a for a, b in zip(times["generate"], times["roll_out"], strict=True)]
        table[str(size)] = {name: round(statistics.median(values)) for name, values in times.items()}
        table[str(size)] |= {"times_as_fast": round(statistics.median(ratios), 2)}
    return {"tokens_a_cpu_second": table}


if __name__ == "__main__":
    main()
