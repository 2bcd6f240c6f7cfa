"""RLOO and GRPO: several completions of a prompt are one another's baseline, and no critic is needed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from course_lib.losses import grpo_advantages, grpo_loss, rloo_advantages
from course_lib.losses.policy_gradient import clipped_surrogate
from course_lib.trainers.config import OnlineConfig, count, flag, number, one_of, optional, setting
from course_lib.trainers.online import OnlineTrainer


@dataclass
class GroupConfig(OnlineConfig):
    """Settings of a group method. `loss` sets the defaults of what is None.

    rloo    leave-one-out baseline, KL inside the reward, the ratio of whole completions (Ahmadian et al. 2024)
    grpo    group mean and standard deviation, k3 in the loss, mean over each completion's tokens (Shao et al. 2024)
    """

    prompts_per_rollout: int = setting(24, count(), "prompts that are rolled out together")
    completions: int = setting(4, count(2), "completions of each prompt")
    batch_size: int = setting(96, count(), "completions of an optimiser step")
    loss: str = setting("grpo", one_of("grpo", "rloo"), "how advantages and ratios are formed")
    scale_by_std: bool | None = setting(None, optional(flag), "divide by the group's deviation; None: grpo does")
    normalise: str | None = setting(
        None, optional(one_of("completion", "token", "constant")),
        "mean over a completion's tokens (GRPO), over all tokens (DAPO), or by a constant (Dr. GRPO); None: GRPO's",
    )  # fmt: skip
    kl_estimator: str | None = setting(
        None, optional(one_of("k2", "k3")), "of the KL in GRPO's loss; None: k3. RLOO has k1, in the reward"
    )
    clip_range: float = setting(0.2, number(above=0, below=1), "how far a ratio below 1 counts")
    stop_at_kl: float | None = setting(
        None,
        optional(number(above=0)),
        "nats a token of movement after which a new rollout is drawn",
    )
    clip_range_high: float | None = setting(None, optional(number(above=0)), "and above 1 (DAPO: 0.28); None: the same")

    def __post_init__(self):
        super().__post_init__()
        for name in ("normalise", "kl_estimator"):
            if self.loss == "rloo" and getattr(self, name) is not None:
                raise ValueError(f"RLOO has whole completions and k1 in the reward, and takes no {name}; leave it out")


class GroupTrainer(OnlineTrainer):
    """`GroupTrainer(policy, tokenizer, [{"prompt"}], GroupConfig(loss="rloo"), reward=reward_function).train()`.

    A group whose completions have equal rewards has advantages of exactly 0; their share is a metric.
    """

    config_class = GroupConfig
    config: GroupConfig

    @property
    def normalise(self) -> str:
        return self.config.normalise or "completion"

    def terms(self, batch: dict[str, Tensor]) -> int:
        return int(batch["completion_mask"].sum()) if self.normalise == "token" else len(batch["scores"])

    def prepare(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, float]]:
        config = self.config
        rewards = batch["scores"]
        if config.loss == "rloo":
            rewards = rewards - self.kl_coefficient * batch["kl"]
        groups = rewards.view(-1, config.completions)
        if config.loss == "rloo":
            advantages = rloo_advantages(groups)
            if config.scale_by_std:
                advantages = advantages / groups.std(dim=1, keepdim=True).clamp(min=1e-4)
        else:
            advantages = grpo_advantages(groups, scale=config.scale_by_std is not False)
        scores = batch["scores"].view(-1, config.completions)
        equal = (scores == scores[:, :1]).all(dim=1).float().mean().item()
        return batch | {"advantages": advantages.flatten()}, {"groups/all_equal": equal}

    def loss(self, policy, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        config, mask = self.config, batch["completion_mask"]
        logps = self.logps(policy, batch)
        high = config.clip_range_high or config.clip_range
        if config.loss == "rloo":  # one ratio for the whole completion
            now, before = (t.sum(dim=1, keepdim=True) for t in (logps, batch["old_logps"]))
            whole = torch.ones_like(now, dtype=torch.bool)
            losses = clipped_surrogate(now, before, batch["advantages"][:, None], whole, config.clip_range, high)[:, 0]
        else:
            losses = grpo_loss(
                logps, batch["old_logps"], batch["advantages"], mask, ref_logps=batch["ref_logps"],
                beta=self.kl_coefficient, clip_range=config.clip_range, clip_range_high=high,
                normalise=float(config.max_new_tokens) if self.normalise == "constant" else self.normalise,
                kl_estimator=config.kl_estimator or "k3", reduction="none",
            )  # fmt: skip
        return losses.sum(), self.update_metrics(
            logps, batch, config.clip_range, high, whole=config.loss == "rloo"
        ) | self.of_rollout
