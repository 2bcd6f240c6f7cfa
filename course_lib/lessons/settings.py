"""Settings that the lessons and their experiments share, so that both run the same thing."""

from __future__ import annotations

from torch import Tensor

from course_lib.losses import dpo_loss
from course_lib.trainers import KTOConfig, PreferenceConfig, TrainingConfig

DPO_PAIRS = 4_000
LENGTH_BIAS = 0.3  # nats per token that annotators with a liking for length add to a response's score
TUNED = {  # what did best on the tuning seeds, on Pocket World's clean labels; see experiments/protocol.md
    "dpo": {"learning_rate": 3e-4, "beta": 0.1},
    "ipo": {"learning_rate": 3e-4, "beta": 0.03},
    "kto": {"learning_rate": 1e-4, "beta": 0.3},
    "simpo": {"learning_rate": 3e-4, "beta": 1.0},
    "cloned": {"learning_rate": 1e-3, "epochs": 4},
    "ppo": {"learning_rate": 1e-4, "kl_coefficient": 1.0},
    "rloo": {"learning_rate": 3e-4, "kl_coefficient": 1.0},
    "grpo": {"learning_rate": 1e-4, "kl_coefficient": 0.1},
    "online-dpo": {"learning_rate": 1e-4, "kl_coefficient": 0.3},
}

LONG_RUN = {"learning_rate": 1e-4, "epochs": 2}  # what lesson 04's DPO changes of that, having twice the pairs


def dpo_config(seed: int = 0, **changes) -> PreferenceConfig:
    """The course's DPO run on Pocket World."""
    return PreferenceConfig(**_settings("dpo", seed, changes))


def kto_config(seed: int = 0, **changes) -> KTOConfig:
    """The course's KTO run on Pocket World."""
    return KTOConfig(**_settings("kto", seed, changes))


def cloning_config(seed: int = 0, **changes) -> TrainingConfig:
    """The course's SFT on chosen replies."""
    return TrainingConfig(**_settings("cloned", seed, changes))


def judge_config(seed: int = 0) -> TrainingConfig:
    """Lesson 10's judge: SFT on people's choices between two replies, asked in words."""
    return TrainingConfig(
        learning_rate=3e-3, batch_size=64, epochs=2, schedule="cosine", seed=seed, log_every=10, progress=False
    )


def _settings(method: str, seed: int, changes: dict) -> dict:
    return {"batch_size": 32, "epochs": 1, "seed": seed, "progress": False} | TUNED[method] | changes


def dpo_with_sft(
    policy_chosen: Tensor, policy_rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, *, beta, reduction
) -> Tensor:
    """DPO, plus a tenth of the chosen responses' negative log-likelihood: a cure for displacement.

        L = DPO - 0.1 * logp_pi(y_w)

    Source: Pang et al. 2024, Iterative reasoning preference optimization, section 2 (there with the mean over tokens).
    """
    losses = dpo_loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta=beta, reduction="none")
    losses = losses - 0.1 * policy_chosen
    return losses if reduction == "none" else getattr(losses, reduction)()
