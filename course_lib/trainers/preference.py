"""Preference optimisation on pairs: DPO and its family, or any loss on the same four log-probabilities."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from course_lib.data import collate_pairs, collate_shared, shared_length
from course_lib.data.tokenization import Encoded
from course_lib.logprobs import fits_window, pair_logps, sequence_logps, why_not_shared
from course_lib.losses import dpo_loss, ipo_loss, length_dpo_loss, orpo_loss, robust_dpo_loss, simpo_loss
from course_lib.trainers.loop import TrainingConfig
from course_lib.trainers.referenced import ReferencedTrainer

logger = logging.getLogger(__name__)
SHARED_INPUTS = ("input_ids", "segments", "position_ids", "source", "target", "completion")


@dataclass(frozen=True)
class Method:
    """How a loss is called: which settings of the config it takes, and what it needs beside the policy's scores."""

    loss: Callable[..., Tensor]
    settings: tuple[str, ...] = ()
    reference: bool = True
    lengths: bool = False
    nll: bool = False


METHODS = {
    "dpo": Method(dpo_loss),
    "cdpo": Method(dpo_loss, ("label_smoothing",)),
    "robust": Method(robust_dpo_loss, ("label_smoothing",)),
    "ipo": Method(ipo_loss),
    "length-dpo": Method(length_dpo_loss, ("length_penalty",), lengths=True),
    "simpo": Method(simpo_loss, ("gamma",), reference=False, lengths=True),
    "orpo": Method(orpo_loss, reference=False, lengths=True, nll=True),
}


@dataclass
class PreferenceConfig(TrainingConfig):
    """Settings of a preference run; those that a loss does not take are ignored by it."""

    learning_rate: float = 1e-6
    beta: float | None = None  # strength of the pull towards the reference; None: the loss's own default
    label_smoothing: float = 0.1  # cdpo and robust: share of labels taken for wrong
    gamma: float = 1.0  # simpo: margin in reward units
    length_penalty: float = 0.01  # length-dpo: reward units a token
    average: bool = False  # losses with a reference get means over tokens instead of sums (TRL's IPO)
    share_prompt: bool = True  # compute what both sides of a pair begin with once, where the model allows it
    reference_cache: str | Path | None = None  # folder that keeps precomputed reference scores between runs


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
    ):
        if not callable(loss) and loss not in METHODS:
            raise ValueError(f"loss is one of {', '.join(METHODS)} or a function; got {loss!r}")
        self.method = Method(loss) if callable(loss) else METHODS[loss]
        if not self.method.reference:
            reference = "auto"  # which copies nothing
        super().__init__(policy, tokenizer, records, config, reference=reference)
        self.loss_name = loss if isinstance(loss, str) else getattr(loss, "__name__", "custom")
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

    def length(self, row: tuple[Encoded, Encoded]) -> int:
        return shared_length(row) if self.shared else max(len(e.prompt_ids) + len(e.completion_ids) for e in row)

    def collate(self, indices: list[int]) -> dict[str, Tensor]:
        collate = collate_shared if self.shared else collate_pairs
        rows = [self.rows[i] for i in indices]
        lengths = torch.tensor([[len(side.completion_ids) for side in row] for row in rows]).T
        return self.with_reference(collate(rows, self.tokenizer.pad_token_id) | {"lengths": lengths}, indices)

    def weight(self, batch: dict[str, Tensor]) -> int:
        return batch["lengths"].shape[1]

    def before_training(self, accelerator) -> None:
        self.shared = self.config.share_prompt and self._can_share()
        if self.method.reference:
            super().before_training(accelerator)

    def _can_share(self) -> bool:
        models = [m for m in (self.policy, self.reference.frozen) if m is not None]
        reason = "" if all(chosen.prompt_ids for chosen, _ in self.rows) else "some prompts are empty"
        reason = reason or next(filter(None, map(why_not_shared, models)), "")
        longest = max(map(shared_length, self.rows))
        if not reason and not all(fits_window(model, longest) for model in models):
            reason = "rows are longer than the window that its attention sees"
        if reason:
            logger.warning("computing each prompt twice: %s", reason)
        return not reason

    def what_is_scored(self) -> str:
        return super().what_is_scored() + f"shared {self.shared}"

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
            if self.config.average:
                scores, ref = logps / lengths, ref / lengths
        arguments = [*scores, *(ref if method.reference else ())]
        arguments += lengths if method.lengths else ()
        arguments += [-logps[0] / lengths[0]] if method.nll else ()
        settings = {name: getattr(self.config, name) for name in method.settings}
        loss = method.loss(*arguments, beta=self.beta, reduction="sum", **settings)
        rewards = self.beta * ((scores - ref) if method.reference else logps / lengths).detach()
        return loss, _metrics(rewards, logps.detach())


def _metrics(rewards: Tensor, logps: Tensor) -> dict[str, float]:
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
