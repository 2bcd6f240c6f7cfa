"""A run: all that changes while a trainer trains, in one place. A checkpoint holds this and nothing else."""

from __future__ import annotations

import random
from collections import defaultdict
from datetime import timedelta

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import GradientAccumulationPlugin, InitProcessGroupKwargs, gather_object
from transformers import get_scheduler

from course_lib.trainers.config import TrainingConfig
from course_lib.trainers.history import History
from course_lib.trainers.method import Method
from course_lib.trainers.sharded import Engines, is_sharded, join_on_cpus

PATIENCE = timedelta(minutes=30)  # how long a process waits for one that does not come, before all of them fail


class Run:
    """Models, optimiser, schedule, place in the data, random numbers and history of one training run.

    Attributes:
        step: optimiser steps taken; `steps`: those to take.
        models: the trained models as Accelerate wraps them, by name.
        metrics: those of the step at hand, before they are averaged into the history.
        best: the best value of the metric that `keep_best` names, None before the first.
    """

    def __init__(self, trainer: Method):
        config = trainer.config
        self.accelerator = _accelerator(config)
        torch.manual_seed(config.seed + self.accelerator.process_index)  # each process drops out others
        modules = trainer.trained()
        for module in modules.values():
            module.to(self.accelerator.device)
            module.zero_grad()  # what a run that failed left behind must not enter the first step
        trainer.before_training(self.accelerator)
        self.batches = trainer.batches(self)
        groups = [
            {"params": [p for p in module.parameters() if p.requires_grad], "lr": trainer.learning_rate_of(name)}
            for name, module in modules.items()
        ]
        if is_sharded(self.accelerator):
            self.optimizer = Engines(self.accelerator, config, modules, groups, lambda some: _adamw(config, some))
            self.models = self.optimizer.by_name
        else:
            *models, self.optimizer = self.accelerator.prepare(*modules.values(), _adamw(config, groups))
            self.models = dict(zip(modules, models, strict=True))
        self.step, self.steps = 0, max(1, round(config.epochs * len(self.batches)))
        warmup = round(config.warmup_ratio * self.steps)
        self.scheduler = get_scheduler(config.schedule, self.optimizer, warmup, self.steps)
        self.history, self.metrics, self.best = History(), {}, None
        self.since_last_row: dict[str, list[float]] = defaultdict(list)

    @property
    def share(self) -> tuple[int, int]:
        """Which process this is, of how many."""
        return self.accelerator.process_index, self.accelerator.num_processes

    @property
    def sharded(self) -> bool:
        """Whether engines of DeepSpeed hold the models."""
        return isinstance(self.optimizer, Engines)

    @property
    def epoch(self) -> float:
        return self.step / len(self.batches)

    @property
    def learning_rate(self) -> float:
        """That of the step at hand."""
        return self.scheduler.get_last_lr()[0]

    def parameters(self) -> list[torch.nn.Parameter]:
        """All weights that the optimiser moves."""
        return [p for model in self.models.values() for p in model.parameters() if p.requires_grad]

    def backward(self, loss: torch.Tensor) -> None:
        """Gradients of a micro-batch's loss, whose scale Accelerate divides by the number of micro-batches."""
        if self.sharded:
            loss = loss / self.accelerator.gradient_accumulation_steps
            self.optimizer.backward(loss, last=self.accelerator.sync_gradients)
        else:
            self.accelerator.backward(loss)

    def clip(self, name: str, most: float) -> float:
        """Scale a model's gradients down to a norm; returns the norm that they had."""
        if self.sharded:
            return self.optimizer.norm(name)
        return float(self.accelerator.clip_grad_norm_(self.models[name].parameters(), most))

    def unwrapped(self) -> dict[str, torch.nn.Module]:
        unwrap = self.accelerator.unwrap_model
        return {name: unwrap(model, keep_fp32_wrapper=False) for name, model in self.models.items()}

    def state_dict(self) -> dict:
        """Everything that a run needs to go on, as tensors and plain values."""
        optimizer = self.optimizer.state_dict()
        return {
            "step": self.step,
            "weights": {name: self._weights(name, module) for name, module in self.unwrapped().items()},
            "optimizer": {
                "state": {str(i): state for i, state in optimizer["state"].items()},
                "param_groups": optimizer["param_groups"],
            },
            "scheduler": {k: v for k, v in self.scheduler.state_dict().items() if k != "lr_lambdas"},
            "batches": self.batches.state_dict(),
            "history": self.history.rows,
            "best": self.best,
            "since_last_row": dict(self.since_last_row),
            "random": gather_object([_random_state()]),  # of every process: each draws its own dropout
        }

    def load_state_dict(self, state: dict) -> None:
        """Put back what `state_dict` gave, so that the next step is the one that would have followed."""
        self.step = state["step"]
        for name, module in self.unwrapped().items():
            saved = state["weights"][name]
            for key, tensor in (_buffers(module) if self.sharded else _moving(module)).items():
                tensor.copy_(saved[key])
            if self.sharded:
                self.optimizer.load_weights(name, saved)
        optimizer = state["optimizer"]
        self.optimizer.load_state_dict(
            {
                "state": {int(i): values for i, values in optimizer["state"].items()},
                "param_groups": optimizer["param_groups"],
            }
        )
        self.scheduler.load_state_dict(state["scheduler"] | {"lr_lambdas": [None] * len(self.scheduler.lr_lambdas)})
        self.batches.load_state_dict(state["batches"])
        self.history.rows[:], self.best = state["history"], state["best"]
        self.since_last_row.update(state["since_last_row"])
        index, processes = self.accelerator.process_index, state["random"]
        if index < len(processes):  # else the checkpoint is of fewer processes, and this one draws as a new one
            _set_random_state(processes[index])

    def _weights(self, name: str, module: torch.nn.Module) -> dict[str, torch.Tensor]:
        if self.sharded:
            return self.optimizer.weights(name) | _buffers(module)
        return _moving(module)


def _adamw(config: TrainingConfig, groups: list[dict]):
    options = {
        "lr": config.learning_rate, "betas": tuple(config.adam_betas), "weight_decay": config.weight_decay
    }  # fmt: skip
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, **options, fused=True)
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit(groups, **options)


def _accelerator(config: TrainingConfig) -> Accelerator:
    AcceleratorState._reset_state()  # or a second run in this process could not change its precision
    join_on_cpus(timeout=PATIENCE)
    return Accelerator(
        mixed_precision=config.mixed_precision,
        gradient_accumulation_plugin=GradientAccumulationPlugin(
            num_steps=config.accumulation, sync_with_dataloader=False
        ),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PATIENCE)],
    )


def _moving(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The tensors that training changes: trained weights, and buffers. What is frozen comes from where it came from."""
    return {name: p.detach() for name, p in module.named_parameters() if p.requires_grad} | _buffers(module)


def _buffers(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    kept = module.state_dict().keys()  # tables that a model makes anew from its config are not in it
    return {name: buffer for name, buffer in module.named_buffers() if name in kept}


def _random_state() -> dict:
    kind, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": [kind, keys.tolist(), *rest],
    }


def _set_random_state(state: dict) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state(tuple(state["numpy"]))
