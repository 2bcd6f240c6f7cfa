"""The training loop that all trainers share: batches, accumulation, clipping, schedule, history, stopping.

Built on Accelerate: the same loop runs on a CPU, a GPU, or several processes.
"""

from __future__ import annotations

import signal
import threading
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import GradientAccumulationPlugin
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import get_scheduler

from course_lib.data import LengthBuckets, encode_records, even_parts
from course_lib.models import save_pretrained
from course_lib.trainers.history import History

WEIGHTS_KEPT = "The weights are those of the last good step."


class TrainingError(RuntimeError):
    """Training had to stop; the message says at which step, why, and what to try."""


@dataclass
class TrainingConfig:
    """Settings that every trainer has.

    Default learning rates suit models of billions of parameters; the course's tiny one takes about a
    hundred times as much. `batch_size` counts records (pairs, for pairs) an optimiser step and process; it is cut into
    `accumulation` micro-batches that go through the model one after another, with the same result.
    """

    learning_rate: float = 2e-5
    epochs: float = 1
    batch_size: int = 32
    accumulation: int = 1
    schedule: str = "linear"  # any name that transformers.get_scheduler knows
    warmup_ratio: float = 0.1
    weight_decay: float = 0.0
    adam_betas: tuple[float, float] = (0.9, 0.999)
    max_grad_norm: float = 1.0  # float("inf") never clips
    max_length: int = 1024  # tokens of prompt and completion; longer records are refused
    mixed_precision: str = "no"  # or "bf16": fp32 weights, arithmetic in bf16
    chunk_size: int | None = None  # as in completion_logps
    seed: int = 0
    log_every: int = 10  # optimiser steps averaged into one row of the history
    progress: bool = True

    def __post_init__(self):
        counts = ("epochs", "batch_size", "accumulation", "max_length", "log_every")
        for name in ("learning_rate", "max_grad_norm", *counts):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0; got {getattr(self, name)}")
        if self.mixed_precision not in ("no", "bf16"):
            raise ValueError(f"mixed_precision is 'no' or 'bf16'; got {self.mixed_precision!r}")
        if self.accumulation > self.batch_size:
            raise ValueError(
                f"a batch of {self.batch_size} cannot be cut into {self.accumulation} micro-batches; "
                "lower accumulation or raise batch_size"
            )


class Trainer(ABC):
    """Base of the trainers. A method says what records it takes, how it collates rows, and computes its loss."""

    record_kind: str
    config_class = TrainingConfig

    def __init__(self, policy, tokenizer, records: Sequence[dict], config: TrainingConfig | None = None):
        self.policy, self.tokenizer = policy, tokenizer
        self.config = config or self.config_class()
        if not isinstance(self.config, self.config_class):
            raise TypeError(f"{type(self).__name__} takes a {self.config_class.__name__}, not {type(config).__name__}")
        if not any(p.requires_grad for p in policy.parameters()):
            raise ValueError("the policy has no trainable weights; load it with lora_rank, or without quantization")
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        positions = getattr(policy.config.get_text_config(), "max_position_embeddings", None)
        self.longest = min(self.config.max_length, positions or self.config.max_length)
        self.rows = encode_records(records, self.record_kind, tokenizer=tokenizer, max_length=self.longest)
        batches = -(-len(self.rows) // self.config.batch_size)
        if len(self.rows) // batches < self.config.accumulation:
            raise ValueError(
                f"{len(self.rows)} records make batches of {len(self.rows) // batches}, too few for "
                f"{self.config.accumulation} micro-batches; lower accumulation"
            )

    @abstractmethod
    def length(self, row) -> int:
        """How many tokens wide a row is; rows of similar length share a batch."""

    @abstractmethod
    def collate(self, indices: list[int]) -> dict[str, Tensor]:
        """The rows at these indices as one padded batch of tensors."""

    @abstractmethod
    def weight(self, batch: dict[str, Tensor]) -> int:
        """How many terms the batch's loss sums: tokens, pairs or sequences."""

    @abstractmethod
    def loss(self, model, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """The batch's loss summed over its terms, and metrics to average."""

    def groups(self) -> list[int] | None:
        """A group for each row, if every batch and micro-batch must hold rows of every group."""
        return None

    def before_training(self, accelerator: Accelerator) -> None:  # noqa: B027, a hook that may stay empty
        """What a method prepares once, such as the reference."""

    @contextmanager
    def training_mode(self) -> Iterator[None]:
        """The mode in which the method trains the policy's modules."""
        self.policy.train()
        yield

    def before_step(self, accelerator, model, micro_batches: list[dict[str, Tensor]]) -> None:  # noqa: B027
        """What a method computes from all micro-batches of a step together."""

    def train(self) -> History:
        """Train the policy in place and return its history.

        Ctrl-C, or the notebook's stop button, stops after the step at hand and keeps history and weights.

        Raises:
            TrainingError: if a loss or gradient is not finite; the weights stay as they were before that step.
        """
        config = self.config
        torch.manual_seed(config.seed)
        AcceleratorState._reset_state()  # or a second run in this process could not change its precision
        accelerator = Accelerator(
            mixed_precision=config.mixed_precision,
            gradient_accumulation_plugin=GradientAccumulationPlugin(
                num_steps=config.accumulation, sync_with_dataloader=False
            ),
        )
        self.policy.to(accelerator.device)
        self.policy.zero_grad()  # what a run that failed left behind must not enter the first step
        self.before_training(accelerator)
        lengths = [self.length(row) for row in self.rows]
        batches = LengthBuckets(lengths, config.batch_size, seed=config.seed, groups=self.groups())
        loader = DataLoader(range(len(self.rows)), batch_sampler=batches, collate_fn=self._micro_batches)
        optimizer = torch.optim.AdamW(
            [p for p in self.policy.parameters() if p.requires_grad],
            lr=config.learning_rate,
            betas=config.adam_betas,
            weight_decay=config.weight_decay,
            fused=True,
        )
        model, optimizer, loader = accelerator.prepare(self.policy, optimizer, loader)
        steps = max(1, round(config.epochs * len(loader)))
        scheduler = get_scheduler(config.schedule, optimizer, round(config.warmup_ratio * steps), steps)
        history, window = History(), defaultdict(list)
        bar = tqdm(total=steps, disable=not (config.progress and accelerator.is_main_process), desc=self.name)
        model.train()
        try:
            with self.training_mode(), _stop_after_step() as stop, bar:
                for step, micro_batches in enumerate(_repeat(loader, steps), start=1):
                    metrics = self._step(accelerator, model, optimizer, micro_batches, step)
                    metrics["learning_rate"] = scheduler.get_last_lr()[0]
                    scheduler.step()
                    for name, value in metrics.items():
                        window[name].append(value)
                    history.interrupted = _anywhere(accelerator, stop.is_set())
                    if step == 1 or step % config.log_every == 0 or step == steps or history.interrupted:
                        history.rows.append(_averaged(window, step, step / len(loader)))
                        bar.set_postfix(loss=f"{history.rows[-1]['loss']:.3f}")
                        window.clear()
                    bar.update()
                    if history.interrupted:
                        break
        finally:
            self.policy = accelerator.unwrap_model(model, keep_fp32_wrapper=False).eval()
        accelerator.wait_for_everyone()
        return history

    @property
    def name(self) -> str:
        return type(self).__name__.removesuffix("Trainer")

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the policy and its tokenizer so that `load_policy(folder)` reads them back."""
        if PartialState().is_main_process:
            save_pretrained(self.policy, self.tokenizer, folder)

    def _micro_batches(self, indices: list[int]) -> list[dict[str, Tensor]]:
        groups = self.groups() or [0] * len(self.rows)
        members = [[i for i in indices if groups[i] == group] for group in sorted({groups[i] for i in indices})]
        dealt = [even_parts(group, self.config.accumulation) for group in members]
        return [self.collate([i for part in parts for i in part]) for parts in zip(*dealt, strict=True)]

    def _step(self, accelerator, model, optimizer, micro_batches, step: int) -> dict[str, float]:
        """One optimiser step over all micro-batches; each term of the loss weighs the same in all of them."""
        totals: dict[str, float] = defaultdict(float)
        weights = [self.weight(batch) for batch in micro_batches]
        everywhere = accelerator.reduce(torch.tensor(float(sum(weights)), device=accelerator.device), "sum")
        scale = self.config.accumulation * accelerator.num_processes / everywhere.item()
        self.before_step(accelerator, model, micro_batches)
        for batch, weight in zip(micro_batches, weights, strict=True):
            with accelerator.accumulate(model):
                with accelerator.autocast():
                    loss, metrics = self.loss(model, batch)
                accelerator.backward(loss * scale)
            for name, value in ({"loss": loss.item() / weight} | metrics).items():
                totals[name] += value * weight / sum(weights)
        norm = accelerator.clip_grad_norm_(model.parameters(), self.config.max_grad_norm)
        totals["grad_norm"] = float(norm) if norm is not None else float("nan")
        self._check_finite(totals, step)
        optimizer.step()
        optimizer.zero_grad()
        return dict(totals)

    def _check_finite(self, metrics: dict[str, float], step: int) -> None:
        for name in ("loss", "grad_norm"):
            if not torch.isfinite(torch.tensor(metrics[name])):
                raise TrainingError(
                    f"step {step}: the {name} is {metrics[name]}. {WEIGHTS_KEPT} Likely causes: a learning rate "
                    f"that is too high (now {self.config.learning_rate:g}), half precision without bf16, or a "
                    "damaged checkpoint. Try a third of the learning rate."
                )


def _repeat(loader, steps: int) -> Iterator:
    """Batches of as many epochs as `steps` need."""
    taken = 0
    while taken < steps:
        for batch in loader:
            yield batch
            taken += 1
            if taken == steps:
                return


def _anywhere(accelerator: Accelerator, flag: bool) -> bool:
    """Whether the flag is set in any process, so that all stop at the same step."""
    if accelerator.num_processes == 1:
        return flag
    return accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), "sum").item() > 0


def _averaged(window: dict[str, list[float]], step: int, epoch: float) -> dict[str, float]:
    return {"step": step, "epoch": epoch} | {name: sum(v) / len(v) for name, v in window.items()}


@contextmanager
def _stop_after_step() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C into a flag; the second one interrupts at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    previous = signal.getsignal(signal.SIGINT)

    def handle(signum, frame):
        stop.set()
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, handle)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, previous)
