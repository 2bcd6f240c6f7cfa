"""What a method is to the loop: the records it takes, how it makes batches of them, and the loss of a batch."""

from __future__ import annotations

import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from course_lib.data import collate_completions, encode_records, fit_rows
from course_lib.models import pad_id, refuse_unknown_ids
from course_lib.trainers.batches import RecordBatches
from course_lib.trainers.config import TrainingConfig
from course_lib.trainers.history import History

logger = logging.getLogger(__name__)
MAY_CHANGE_ON_RESUME = {"accumulation", "progress", "checkpoint_folder", "checkpoint_every", "keep_checkpoints"}


class Method(ABC):
    """What records a method takes, how it collates rows, and what its loss is. It knows nothing of the loop.

    Args:
        policy: the model to train, in place.
        tokenizer: its tokenizer.
        records: what to train on, in the form that the method takes.
        config: its settings.
        eval_records: more of the same, never trained on: every `eval_every` steps, and at the end, the mean of each
            metric over them goes into the history as `eval_loss` and so on.
    """

    record_kind: str
    config_class: type[TrainingConfig] = TrainingConfig
    config: TrainingConfig

    def __init__(
        self,
        policy,
        tokenizer,
        records: Sequence[dict],
        config: TrainingConfig | None = None,
        *,
        eval_records: Sequence[dict] | None = None,
    ):
        self.policy, self.tokenizer = policy, tokenizer
        self.config = config or self.config_class()
        self.history = History()
        if not isinstance(self.config, self.config_class):
            raise TypeError(f"{type(self).__name__} takes a {self.config_class.__name__}, not {type(config).__name__}")
        if not any(p.requires_grad for p in policy.parameters()):
            raise ValueError("the policy has no trainable weights; load it with lora_rank, or without quantization")
        if self.config.eval_every is not None and not eval_records:
            raise ValueError("eval_every is set, but there are no eval_records to look at; pass some, or leave it out")
        if self.config.gradient_checkpointing:
            policy.gradient_checkpointing_enable({"use_reentrant": False})
        _say_what_is_not_trained(policy)
        self.pad = pad_id(policy, tokenizer)
        positions = getattr(policy.config.get_text_config(), "max_position_embeddings", None)
        self.longest = min(self.config.max_length, positions or self.config.max_length)
        self.rows: list = []
        self.records: list[dict] = []  # those that the rows come from, in the same order
        self.training = self._add(records)
        self.held_out = self._add(eval_records) if eval_records else range(0)
        refuse_unknown_ids(policy, {i for row in self.rows for i in _ids(row)})
        self.refuse_small_batches(processes=1)

    def _add(self, records: Sequence[dict]) -> range:
        """Encode records behind those that are there; the indices of their rows."""
        records, start = list(records), len(self.rows)
        rows = encode_records(records, self.record_kind, tokenizer=self.tokenizer)
        rows, kept = fit_rows(rows, self.longest, over_long=self.config.over_long, room=self.room)
        self.rows += rows
        self.records += [records[i] for i in kept]
        return range(start, len(self.rows))

    @property
    def room(self) -> int:
        """Tokens that a row must leave free behind its prompt."""
        return 1

    def refuse_small_batches(self, processes: int) -> None:
        """See that every micro-batch of each process gets a row of every batch.

        Raises:
            ValueError: if one would not.
        """
        rows, accumulation = len(self.training), self.config.accumulation
        smallest = rows // -(-rows // self.config.batch_size)
        if smallest < processes * accumulation:
            where = f" on each of {processes} processes" if processes > 1 else ""
            raise ValueError(
                f"{rows} records make batches of {smallest}, too few for {accumulation} micro-batches{where}; lower "
                f"accumulation{', raise batch_size, or start fewer processes' if processes > 1 else ''}"
            )

    def length(self, row) -> int:
        """How many tokens wide a row is; rows of similar length share a batch."""
        return row.length

    def collate(self, indices: list[int]) -> dict[str, Tensor]:
        """The rows at these indices as one padded batch of tensors."""
        return collate_completions([self.rows[i] for i in indices], self.pad)

    @abstractmethod
    def terms(self, batch: dict[str, Tensor]) -> int:
        """How many terms the batch's loss sums: tokens, pairs or sequences."""

    @abstractmethod
    def loss(self, model, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """The batch's loss summed over its terms, and metrics to average.

        Where `trained` names several models, all of them come before the batch, in that order.
        """

    def trained(self) -> dict[str, torch.nn.Module]:
        """The modules that the optimiser moves, by the name of the trainer's attribute that holds each."""
        return {"policy": self.policy}

    def learning_rate_of(self, name: str) -> float:
        """The highest learning rate of a trained module."""
        return self.config.learning_rate

    def groups(self) -> list[int] | None:
        """A group for each row, if every batch and micro-batch must hold rows of every group."""
        return None

    def batches(self, run):
        """Where the run's batches come from; anything with `take`, `__len__`, `state_dict` and `load_state_dict`."""
        self.refuse_small_batches(run.accelerator.num_processes)
        return self.batches_of(self.training, share=run.share)

    def batches_of(self, rows: range, **options) -> RecordBatches:
        """Batches of some of the rows, as the config asks for them."""
        config, groups = self.config, self.groups()
        return RecordBatches(
            [self.length(self.rows[i]) for i in rows],
            groups and [groups[i] for i in rows],
            lambda places: self.collate([rows[place] for place in places]),
            **{"batch_size": config.batch_size, "accumulation": config.accumulation, "seed": config.seed} | options,
        )

    def before_training(self, accelerator) -> None:  # noqa: B027, a hook that may stay empty
        """What a method prepares once, such as the reference."""

    @contextmanager
    def training_mode(self) -> Iterator[None]:
        """The mode in which the method trains its modules."""
        for module in self.trained().values():
            module.train()
        yield

    def before_step(self, run, micro_batches: list[dict[str, Tensor]]) -> None:  # noqa: B027
        """What a method computes from all micro-batches of a step together."""

    def after_step(self, run) -> None:  # noqa: B027
        """What a method concludes from a step's metrics, which are those of all processes."""

    def description(self) -> dict:
        """What a run must have in common with a checkpoint to go on from it."""
        settings = {k: v for k, v in self.config.to_dict().items() if k not in MAY_CHANGE_ON_RESUME}
        records = hashlib.sha256(repr((self.rows, self.training)).encode()).hexdigest()[:16]
        weights = [p for module in self.trained().values() for p in module.parameters() if p.requires_grad]
        trained = sum(getattr(p, "ds_numel", p.numel()) for p in weights)  # a shard alone may be here
        return {"method": self.name, "records": records, "trained weights": trained} | settings

    def state_dict(self) -> dict:
        """What a method keeps between steps, beside its models, as tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict) -> None:  # noqa: B027
        """Put back what `state_dict` gave."""

    @property
    def name(self) -> str:
        return type(self).__name__.removesuffix("Trainer")


def _ids(row) -> Iterator[int]:
    """All token ids of a row, which is one `Encoded` or several."""
    for encoded in row if isinstance(row[0], tuple) else [row]:
        yield from encoded.prompt_ids
        yield from encoded.completion_ids


def _say_what_is_not_trained(policy) -> None:
    config = policy.config.get_text_config()
    share = getattr(config, "router_aux_loss_coef", 0)
    if getattr(config, "output_router_logits", False) and share:
        logger.warning(
            "the model's config asks for a router loss (router_aux_loss_coef=%g), which these trainers do not add: "
            "experts are balanced as the method's own loss leaves them",
            share,
        )
