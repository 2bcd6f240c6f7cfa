"""PPO and DPO at matched KL: gold reward against distance from the SFT model; writes results/matched_kl.json.

python experiments/matched_kl.py --seeds 0 1 2        about 12 minutes a seed on one core

Both start from the SFT model that `pocket_world.py` left in its folder. DPO sees the lesson's pairs; PPO is
scored by the reward model, which saw more pairs of the same kind. Rewards are in the units of the pairs'
log-odds, so one beta means the same pull in both. PPO here is the textbook loop, for this comparison alone.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path

import torch
from measures import encode, kl
from results_io import add_seed
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm
from transformers import AutoModelForTokenClassification

from course_lib import completion_logps, load_policy, load_reward_model, rewards, sample, world
from course_lib.lessons.settings import DPO_PAIRS, dpo_config
from course_lib.logprobs import position_ids
from course_lib.losses import (
    generalized_advantage_estimate,
    kl_shaped_rewards,
    ppo_policy_loss,
    ppo_value_loss,
    whiten,
)
from course_lib.trainers import PreferenceTrainer

DPO_BETAS = [0.3, 1.0]
PPO_BETAS = [0.3, 0.6, 1.0, 2.0]
ITERATIONS, PROMPTS, MINIBATCH = 40, 128, 32
POLICY_RATE, CRITIC_RATE = 2e-4, 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--models", type=Path, default=Path("runs/pocket_world"))
    options = parser.parse_args()
    for seed in options.seeds:
        add_seed("matched_kl", one_seed(seed, options.models / str(seed)))


def one_seed(seed: int, folder: Path) -> dict:
    sft, tokenizer = load_policy(str(folder / "sft"))
    proxy = rewards.learned_reward(load_reward_model(str(folder / "reward"))[0], tokenizer)
    result = {"seed": seed, "sft": against_proxy(sft, sft, tokenizer, proxy), "dpo": {}, "ppo": {}}
    for method, betas in (("dpo", DPO_BETAS), ("ppo", PPO_BETAS)):
        for beta in betas:
            start, curve = time.perf_counter(), {}
            if method == "dpo":
                policy = dpo(sft, tokenizer, beta, seed)
            else:
                policy, curve["curve"] = ppo(sft, tokenizer, proxy, folder / "sft", beta, seed)
            seconds = {"seconds": round(time.perf_counter() - start, 1)}
            result[method][str(beta)] = against_proxy(policy, sft, tokenizer, proxy) | seconds | curve
    return result


@torch.no_grad()
def against_proxy(policy, sft, tokenizer, proxy) -> dict:
    """Sampled at temperature 1 on the test prompts: gold reward, the proxy's, and KL in nats a response."""
    prompts = world.prompts("test", 1000)
    texts = sample(policy, tokenizer, prompts, temperature=1.0, seed=1)
    greedy = sample(policy, tokenizer, prompts, temperature=0.0)
    return {
        "kl": kl(policy, sft, tokenizer, prompts, texts),
        "gold": world.gold_reward(prompts, texts).mean().item(),
        "gold_greedy": world.gold_reward(prompts, greedy).mean().item(),
        "proxy": proxy(prompts, texts).mean().item(),
        "tokens": encode(prompts, texts, tokenizer)["completion_mask"].sum(dim=1).float().mean().item(),
    }


def dpo(sft, tokenizer, beta: float, seed: int):
    policy, pairs = copy.deepcopy(sft), world.preference_records(DPO_PAIRS, seed=seed)
    PreferenceTrainer(policy, tokenizer, pairs, dpo_config(seed, beta=beta)).train()
    return policy


def ppo(sft, tokenizer, proxy, sft_folder: Path, beta: float, seed: int):
    """The policy after `ITERATIONS` rounds of rollout and update, and its curve."""
    torch.manual_seed(seed)
    policy = copy.deepcopy(sft)
    critic = AutoModelForTokenClassification.from_pretrained(sft_folder, num_labels=1)
    torch.nn.init.zeros_(critic.score.weight)
    optimizer = torch.optim.AdamW(
        [{"params": policy.parameters(), "lr": POLICY_RATE}, {"params": critic.parameters(), "lr": CRITIC_RATE}],
        weight_decay=0.0,
        fused=True,
    )
    asked, curve = world.prompts("train", 15 * PROMPTS, seed=seed), []
    for iteration in tqdm(range(ITERATIONS), desc=f"PPO beta {beta}", mininterval=30):
        here = iteration * PROMPTS % len(asked)
        rollout = roll_out(policy, sft, critic, tokenizer, asked[here : here + PROMPTS], proxy, beta, 1000 + iteration)
        for rows in torch.randperm(PROMPTS).split(MINIBATCH):
            update(policy, critic, optimizer, {k: v[rows] for k, v in rollout.items()})
        curve.append({name: rollout[name].mean().item() for name in ("scores", "gold", "kl")})
    return policy.eval(), curve


@torch.no_grad()
def roll_out(policy, sft, critic, tokenizer, prompts, proxy, beta: float, seed: int) -> dict[str, torch.Tensor]:
    texts = sample(policy, tokenizer, prompts, temperature=1.0, seed=seed)
    batch = encode(prompts, texts, tokenizer)
    logps, mask = completion_logps(policy, **batch)
    ref_logps, _ = completion_logps(sft, **batch)
    values = values_of(critic, batch)
    scores = proxy(prompts, texts)
    shaped = kl_shaped_rewards(scores, logps, ref_logps, mask, kl_coefficient=beta)
    advantages, returns = generalized_advantage_estimate(shaped, values, mask)
    return batch | {
        "mask": mask,
        "logps": logps,
        "values": values,
        "returns": returns,
        "advantages": whiten(advantages, mask),
        "scores": scores,
        "gold": world.gold_reward(prompts, texts),
        "kl": (logps - ref_logps).sum(dim=1),
    }


def update(policy, critic, optimizer, part: dict[str, torch.Tensor]) -> None:
    batch = {name: part[name] for name in ("input_ids", "attention_mask", "completion_mask")}
    logps, mask = completion_logps(policy, **batch)
    loss = ppo_policy_loss(logps, part["logps"], part["advantages"], mask)
    loss = loss + 0.5 * ppo_value_loss(values_of(critic, batch), part["values"], part["returns"], mask, clip_range=0.9)
    loss.backward()
    clip_grad_norm_(policy.parameters(), 1.0)
    clip_grad_norm_(critic.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def values_of(critic, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """The critic's value before each token: what it says at the token before."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    values = critic(**inputs, position_ids=position_ids(batch["attention_mask"])).logits.squeeze(-1)
    return torch.cat([torch.zeros_like(values[:, :1]), values[:, :-1]], dim=1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
