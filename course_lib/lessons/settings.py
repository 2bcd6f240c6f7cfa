"""Settings that the lessons and their experiments share, so that both run the same thing."""

from __future__ import annotations

from torch import Tensor

from course_lib.losses import dpo_loss
from course_lib.trainers import KTOConfig, PreferenceConfig, TrainingConfig

DPO_PAIRS = 4_000
TUNED = {  # what did best on the tuning seeds; see experiments/protocol.md
    "dpo": {"learning_rate": 1e-4, "beta": 0.3},
}
CLONING = TrainingConfig(learning_rate=3e-4, batch_size=32, progress=False)  # SFT on chosen replies
LENGTH_BIAS = 0.3  # nats a token that annotators with a liking for length add to a response's score


def dpo_config(seed: int = 0, **changes) -> PreferenceConfig:
    """The course's DPO run on Pocket World."""
    return PreferenceConfig(**_settings(seed, {"beta": 0.3} | changes))


def kto_config(seed: int = 0, **changes) -> KTOConfig:
    """The course's KTO run on Pocket World."""
    return KTOConfig(**_settings(seed, {"beta": 0.3} | changes))


def _settings(seed: int, changes: dict) -> dict:
    return {"learning_rate": 1e-4, "batch_size": 32, "epochs": 1, "seed": seed, "progress": False} | changes


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
