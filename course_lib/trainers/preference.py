"""Preference optimisation on pairs: DPO, or any loss on the same four log-probabilities."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm

from course_lib.logprobs import sequence_logps
from course_lib.losses import dpo_loss, implicit_reward
from course_lib.models import Reference, reference_of
from course_lib.trainers.loop import TrainingConfig
from course_lib.trainers.pairs import PairTrainer

LOSSES = {"dpo": dpo_loss}


@dataclass
class PreferenceConfig(TrainingConfig):
    """Settings of a preference run; `beta` is the strength of the pull towards the reference."""

    learning_rate: float = 1e-6
    beta: float = 0.1


class PreferenceTrainer(PairTrainer):
    """Train on pairs: `PreferenceTrainer(policy, tokenizer, records, loss="dpo").train()`.

    Args:
        policy: the model to train, in place; it should have been through SFT.
        tokenizer: its tokenizer.
        records: `{"prompt", "chosen", "rejected"}`, strings or chat messages.
        config: a `PreferenceConfig`.
        loss: a name, or a function of (policy_chosen, policy_rejected, ref_chosen, ref_rejected) summed
            log-probabilities (B,) with the keywords `beta` and `reduction`.
        reference: "auto", "copy", "adapter-off" or "precomputed" (see `reference_of`), or another model.

    Dropout is switched off. Metrics: `loss`, `rewards/chosen`, `rewards/rejected`, `rewards/margins`,
    `rewards/accuracies` (share of
    pairs whose implicit rewards are in the right order), `logps/chosen`, `logps/rejected` (nats a completion).
    """

    config_class = PreferenceConfig

    def __init__(
        self,
        policy,
        tokenizer,
        records: Sequence[dict],
        config: PreferenceConfig | None = None,
        *,
        loss: str | Callable[..., Tensor] = "dpo",
        reference: str | torch.nn.Module = "auto",
    ):
        if not callable(loss) and loss not in LOSSES:
            raise ValueError(f"loss is one of {', '.join(LOSSES)} or a function; got {loss!r}")
        super().__init__(policy, tokenizer, records, config)
        self.loss_function = loss if callable(loss) else LOSSES[loss]
        if isinstance(reference, str):
            self.reference = reference_of(policy, kind=reference)
        else:
            self.reference = Reference("copy", reference.requires_grad_(False).eval())
        self.precomputed: Tensor | None = None

    def collate(self, indices: list[int]) -> dict[str, Tensor]:
        batch = super().collate(indices)
        if self.precomputed is not None:
            batch["ref_logps"] = self.precomputed[indices].T.flatten()
        return batch

    def before_training(self, accelerator) -> None:
        if self.reference.frozen is not None:
            self.reference.frozen.to(accelerator.device)
        if self.reference.kind == "precomputed" and self.precomputed is None:  # a second run keeps the reference
            self.precomputed = self._score_all(accelerator)
        _switch_off_dropout(self.policy)

    def loss(self, model, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        batch = dict(batch)
        ref = batch.pop("ref_logps", None)
        if ref is None:
            with self.reference.scoring(model) as scorer:
                ref = sequence_logps(scorer, **batch, chunk_size=self.config.chunk_size)
        logps = sequence_logps(model, **batch, chunk_size=self.config.chunk_size)
        (chosen, rejected), (ref_chosen, ref_rejected) = logps.chunk(2), ref.chunk(2)
        loss = self.loss_function(chosen, rejected, ref_chosen, ref_rejected, beta=self.config.beta, reduction="sum")
        return loss, self._metrics(chosen.detach(), rejected.detach(), ref_chosen, ref_rejected)

    def _metrics(self, chosen, rejected, ref_chosen, ref_rejected) -> dict[str, float]:
        good = implicit_reward(chosen, ref_chosen, beta=self.config.beta)
        bad = implicit_reward(rejected, ref_rejected, beta=self.config.beta)
        values = {
            "rewards/chosen": good,
            "rewards/rejected": bad,
            "rewards/margins": good - bad,
            "rewards/accuracies": (good > bad).float(),
            "logps/chosen": chosen,
            "logps/rejected": rejected,
        }
        means = torch.stack([v.mean() for v in values.values()]).tolist()
        return dict(zip(values, means, strict=True))

    def _score_all(self, accelerator) -> Tensor:
        """The reference's log-probabilities of all pairs, shape (N, 2), from the policy as it is now."""
        order = sorted(range(len(self.rows)), key=lambda i: self.length(self.rows[i]))
        size, scores = self.config.batch_size, torch.zeros(len(self.rows), 2)
        self.policy.eval()
        starts = tqdm(range(0, len(order), size), desc="reference", disable=not self.config.progress)
        with self.reference.scoring(self.policy) as scorer, accelerator.autocast():
            for start in starts:
                indices = order[start : start + size]
                batch = {k: v.to(accelerator.device) for k, v in self.collate(indices).items()}
                logps = sequence_logps(scorer, **batch, chunk_size=self.config.chunk_size)
                scores[indices] = logps.view(2, -1).T.cpu()
        return scores


def _switch_off_dropout(model) -> None:
    """Without it a policy differs from its own reference by noise, and the first loss is not what it should be."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0
