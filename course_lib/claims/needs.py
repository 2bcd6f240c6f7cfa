"""Claims about what a method needs, data and models: asked of the trainers and of the calculator."""

from __future__ import annotations

from course_lib.claims.judging import DEPENDS, Claim, Judgement, of_parts
from course_lib.memory import estimate_memory

HELD = {"ppo": 4, "dpo": 2, "ipo": 2, "kto": 2, "simpo": 1}  # models, as claimed
FEWER = {  # arrangements that hold fewer
    "ppo": {"lora_rank": 16, "critic": "shared", "reward_model": False},
    "dpo": {"reference": "precomputed"},
}


def records() -> Judgement:
    from course_lib import trainers

    takes = {
        "PPO takes bare prompts": (trainers.PPOTrainer, "prompt"),
        "its reward model takes pairs": (trainers.RewardTrainer, "preference"),
        "DPO, IPO and SimPO take pairs": (trainers.PreferenceTrainer, "preference"),
        "KTO takes single replies with a thumb": (trainers.KTOTrainer, "unpaired"),
    }
    kinds = {trainer.__name__: trainer.record_kind for trainer, _ in takes.values()}
    figure = "what the trainers' records are: " + ", ".join(f"{name} {kind}" for name, kind in kinds.items())
    return of_parts({says: trainer.record_kind == kind for says, (trainer, kind) in takes.items()}, figure)


def held(method: str, **arrangement) -> int:
    """How many models a method holds."""
    return len(estimate_memory("llama-3-8b", method, **arrangement).by_role)


def models() -> Judgement:
    fewer = {method: held(method, **arrangement) for method, arrangement in FEWER.items()}
    parts = {
        "if each model is a copy of its own, PPO holds 4, DPO, IPO and KTO 2, SimPO 1": all(
            held(method) == n for method, n in HELD.items()
        ),
        "PPO and DPO cannot do with fewer": all(fewer[method] >= HELD[method] for method in fewer),
    }
    figure = (
        f"PPO holds {fewer['ppo']} with adapters, a critic on the policy and a reward by a function; DPO "
        f"{fewer['dpo']} with the reference's log-probabilities computed before"
    )
    return of_parts(parts, figure, mixed=DEPENDS + "arrangement")


CLAIMS = [
    Claim(
        "P2",
        "P2: PPO takes pairs for the reward model and bare prompts for the loop; DPO, IPO, SimPO take pairs; KTO takes "
        "single responses with a yes or no",
        "A, B",
        "what the course's trainers ask for",
        records,
        ("02", "08"),
    ),
    Claim(
        "P3",
        "P3: models held in memory: PPO 4, DPO, IPO and KTO 2, SimPO 1",
        "A, B",
        "models that the calculator counts, which tests hold against real steps, plainly and at the leanest",
        models,
        ("08",),
    ),
]
