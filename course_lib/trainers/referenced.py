"""What trainers share that hold a policy to a frozen reference: two scores a row, the reference's computed once."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from course_lib.models import Reference, reference_of
from course_lib.trainers.base import Trainer
from course_lib.trainers.config import TrainingConfig
from course_lib.trainers.dropout import without_dropout
from course_lib.trainers.parts import TrainingError
from course_lib.trainers.reference_scores import can_write, fingerprint, read_scores, write_scores
from course_lib.trainers.run import Run
from course_lib.trainers.sharded import frozen
from course_lib.trainers.together import joined, of_main

logger = logging.getLogger(__name__)


class ReferencedTrainer(Trainer):
    """A trainer whose rows have two scores (log-probabilities), compared between policy and reference.

    Dropout is off while it trains: with it a policy differs from its own reference by noise. A model that is passed
    as the reference is frozen in place.
    """

    def __init__(
        self,
        policy,
        tokenizer,
        records: Sequence[dict],
        config: TrainingConfig | None = None,
        *,
        reference: str | torch.nn.Module = "auto",
        eval_records: Sequence[dict] | None = None,
    ):
        super().__init__(policy, tokenizer, records, config, eval_records=eval_records)
        self.precomputed: Tensor | None = None
        named = isinstance(reference, str)
        self.reference = reference_of(policy, kind=reference) if named else frozen_reference(reference, policy)
        self.starts_at_reference = named  # until the first step has moved the policy
        if self.config.reference_cache is not None and self.reference.kind != "precomputed":
            raise ValueError(
                f"reference_cache keeps precomputed scores, and this reference is {self.reference.kind!r}; pass "
                "reference='precomputed', or leave reference_cache out"
            )

    def cache_key(self) -> str:
        """All that `score` depends on beside the model, as text: part of the name of the scores on disk."""
        return repr((self.rows, self.config.mixed_precision))

    @abstractmethod
    def score(self, model, batch: dict[str, Tensor]) -> Tensor:
        """Both log-probabilities of each of the batch's B rows, (2, B), nats."""

    def reference_scores(self, model, batch: dict[str, Tensor]) -> Tensor:
        """`score` under the reference, without gradients; looked up where it was precomputed."""
        if "ref_logps" in batch:
            return batch["ref_logps"]
        with self.reference.scoring(model) as scorer:
            return self.score(scorer, batch)

    def with_reference(self, batch: dict[str, Tensor], indices: list[int]) -> dict[str, Tensor]:
        """The batch, with the reference's scores of its rows if they are known already."""
        return batch if self.precomputed is None else batch | {"ref_logps": self.precomputed[indices].T}

    @contextmanager
    def training_mode(self) -> Iterator[None]:
        """Without dropout: see the class."""
        with without_dropout(self.policy):
            yield

    def before_training(self, accelerator) -> None:
        if self.reference.frozen is not None:
            self.reference.frozen = frozen(accelerator, self.reference.frozen)
        if self.reference.kind == "precomputed" and self.precomputed is None:  # a second run keeps the reference
            self.precomputed = self._precompute(accelerator)

    def before_step(self, run: Run, micro_batches: list[dict[str, Tensor]]) -> None:
        self.starts_at_reference = self.starts_at_reference and run.step == 0

    def compare_at_start(self, logps: Tensor, ref_logps: Tensor, tokens: Tensor) -> None:
        """Before the first update policy and reference are one model, and their scores differ by rounding alone.

        Raises:
            TrainingError: if they do not; no later margin would mean anything.
        """
        if not self.starts_at_reference:
            return
        logps = logps.detach()
        gap, allowed = (logps - ref_logps).abs(), 0.02 + 16 * _rounding(self.policy, self.config) * logps.abs()
        if (gap > allowed).any():
            raise TrainingError(
                "step 1: before any update the policy's and the reference's log-probabilities of the same reply "
                f"differ by up to {gap.max().item():.3g} nats, and they are one model. Likely causes: a model whose "
                "scores depend on what else is in the batch (a rotary embedding that changes with the longest row, "
                "experts with a capacity), or that draws random numbers in evaluation mode. Try reference='copy' "
                "(scored in the same batches), batch_size=1, or max_length within the model's original context"
            )
        unlikely, uniform = (-logps / tokens).mean().item(), math.log(self.policy.config.get_text_config().vocab_size)
        if unlikely > 0.5 * uniform:
            logger.warning(
                "the policy finds its own training replies hardly more likely than noise: %.2f nats a token, where "
                "uniform guessing costs %.2f. Was it through SFT, and are prompts written as it knows them "
                "(chat template, beginning-of-text token)?",
                unlikely,
                uniform,
            )

    def description(self) -> dict:
        return super().description() | {"reference": self.reference.kind}

    def state_dict(self) -> dict:
        return {} if self.precomputed is None else {"precomputed": self.precomputed}

    def load_state_dict(self, state: dict) -> None:
        self.precomputed, self.starts_at_reference = state.get("precomputed"), False

    def _precompute(self, accelerator) -> Tensor:
        """The reference's scores of all rows, (N, 2), read from the cache folder if they are there."""
        folder, rows = self.config.reference_cache, len(self.rows)
        if folder is None:
            return self._score_all(accelerator)
        path = of_main(lambda: Path(folder) / f"{fingerprint(self.policy, self.cache_key())}.safetensors")
        scores = of_main(lambda: read_scores(path, rows))
        if scores is not None:
            return scores
        writable = accelerator.is_main_process and can_write(path)  # before the long pass, so that the warning is early
        scores = self._score_all(accelerator)
        if writable:
            write_scores(path, scores)
        return scores

    def _score_all(self, accelerator) -> Tensor:
        """Each process scores its share of the batches."""
        micro_batches = self.config.accumulation * accelerator.num_processes
        size, scores = -(-self.config.batch_size // micro_batches), torch.zeros(len(self.rows), 2)
        batches = []
        for rows in (self.training, self.held_out):  # apart, so that held-out rows change no rounding of the others
            order = sorted(rows, key=lambda i: self.length(self.rows[i]))
            batches += [order[start : start + size] for start in range(0, len(order), size)]
        self.policy.eval()
        with self.reference.scoring(self.policy) as scorer, accelerator.autocast():
            mine = batches[accelerator.process_index :: accelerator.num_processes]
            shown = self.config.progress and accelerator.is_main_process
            for indices in tqdm(mine, desc="reference", disable=not shown):
                batch = {k: v.to(accelerator.device) for k, v in self.collate(indices).items()}
                scores[indices] = self.score(scorer, batch).T.cpu()
        return torch.stack(joined(lambda: scores)).sum(dim=0)  # 0 where another process has them


def frozen_reference(model: torch.nn.Module, policy) -> Reference:
    """A reference that is another model, frozen in place."""
    trained = {id(p) for p in policy.parameters()}
    if any(id(p) in trained for p in model.parameters()):
        raise ValueError(
            "the reference shares weights with the policy, and training would move both; pass reference='copy' or "
            "'precomputed', or a model of its own"
        )
    return Reference("copy", model.requires_grad_(False).eval())


def _rounding(policy, config: TrainingConfig) -> float:
    """The coarsest step of the numbers that the policy computes with, relative to 1."""
    kinds = {p.dtype for p in policy.parameters() if p.is_floating_point()}
    kinds |= {torch.bfloat16} if config.mixed_precision == "bf16" else set()
    short = 2**-10 if torch.get_float32_matmul_precision() != "highest" else 0.0  # TF32 keeps ten bits
    return max(short, *(torch.finfo(kind).eps for kind in kinds))
