"""Preference losses on the policy's own samples: the best and the worst of a group become a pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from course_lib.rollouts import roll_out
from course_lib.trainers.config import OnlineConfig, count, number, one_of, setting
from course_lib.trainers.online import OnlineTrainer
from course_lib.trainers.preference import METHODS, PairLoss, pair_metrics, refuse_what_cannot_train

PAIRED = [name for name, method in METHODS.items() if method.reference and not method.lengths]


@dataclass
class OnlinePreferenceConfig(OnlineConfig):
    """Settings of a preference loss on samples. `batch_size` counts pairs, one at most for each prompt."""

    completions: int = setting(4, count(2), "completions of each prompt: the best and the worst become a pair")
    batch_size: int = setting(32, count(), "pairs of an optimiser step")
    kl_coefficient: float = setting(0.1, number(above=0), "the loss's beta: price of a nat of distance")
    compared_to: str = setting(
        "start", one_of("start", "rollout"),
        "whose log-probabilities are the reference: the first policy's, or those that the rollout was drawn with "
        "(iterative DPO, whose reference moves on)",
    )  # fmt: skip


class OnlinePreferenceTrainer(OnlineTrainer):
    """`OnlinePreferenceTrainer(policy, tokenizer, [{"prompt"}], reward=reward_function).train()`.

    Each rollout's groups are ranked by the reward function, and their best and worst completion make a pair; a group
    whose rewards are all equal makes none. The reward may be a model, a judge (`Judge.reward`), or any function.

    Args:
        loss: a preference loss with a reference: "dpo", "cdpo", "robust", "ipo", or a function as in
            `PreferenceTrainer`.

    Metrics: those of `PreferenceTrainer`, of the rollout, and `pairs`, the share of groups that made one.

    Source: Guo et al. 2024, Direct language model alignment from online AI feedback; Xiong et al. 2024, Iterative
    preference learning from human feedback.
    """

    config_class = OnlinePreferenceConfig
    config: OnlinePreferenceConfig

    def __init__(self, policy, tokenizer, records: Sequence[dict], config: OnlinePreferenceConfig | None = None, *,
                 reward, loss: str | Callable[..., Tensor] = "dpo", reference="auto", rollouts=roll_out,
                 eval_records=None):  # fmt: skip
        if not callable(loss) and loss not in PAIRED:
            raise ValueError(f"loss is one of {', '.join(PAIRED)} or a function; got {loss!r}")
        self.method = PairLoss(loss) if callable(loss) else METHODS[loss]
        self.loss_name = loss if isinstance(loss, str) else getattr(loss, "__name__", "custom")
        super().__init__(policy, tokenizer, records, config, reward=reward, reference=reference,
                         rollouts=rollouts, eval_records=eval_records)  # fmt: skip

    rows_per_prompt = 1

    @property
    def holds_reference(self) -> bool:
        return self.config.compared_to == "start"

    @property
    def name(self) -> str:
        return f"online {self.loss_name}"

    def description(self) -> dict:
        return super().description() | {"loss": self.loss_name}

    def terms(self, batch: dict[str, Tensor]) -> int:
        return len(batch["ref_chosen"])

    def prepare(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, float]]:
        """The best and the worst completion of each group as a pair, (P, 2, T)."""
        groups = batch["scores"].view(-1, self.config.completions)
        best, worst = groups.max(dim=1), groups.min(dim=1)
        kept = (best.values > worst.values).nonzero()[:, 0]
        first = torch.arange(len(groups)) * self.config.completions
        rows = torch.stack([first + best.indices, first + worst.indices], dim=1)[kept]
        found = {name: batch[name][rows] for name in ("input_ids", "attention_mask", "completion_mask")}
        chosen, rejected = batch["ref_logps"].sum(dim=1)[rows].T
        metrics = {"pairs": len(kept) / len(groups), "objective/gap": (best.values - worst.values).mean().item()}
        return found | {"ref_chosen": chosen, "ref_rejected": rejected}, metrics

    def loss(self, policy, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        sides = {name: batch[name].flatten(0, 1) for name in ("input_ids", "attention_mask", "completion_mask")}
        logps = self.logps(policy, sides).sum(dim=1).view(-1, 2).T
        ref = torch.stack([batch["ref_chosen"], batch["ref_rejected"]])
        beta = self.config.kl_coefficient
        loss = self.method.loss(*logps, *ref, beta=beta, reduction="sum", **self.method.settings)
        if self.loss_name not in METHODS:
            refuse_what_cannot_train(loss, self.loss_name)
        return loss, pair_metrics(beta * (logps.detach() - ref), logps.detach()) | self.of_rollout
