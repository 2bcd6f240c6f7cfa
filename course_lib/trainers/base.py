"""What a method is to the loop: the records it takes, how it makes batches of them, and the loss of a batch."""

from __future__ import annotations

import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate.state import PartialState
from torch import Tensor

from course_lib.data import encode_records, fit_rows
from course_lib.models import pad_id, refuse_unknown_ids, save_pretrained
from course_lib.trainers.batches import RecordBatches
from course_lib.trainers.checkpoint import Checkpoints
from course_lib.trainers.config import TrainingConfig
from course_lib.trainers.history import History
from course_lib.trainers.loop import fit
from course_lib.trainers.parts import Part, standard_parts
from course_lib.trainers.run import Run

logger = logging.getLogger(__name__)
MAY_CHANGE_ON_RESUME = {"progress", "checkpoint_folder", "checkpoint_every", "keep_checkpoints"}


class Trainer(ABC):
    """Base of the trainers. A method says what records it takes, how it collates rows, and computes its loss.

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
        _say_what_is_not_trained(policy)
        self.pad = pad_id(policy, tokenizer)
        positions = getattr(policy.config.get_text_config(), "max_position_embeddings", None)
        self.longest = min(self.config.max_length, positions or self.config.max_length)
        self.rows: list = []
        self.records: list[dict] = []  # those that the rows come from, in the same order
        self.training = self._add(records)
        self.held_out = self._add(eval_records) if eval_records else range(0)
        refuse_unknown_ids(policy, {i for row in self.rows for i in _ids(row)})
        self._refuse_small_batches()

    def _add(self, records: Sequence[dict]) -> range:
        """Encode records behind those that are there; the indices of their rows."""
        records, start = list(records), len(self.rows)
        rows = encode_records(records, self.record_kind, tokenizer=self.tokenizer)
        rows, kept = fit_rows(rows, self.longest, over_long=self.config.over_long)
        self.rows += rows
        self.records += [records[i] for i in kept]
        return range(start, len(self.rows))

    def _refuse_small_batches(self) -> None:
        rows = len(self.training)
        smallest = rows // -(-rows // self.config.batch_size)
        if smallest < self.config.accumulation:
            raise ValueError(
                f"{rows} records make batches of {smallest}, too few for {self.config.accumulation} micro-batches; "
                "lower accumulation"
            )

    @abstractmethod
    def length(self, row) -> int:
        """How many tokens wide a row is; rows of similar length share a batch."""

    @abstractmethod
    def collate(self, indices: list[int]) -> dict[str, Tensor]:
        """The rows at these indices as one padded batch of tensors."""

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

    def groups(self) -> list[int] | None:
        """A group for each row, if every batch and micro-batch must hold rows of every group."""
        return None

    def batches(self, run: Run):
        """Where the run's batches come from; anything with `take`, `__len__`, `state_dict` and `load_state_dict`."""
        accelerator = run.accelerator
        return self.batches_of(self.training, share=(accelerator.process_index, accelerator.num_processes))

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

    def before_step(self, run: Run, micro_batches: list[dict[str, Tensor]]) -> None:  # noqa: B027
        """What a method computes from all micro-batches of a step together."""

    def train(self, *, resume: bool = False, parts: Sequence[Part] = ()) -> History:
        """Train the policy in place and return its history, which is kept as `trainer.history` too.

        Ctrl-C, the notebook's stop button, or a signal to end (SIGTERM, SIGHUP) stops after the step at hand and keeps
        history and weights.

        Args:
            resume: go on from the newest whole checkpoint in `config.checkpoint_folder`, to the same weights as a
                run that was never interrupted; if there is none, begin. Make the trainer as for the first run.
            parts: what else is to happen before and after each step; see `Part`.

        Raises:
            TrainingError: if a loss, gradient or weight is not finite; it says which weights stay.
            ValueError: if `resume` finds a checkpoint of other settings or records; it says which differ.
        """
        checkpoints = Checkpoints.of(self.config)
        saved = checkpoints.newest() if resume and checkpoints else None
        if resume and not checkpoints:
            raise ValueError("resume needs to know where checkpoints are; set checkpoint_folder in the config")
        if saved:
            _refuse_another_run(saved["of"], self.description())
            self.load_state_dict(saved["trainer"])
        run = Run(self)
        self.history = run.history
        if saved:
            run.load_state_dict(saved["run"])
        try:
            fit(self, run, [*standard_parts(self, checkpoints), *parts])
        finally:
            for name, module in run.unwrapped().items():
                setattr(self, name, module.eval())
        run.accelerator.wait_for_everyone()
        return run.history

    def description(self) -> dict:
        """What a run must have in common with a checkpoint to go on from it."""
        settings = {k: v for k, v in self.config.to_dict().items() if k not in MAY_CHANGE_ON_RESUME}
        records = hashlib.sha256(repr((self.rows, self.training)).encode()).hexdigest()[:16]
        return {"method": self.name, "records": records} | settings

    def state_dict(self) -> dict:
        """What a method keeps between steps, beside its models, as tensors and plain values."""
        return {}

    def load_state_dict(self, state: dict) -> None:  # noqa: B027
        """Put back what `state_dict` gave."""

    @property
    def name(self) -> str:
        return type(self).__name__.removesuffix("Trainer")

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the policy and its tokenizer so that `load_policy(folder)` reads them back."""
        if PartialState().is_main_process:
            save_pretrained(self.policy, self.tokenizer, folder)


def _ids(row) -> Iterator[int]:
    """All token ids of a row, which is one `Encoded` or several."""
    for encoded in row if isinstance(row[0], tuple) else [row]:
        yield from encoded.prompt_ids
        yield from encoded.completion_ids


def _refuse_another_run(saved: dict, now: dict) -> None:
    changed = [f"{k} was {saved.get(k)!r} and is {now.get(k)!r}" for k in now if saved.get(k) != now[k]]
    if changed:
        raise ValueError(
            f"the checkpoint is of another run: {'; '.join(changed)}. Go back to what it was, or begin in another "
            "checkpoint_folder"
        )


def _say_what_is_not_trained(policy) -> None:
    config = policy.config.get_text_config()
    share = getattr(config, "router_aux_loss_coef", 0)
    if getattr(config, "output_router_logits", False) and share:
        logger.warning(
            "the model's config asks for a router loss (router_aux_loss_coef=%g), which these trainers do not add: "
            "experts are balanced as the method's own loss leaves them",
            share,
        )
