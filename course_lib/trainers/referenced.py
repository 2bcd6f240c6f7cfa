"""What trainers share that hold a policy to a frozen reference: two scores a row, the reference's computed once."""

from __future__ import annotations

import hashlib
import logging
import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm.auto import tqdm

from course_lib.models import Reference, reference_of
from course_lib.trainers.loop import Trainer

logger = logging.getLogger(__name__)


class ReferencedTrainer(Trainer):
    """A trainer whose rows have two scores (log-probabilities), compared between policy and reference.

    Dropout is off while it trains: with it a policy differs from its own reference by noise. A model that is passed
    as the reference is frozen in place.
    """

    def __init__(
        self, policy, tokenizer, records: Sequence[dict], config=None, *, reference: str | torch.nn.Module = "auto"
    ):
        super().__init__(policy, tokenizer, records, config)
        self.precomputed: Tensor | None = None
        named = isinstance(reference, str)
        self.reference = reference_of(policy, kind=reference) if named else _frozen(reference, policy)
        if self.config.reference_cache is not None and self.reference.kind != "precomputed":
            raise ValueError(
                f"reference_cache keeps precomputed scores, and this reference is {self.reference.kind!r}; pass "
                "reference='precomputed', or leave reference_cache out"
            )

    def what_is_scored(self) -> str:
        """All that `score` depends on beside the model, as text: the key of the scores on disk."""
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
        """Evaluation mode, which switches off every kind of dropout.

        Only what checkpoints stays in training mode, which it needs, and its own shares of dropout are 0 meanwhile.
        """
        shares = []
        for module in self.policy.modules():
            module.training = getattr(module, "gradient_checkpointing", False)
            if module.training:
                shares += [(module, n, v) for n, v in vars(module).items() if "drop" in n and isinstance(v, float)]
        for module, name, _ in shares:
            setattr(module, name, 0.0)
        try:
            yield
        finally:
            for module, name, share in shares:
                setattr(module, name, share)

    def before_training(self, accelerator) -> None:
        if self.reference.frozen is not None:
            self.reference.frozen.to(accelerator.device)
        if self.reference.kind == "precomputed" and self.precomputed is None:  # a second run keeps the reference
            self.precomputed = self._scores_from_disk(accelerator)

    def _scores_from_disk(self, accelerator) -> Tensor:
        """The reference's scores of all rows, (N, 2), read from the cache folder if they are there."""
        folder = self.config.reference_cache
        if folder is None:
            return self._score_all(accelerator)
        path = Path(folder) / f"{_fingerprint(self.policy, self.what_is_scored())}.safetensors"
        if path.exists():
            logger.info("reference scores read from %s", path)
            return load_file(path)["scores"]
        scores = self._score_all(accelerator)
        if accelerator.is_main_process:
            path.parent.mkdir(parents=True, exist_ok=True)
            half_written = path.with_suffix(f".{os.getpid()}")
            save_file({"scores": scores}, half_written)
            half_written.replace(path)
        return scores

    def _score_all(self, accelerator) -> Tensor:
        order = sorted(range(len(self.rows)), key=lambda i: self.length(self.rows[i]))
        size, scores = -(-self.config.batch_size // self.config.accumulation), torch.zeros(len(self.rows), 2)
        self.policy.eval()
        starts = tqdm(range(0, len(order), size), desc="reference", disable=not self.config.progress)
        with self.reference.scoring(self.policy) as scorer, accelerator.autocast():
            for start in starts:
                indices = order[start : start + size]
                batch = {k: v.to(accelerator.device) for k, v in self.collate(indices).items()}
                scores[indices] = self.score(scorer, batch).T.cpu()
        return scores


def _frozen(model: torch.nn.Module, policy) -> Reference:
    """A reference that is another model, frozen in place."""
    trained = {id(p) for p in policy.parameters()}
    if any(id(p) in trained for p in model.parameters()):
        raise ValueError(
            "the reference shares weights with the policy, and training would move both; pass reference='copy' or "
            "'precomputed', or a model of its own"
        )
    return Reference("copy", model.requires_grad_(False).eval())


def _fingerprint(policy, scored: str) -> str:
    """One name for a model, its adapters' settings, and what it scores; any of them changed gives another name."""
    digest = hashlib.sha256(policy.config.to_json_string().encode())
    layers = [m for m in policy.modules() if isinstance(m, BaseTunerLayer)]
    digest.update(repr([(m.active_adapters, m.disable_adapters, m.merged_adapters) for m in layers]).encode())
    for name, adapter in sorted(getattr(policy, "peft_config", {}).items()):
        digest.update(repr((name, sorted(adapter.to_dict().items(), key=str))).encode())
    for name, tensor in sorted(policy.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    digest.update(scored.encode())
    return digest.hexdigest()[:32]
