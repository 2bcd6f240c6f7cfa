"""Lesson 11: two objectives at once, over seeds; writes results/objectives.json.

python experiments/objectives.py --seeds 0 1 2 3 4      about 8 minutes a seed on one core

One objective is to answer whatever is asked, the other to do no harm. A share says how much the first one weighs:

- "ppo W": PPO on the weighted sum of both rewards;
- "labels W": DPO on pairs, labelled by people who feel that weighted sum;
- "mixed W": DPO on the same pairs, a share of them labelled by people who want the first objective alone, the rest by
  people who want the second alone: where they disagree, pairs contradict each other;
- "soup W": the weights of the two DPO policies of one objective each, averaged, without training.
"""

from __future__ import annotations

import argparse
import copy

import torch
from arms import PAIRS
from arms import train as train_dpo
from measures import DRAWS, by_kind, kl, rounded
from online_arms import train as train_online
from pandas import concat
from results_io import add_seed
from seed_models import base_and_sft
from tqdm import tqdm

from course_lib import evaluation, world

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
BETWEEN = SHARES[1:-1]
PROMPTS = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    options = parser.parse_args()
    for seed in options.seeds:
        _, sft, tokenizer = base_and_sft(seed)
        result = {"seed": seed, "sft": outcome(sft, sft, tokenizer)}
        for name, policy in tqdm(arms(sft, tokenizer, seed), desc=f"seed {seed}", mininterval=30):
            result[name] = outcome(policy, sft, tokenizer)
            add_seed("objectives", result, to_earlier=True)


def arms(sft, tokenizer, seed: int):
    """Name and policy of each arm, one after the other."""
    pairs = world.preference_records(PAIRS, seed=seed)
    ends = {}
    for share in SHARES:
        labelled = world.relabelled(pairs, world.sum_of_objectives(share), scale=1.0, seed=seed)
        policy, _ = train_dpo(sft, tokenizer, seed, 0, records=labelled)
        if share not in BETWEEN:
            ends[share] = policy
        yield f"labels {share:g}", policy
    for share in BETWEEN:
        yield (
            f"mixed {share:g}",
            train_dpo(sft, tokenizer, seed, 0, records=world.mixed_labels(pairs, share, seed=seed))[0],
        )
        yield f"soup {share:g}", soup(ends[1.0], ends[0.0], share)
    for share in SHARES:
        yield f"ppo {share:g}", train_online(sft, tokenizer, seed, "ppo", world.sum_of_objectives(share))[0]


def soup(first, second, share: float):
    """A policy whose weights are `share` of the first and the rest of the second (Rame et al. 2023)."""
    policy, others = copy.deepcopy(first), second.state_dict()
    policy.load_state_dict({name: torch.lerp(others[name], w, share) for name, w in first.state_dict().items()})
    return policy


def outcome(policy, sft, tokenizer) -> dict:
    """Both objectives on test prompts: at temperature 1, two draws, and greedily; kinds, and distance from SFT."""
    asked = world.prompts("test", PROMPTS)
    drawn = [evaluation.evaluate_gold(policy, tokenizer, asked, temperature=1.0, seed=1 + i) for i in range(DRAWS)]
    greedy = evaluation.evaluate_gold(policy, tokenizer, asked)
    return rounded(
        {
            "sampled": mean_objectives(asked, drawn),
            "greedy": mean_objectives(asked, [greedy]),
            "gold_sampled": concat(drawn).gold.mean(),
            "kinds_sampled": by_kind(concat(drawn)),
            "malformed": (concat(drawn).malformed < 0).mean(),
            "kl": kl(policy, sft, tokenizer, asked, drawn[0].text),
        }
    )


def mean_objectives(asked, reports) -> dict[str, float]:
    said = [(asked, [world.assistant(text) for text in report.text]) for report in reports]
    objectives = {"helpful": world.helpful_reward, "harmless": world.harmless_reward}
    return {name: sum(score(*rows).mean().item() for rows in said) / len(said) for name, score in objectives.items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
