"""Proximal policy optimisation on a language model: actor, critic, reward and reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from course_lib.logprobs import Packed, evaluating, head_of
from course_lib.losses import (
    generalized_advantage_estimate,
    kl_estimate,
    kl_shaped_rewards,
    ppo_policy_loss,
    ppo_value_loss,
    whiten,
)
from course_lib.models import critic_of, value_head_of
from course_lib.rollouts import roll_out
from course_lib.trainers.config import OnlineConfig, count, flag, number, one_of, optional, setting
from course_lib.trainers.online import OnlineTrainer
from course_lib.trainers.scoring import RunningScale
from course_lib.trainers.sharded import is_sharded, whole


@dataclass
class PPOConfig(OnlineConfig):
    """Settings of PPO; each is a detail of the method that can be switched off or changed alone."""

    batch_size: int = setting(
        24, count(), "completions of an optimiser step: a rollout is cut into so large minibatches"
    )
    gamma: float = setting(1.0, number(least=0, most=1), "discount of later rewards")
    lam: float = setting(0.95, number(least=0, most=1), "bias (0) against variance (1) of advantages")
    clip_range: float = setting(0.2, number(above=0, below=1), "how far a token's probability ratio counts")
    stop_at_kl: float | None = setting(
        None,
        optional(number(above=0)),
        "nats a token of movement after which a new rollout is drawn",
    )
    value_clip_range: float = setting(
        0.9,
        number(above=0, infinite=True),
        "how far a value moves on a rollout, reward units; inf: freely",
    )
    value_coefficient: float = setting(0.5, number(above=0), "weight of the critic's loss")
    critic: str = setting("separate", one_of("separate", "shared"), "a model of its own, or a head on the policy")
    critic_learning_rate: float | None = setting(None, optional(number(above=0)), "None: five times the policy's")
    critic_warmup: int = setting(0, count(0), "rollouts in which the critic alone learns")
    kl_estimator: str = setting("k1", one_of("k1", "k2", "k3"), "how distance is estimated; see kl_estimate")
    kl_in: str = setting("reward", one_of("reward", "loss"), "where distance from the reference is paid for")
    target_kl: float | None = setting(
        None,
        optional(number(above=0)),
        "nats per completion that the price of distance is steered to; None: fixed price",
    )
    kl_horizon: int = setting(10_000, count(), "completions over which the price is steered")
    entropy_coefficient: float = setting(0.0, number(least=0), "reward units paid for a nat of a token's entropy")
    whiten_advantages: bool = setting(True, flag, "advantages of a rollout get mean 0 and variance 1")
    whiten_rewards: bool = setting(False, flag, "rewards of a rollout get variance 1")
    scale_scores: bool = setting(False, flag, "scores get mean 0 and variance 1 over all rollouts so far")

    def __post_init__(self):
        super().__post_init__()
        if self.target_kl is not None and not self.kl_coefficient:
            raise ValueError("target_kl steers the price of distance, and kl_coefficient=0 has none; start above 0")
        if self.kl_in == "loss" and self.kl_estimator == "k1":
            raise ValueError(
                "k1 in the loss pulls nowhere: its gradient is 0 on average; set kl_estimator to 'k2' or 'k3', or "
                "kl_in to 'reward'"
            )


class PPOTrainer(OnlineTrainer):
    """`PPOTrainer(policy, tokenizer, [{"prompt"}], PPOConfig(), reward=reward_function).train()`.

    Args:
        critic: a model `(input_ids, attention_mask)` to values (B, T) before each token. By default a copy of the
            policy's body with a value head, or with `critic="shared"` in the config a head on the policy alone.

    Each rollout is drawn, scored and judged by the critic once, then gone through in minibatches. Metrics have TRL's
    former names: `objective/scores`, `objective/kl`, `policy/clipfrac_avg`, `loss/value_avg`, ...
    """

    config_class = PPOConfig
    config: PPOConfig

    def __init__(self, policy, tokenizer, records: Sequence[dict], config: PPOConfig | None = None, *, reward,
                 reference="auto", critic: torch.nn.Module | None = None, rollouts=roll_out,
                 eval_records=None):  # fmt: skip
        super().__init__(policy, tokenizer, records, config, reward=reward, reference=reference,
                         rollouts=rollouts, eval_records=eval_records)  # fmt: skip
        asks = "shared" if self.config.critic == "shared" and critic is None else self.config.entropy_coefficient
        if asks and head_of(policy) is None:
            raise ValueError(
                "a shared critic and an entropy bonus read the policy's final hidden states, and this model's output "
                "layer cannot be applied apart; set critic to 'separate' and entropy_coefficient to 0"
            )
        self.own_critic = critic is None  # with the policy's body, so that both can be given packed rows
        self.shares_trunk = critic is None and self.config.critic == "shared"
        if critic is None:
            critic = value_head_of(policy) if self.shares_trunk else critic_of(policy)
        self.critic = critic
        self.scale = RunningScale()

    def trained(self) -> dict[str, torch.nn.Module]:
        return {"policy": self.policy, "critic": self.critic}

    def before_training(self, accelerator) -> None:
        if self.config.critic_warmup and is_sharded(accelerator):
            raise ValueError("DeepSpeed moves both models in every step; set critic_warmup to 0, or train with DDP")
        super().before_training(accelerator)

    def learning_rate_of(self, name: str) -> float:
        own = self.config.critic_learning_rate
        rate = self.config.learning_rate
        return rate if name == "policy" else 5 * rate if own is None else own

    def prepare(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, float]]:
        config, mask = self.config, batch["completion_mask"]
        reader = self.policy if self.shares_trunk else self.critic
        with torch.no_grad(), evaluating(self.critic), whole(reader):
            values = self.in_parts(lambda part: self.values(self.critic, part, self.packed(part)), batch)
        values = values.masked_fill(~mask, 0.0)
        price = self.kl_coefficient if config.kl_in == "reward" else 0.0
        scores = self.scale(batch["scores"]) if config.scale_scores else batch["scores"]
        rewards = kl_shaped_rewards(
            scores, batch["old_logps"], batch["ref_logps"], mask,
            kl_coefficient=price, estimator=config.kl_estimator,
        )  # fmt: skip
        if config.whiten_rewards:
            rewards = whiten(rewards, mask, shift_mean=False)
        advantages, returns = generalized_advantage_estimate(rewards, values, mask, gamma=config.gamma, lam=config.lam)
        explained = 1 - _variance((returns - values)[mask]) / _variance(returns[mask])
        found = {"old_values": values, "returns": returns, "advantages": advantages}
        if config.whiten_advantages:
            found["advantages"] = whiten(advantages, mask)
        warming = self._batches is not None and self._batches.round < config.critic_warmup
        metrics = {
            "val/explained_variance": explained,
            "objective/kl_coefficient": self.kl_coefficient,
            "policy/learns": float(not warming),
        }
        self._steer(batch["kl"])
        return batch | found, metrics

    def loss(self, policy, critic, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        config, mask = self.config, batch["completion_mask"]
        logps, values, entropy = self.read(policy, critic, batch)
        policy_loss = ppo_policy_loss(
            logps, batch["old_logps"], batch["advantages"], mask, clip_range=config.clip_range, reduction="sum"
        )
        value_loss = ppo_value_loss(
            values, batch["old_values"], batch["returns"], mask, clip_range=config.value_clip_range, reduction="sum"
        )
        loss = config.value_coefficient * value_loss
        if self.learns:  # else the policy has no gradients at all, and nothing moves it, weight decay neither
            loss = loss + policy_loss - config.entropy_coefficient * entropy
            if config.kl_in == "loss" and self.kl_coefficient:
                inside = [t.masked_fill(~mask, 0.0) for t in (logps, batch["ref_logps"])]
                loss = loss + self.kl_coefficient * kl_estimate(*inside, estimator=config.kl_estimator).sum()
        tokens = int(mask.sum())
        metrics = {"loss/policy_avg": policy_loss.item() / tokens, "loss/value_avg": value_loss.item() / tokens}
        moved = (values.detach() - batch["old_values"]).abs()[mask] > config.value_clip_range
        metrics["val/clipfrac_avg"] = moved.float().mean().item()
        if config.entropy_coefficient:
            metrics["policy/entropy_avg"] = entropy.item() / tokens
        return loss, metrics | self.update_metrics(logps, batch, *[config.clip_range] * 2) | self.of_rollout

    @property
    def learns(self) -> float:
        """Whether the rollout at hand moves the policy: 0 while the critic warms up."""
        return self.of_rollout["policy/learns"]

    def values(self, critic, batch: dict[str, Tensor], packed: Packed | None) -> Tensor:
        """(B, T) the critic's values before each token, reward units."""
        if self.shares_trunk:
            states = self.states(self.policy, batch, packed)
            return states.spread(critic(states.hidden))
        if packed is not None and self.own_critic:
            return critic(packed)
        return critic(batch["input_ids"], batch["attention_mask"])

    def read(self, policy, critic, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor | float]:
        """Log-probabilities and values of the completions' tokens, (B, T), and the sum of their entropies in nats.

        One pass through the policy gives all that is asked of it; entropies are computed only where they are paid for.
        """
        config, packed = self.config, self.packed(batch)
        # while the critic warms up, the head's errors must not move the policy's body, and DDP would wait for gradients
        with torch.set_grad_enabled(bool(self.learns) and torch.is_grad_enabled()):
            states = self.states(policy, batch, packed)
            if states is None:
                return self.logps(policy, batch), self.values(critic, batch, packed), 0.0
            logps = states.spread(states.logps(temperature=config.temperature, chunk_size=config.chunk_size))
        values = states.spread(critic(states.hidden)) if self.shares_trunk else self.values(critic, batch, packed)
        paid = config.entropy_coefficient > 0
        return logps, values, states.entropies(temperature=config.temperature).sum() if paid else 0.0

    def state_dict(self) -> dict:
        return super().state_dict() | {"scale": self.scale.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        self.scale.load_state_dict(state["scale"])

    def _steer(self, kl: Tensor) -> None:
        """Ziegler et al. 2019: the price rises by up to a fifth of n / horizon while KL is above its target."""
        if self.config.target_kl is not None:
            error = max(-0.2, min(0.2, kl.mean().item() / self.config.target_kl - 1))
            self.kl_coefficient *= 1 + error * min(1.0, len(kl) / self.config.kl_horizon)


def _variance(values: Tensor) -> float:
    return max(values.float().var(correction=0).item(), 1e-12)
