"""The one training loop: take a batch, sum its loss over micro-batches, clip, step. What else happens are `parts`.

Built on Accelerate: the same loop runs on a CPU, a GPU, or several processes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch

from course_lib.trainers.batches import StandIn
from course_lib.trainers.method import Method
from course_lib.trainers.part import Part
from course_lib.trainers.run import Run
from course_lib.trainers.together import largest, summed


def fit(trainer: Method, run: Run, parts: Sequence[Part]) -> None:
    """Take the run's remaining steps."""
    try:
        for part in parts:
            part.start(run)
        with trainer.training_mode():
            while run.step < run.steps and not run.history.interrupted:
                take_step(trainer, run, parts)
                for part in parts:
                    part.after_step(run)
    finally:
        for part in parts:
            part.finish(run)


def take_step(trainer: Method, run: Run, parts: Sequence[Part]) -> None:
    """One optimiser step over all micro-batches of a batch."""
    micro_batches = [to_device(batch, run.accelerator.device) for batch in run.batches.take()]
    run.metrics = add_gradients(trainer, run, micro_batches)
    for name in run.models:  # each model apart: a critic's gradients must not shrink the policy's
        norm = run.clip(name, trainer.config.max_grad_norm)
        run.metrics["grad_norm" if name == "policy" else f"grad_norm/{name}"] = norm
    for part in parts:
        part.before_update(run)
    run.optimizer.step()
    run.optimizer.zero_grad()
    run.metrics["learning_rate"] = run.learning_rate
    run.scheduler.step()
    run.step += 1
    trainer.after_step(run)


def add_gradients(trainer: Method, run: Run, micro_batches: list[dict]) -> dict[str, float]:
    """Gradients of the loss's mean over its terms; returns the metrics, averaged alike over all processes.

    Of a metric whose name ends in `_max` it is the largest value.

    Micro-batches and processes hold unequal numbers of terms (tokens, say), and Accelerate averages over them as if
    they were equal. So each gives its *sum*, and one scale makes it the mean over all terms, which then weigh the same.
    """
    accelerator, models = run.accelerator, list(run.models.values())
    metrics, maxima = defaultdict(float), {}
    trainer.before_step(run, micro_batches)
    terms = [terms_of(trainer, batch) for batch in micro_batches]
    everywhere = summed(accelerator, {"terms": float(sum(terms))})["terms"]
    scale = len(micro_batches) * accelerator.num_processes / everywhere
    # a minibatch of a small rollout may have fewer micro-batches than the config asks for: its last one ends the step
    accelerator.gradient_accumulation_steps, accelerator.step = len(micro_batches), 0
    for batch, count in zip(micro_batches, terms, strict=True):
        with accelerator.accumulate(*models):
            with accelerator.autocast():
                loss, found = trainer.loss(*models, batch)
            run.backward(loss * (scale if count else 0.0))
        for name, value in ({"loss": loss.item() / max(1, count)} | found).items():
            if name.endswith("_max"):
                maxima[name] = max(value, maxima.get(name, value))
            else:
                metrics[name] += value * count / everywhere
    return summed(accelerator, metrics) | largest(accelerator, maxima)


def terms_of(trainer: Method, batch: dict) -> int:
    """How many terms of the mean a batch brings."""
    return 0 if isinstance(batch, StandIn) else trainer.terms(batch)


def to_device(batch: dict, device: torch.device) -> dict:
    moved = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in batch.items()}
    return type(batch)(moved)
