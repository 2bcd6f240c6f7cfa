"""Preference optimisation on pairs: DPO and its family, or any loss on the same four log-probabilities."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from course_lib.data import Encoded, collate_pairs, collate_shared, shared_length
from course_lib.logprobs import pair_logps, sequence_logps, why_pairs_not_shared
from course_lib.losses import dpo_loss, ipo_loss, length_dpo_loss, orpo_loss, robust_dpo_loss, simpo_loss
from course_lib.trainers.config import TrainingConfig, flag, folder, number, optional, setting
from course_lib.trainers.parts import TrainingError
from course_lib.trainers.referenced import ReferencedTrainer

logger = logging.getLogger(__name__)
SHARED_INPUTS = ("input_ids", "segments", "position_ids", "source", "target", "completion")


@dataclass(frozen=True)
class PairLoss:
    """How a loss is called: the settings that it alone takes, with their defaults, and what it needs beside scores."""

    loss: Callable[..., Tensor]
    settings: dict[str, float] = field(default_factory=dict)
    reference: bool = True
    lengths: bool = False
    nll: bool = False


METHODS = {
    "dpo": PairLoss(dpo_loss),
    "cdpo": PairLoss(dpo_loss, {"label_smoothing": 0.1}),
    "robust": PairLoss(robust_dpo_loss, {"label_smoothing": 0.1}),
    "ipo": PairLoss(ipo_loss),
    "length-dpo": PairLoss(length_dpo_loss, {"length_penalty": 0.01}, lengths=True),
    "simpo": PairLoss(simpo_loss, {"gamma": 1.0}, reference=False, lengths=True),
    "orpo": PairLoss(orpo_loss, reference=False, lengths=True, nll=True),
}
OF_SOME_LOSSES = ("label_smoothing", "gamma", "length_penalty")


@dataclass
class PreferenceConfig(TrainingConfig):
    """Settings of a preference run. Those of some losses are None by default, and refused by losses without them."""

    learning_rate: float = setting(1e-6, number(above=0), "highest learning rate of AdamW")
    beta: float | None = setting(
        None, optional(number(above=0)), "strength of the pull to the reference; None: the loss's own"
    )
    label_smoothing: float | None = setting(
        None, optional(number(least=0, most=0.5)), "cdpo, robust: share of labels taken for wrong; None: 0.1"
    )
    gamma: float | None = setting(
        None, optional(number(least=0)), "simpo: the margin asked for, in reward units; None: 1"
    )
    length_penalty: float | None = setting(None, optional(number()), "length-dpo: reward units a token; None: 0.01")
    average: bool = setting(False, flag, "losses with a reference get means over tokens for sums (TRL's IPO)")
    share_prompt: bool = setting(True, flag, "compute what both sides of a pair begin with once, where possible")
    reference_cache: str | Path | None = setting(
        None, optional(folder), "keeps precomputed reference scores between runs"
    )


class PreferenceTrainer(ReferencedTrainer):
    """Train on pairs: `PreferenceTrainer(policy, tokenizer, records, loss="dpo").train()`.

    Args:
        policy: the model to train, in place; it should have been through SFT.
        tokenizer: its tokenizer.
        records: `{"prompt", "chosen", "rejected"}`, strings or chat messages.
        config: a `PreferenceConfig`.
        loss: "dpo", "cdpo", "robust", "ipo", "length-dpo", "simpo" or "orpo" (the last two need no reference),
            or a function of (policy_chosen, policy_rejected, ref_chosen, ref_rejected) summed log-probabilities (B,)
            with the keywords `beta` and `reduction`.
        reference: "auto", "copy", "adapter-off" or "precomputed" (see `reference_of`), or another model, which is
            then frozen; "simpo" and "orpo" ignore it.

    Metrics: `loss`, `rewards/chosen`, `rewards/rejected`, `rewards/margins`, `rewards/accuracies` (share of
    pairs whose implicit rewards are in the right order), `logps/chosen`, `logps/rejected` (nats a completion).
    Implicit rewards are beta times log-ratios; for SimPO and ORPO, which have no reference, beta times the mean
    log-probability of a token.
    """

    record_kind = "preference"
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
        eval_records: Sequence[dict] | None = None,
    ):
        if not callable(loss) and loss not in METHODS:
            raise ValueError(f"loss is one of {', '.join(METHODS)} or a function; got {loss!r}")
        self.method = PairLoss(loss) if callable(loss) else METHODS[loss]
        self.loss_name = loss if isinstance(loss, str) else getattr(loss, "__name__", "custom")
        if not self.method.reference:
            reference = "auto"  # which copies nothing
        super().__init__(policy, tokenizer, records, config, reference=reference, eval_records=eval_records)
        self.settings = self._settings()
        self.shared = False

    @property
    def name(self) -> str:
        return self.loss_name

    @property
    def beta(self) -> float:
        """The config's beta, or the loss's own default, or 0.1."""
        if self.config.beta is not None:
            return self.config.beta
        named = inspect.signature(self.method.loss).parameters.get("beta")
        return 0.1 if named is None or named.default is inspect.Parameter.empty else named.default

    def _settings(self) -> dict[str, float]:
        """What the loss takes beside beta; what is set in vain is refused."""
        given = {n: v for n in OF_SOME_LOSSES if (v := getattr(self.config, n)) is not None}
        for name in given.keys() - self.method.settings.keys():
            takers = ", ".join(repr(n) for n, method in METHODS.items() if name in method.settings)
            raise ValueError(f"loss={self.loss_name!r} takes no {name}; leave it out, or choose {takers}")
        if self.config.average and not self.method.reference:
            raise ValueError(
                f"loss={self.loss_name!r} has no reference, and sees token means anyway; leave out average"
            )
        return self.method.settings | given

    def length(self, row: tuple[Encoded, Encoded]) -> int:
        return shared_length(row) if self.shared else max(side.length for side in row)

    def collate(self, indices: list[int]) -> dict[str, Tensor]:
        collate = collate_shared if self.shared else collate_pairs
        rows = [self.rows[i] for i in indices]
        lengths = torch.tensor([[side.scored_tokens for side in row] for row in rows]).T
        return self.with_reference(collate(rows, self.pad) | {"lengths": lengths}, indices)

    def terms(self, batch: dict[str, Tensor]) -> int:
        return batch["lengths"].shape[1]

    def before_training(self, accelerator) -> None:
        self.shared = self.config.share_prompt and self._can_share()
        if self.method.reference:
            super().before_training(accelerator)

    def _can_share(self) -> bool:
        reason = why_pairs_not_shared([m for m in (self.policy, self.reference.frozen) if m is not None], self.rows)
        if reason:
            logger.warning("computing each prompt twice: %s", reason)
        return not reason

    def cache_key(self) -> str:
        return super().cache_key() + f"shared {self.shared}"

    def score(self, model, batch: dict[str, Tensor]) -> Tensor:
        if self.shared:
            inputs = {name: batch[name] for name in SHARED_INPUTS}
            return torch.stack(pair_logps(model, **inputs, chunk_size=self.config.chunk_size))
        inputs = (batch[name] for name in ("input_ids", "attention_mask", "completion_mask"))
        return sequence_logps(model, *inputs, chunk_size=self.config.chunk_size).view(2, -1)

    def loss(self, model, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        lengths, method = batch["lengths"], self.method
        logps = self.score(model, batch)
        scores, ref = logps, None
        if method.reference:
            ref = self.reference_scores(model, batch)
            self.compare_at_start(logps, ref, lengths)
            if self.config.average:
                scores, ref = logps / lengths, ref / lengths
        arguments = [*scores, *(ref if method.reference else ())]
        arguments += lengths if method.lengths else ()
        arguments += [-logps[0] / lengths[0]] if method.nll else ()
        loss = method.loss(*arguments, beta=self.beta, reduction="sum", **self.settings)
        if self.loss_name not in METHODS:
            refuse_what_cannot_train(loss, self.loss_name)
        rewards = self.beta * ((scores - ref) if method.reference else logps / lengths).detach()
        return loss, pair_metrics(rewards, logps.detach())


def refuse_what_cannot_train(loss, name: str) -> None:
    """See that a loss from outside is one number that depends on the policy."""
    if not isinstance(loss, Tensor) or loss.dim() != 0:
        what = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise TrainingError(f"the loss {name!r} must give one number for reduction='sum'; it gave {what}")
    if torch.is_grad_enabled() and not loss.requires_grad:
        raise TrainingError(
            f"the loss {name!r} has no gradient: it does not depend on the policy's log-probabilities, or detaches them"
        )


def pair_metrics(rewards: Tensor, logps: Tensor) -> dict[str, float]:
    """What is logged of B pairs: implicit rewards (2, B) and log-probabilities (2, B), chosen first."""
    values = {
        "rewards/chosen": rewards[0],
        "rewards/rejected": rewards[1],
        "rewards/margins": rewards[0] - rewards[1],
        "rewards/accuracies": (rewards[0] > rewards[1]).float(),
        "logps/chosen": logps[0],
        "logps/rejected": logps[1],
    }
    means = torch.stack([v.mean() for v in values.values()]).tolist()
    return dict(zip(values, means, strict=True))
