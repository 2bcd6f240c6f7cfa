"""What happens around the steps of a run: each part is small, knows the run alone, and can be left out."""

from __future__ import annotations

import logging
import signal
import threading
from collections import defaultdict
from pathlib import Path

import torch
from tqdm.auto import tqdm

from course_lib.logprobs import evaluating
from course_lib.rollouts import sample
from course_lib.trainers.checkpoint import Checkpoints
from course_lib.trainers.loop import terms_of, to_device
from course_lib.trainers.method import Method
from course_lib.trainers.part import Part
from course_lib.trainers.run import Run
from course_lib.trainers.sharded import weight_here, whole
from course_lib.trainers.together import summed

logger = logging.getLogger(__name__)
ABSURD_RATE = 0.1  # AdamW moves every weight by about its rate in a step; no training survives this one


class TrainingError(RuntimeError):
    """Training had to stop; the message says at which step, why, and what to try."""


def standard_parts(trainer: Method, checkpoints: Checkpoints | None) -> list[Part]:
    """What every run has, in the order in which it must happen."""
    parts: list[Part] = [FiniteCheck(), StopOnSignal()]
    if trainer.held_out:
        parts.append(Evaluate(trainer))
    if trainer.config.keep_best:
        parts.append(KeepBest(trainer))
    parts += [Log(trainer.config.log_every), Progress(trainer.name, trainer.config.progress)]
    if checkpoints:
        parts.append(SaveCheckpoints(trainer, checkpoints))
    return parts


class FiniteCheck(Part):
    """Stop at a loss, gradient or weight that is not finite, and keep the best weights that can be kept.

    A loss or gradient is seen before anything is written. A step that itself writes nonsense is seen only after it,
    so where the learning rate is absurd the weights before the step are kept until its result has proved sound.
    """

    def start(self, run: Run) -> None:
        self.before: list[torch.Tensor] = []

    def before_update(self, run: Run) -> None:
        norms = {name: value for name, value in run.metrics.items() if name.startswith("grad_norm")}
        for name, value in ({"loss": run.metrics["loss"]} | norms).items():
            if not torch.isfinite(torch.tensor(value)):
                self._stop(run, run.step + 1, f"the {name} is {value}")
        absurd = max(run.scheduler.get_last_lr()) > ABSURD_RATE  # a critic's may be higher than the policy's
        kept = absurd and not run.sharded  # an engine has a copy of its own, which would go on from the nonsense
        self.before = [p.detach().clone() for p in run.parameters()] if kept else []

    def after_step(self, run: Run) -> None:
        weights = [weight_here(p) for p in run.parameters()]
        spoilt = not torch.stack(torch._foreach_norm(weights)).sum().isfinite()
        if summed(run.accelerator, {"spoilt": float(spoilt)})["spoilt"]:  # a shard of one process is enough
            self._stop(run, run.step, "it wrote weights that are not finite", spoilt=True)

    def _stop(self, run: Run, step: int, what: str, *, spoilt: bool = False) -> None:
        for weight, before in zip(run.parameters(), self.before, strict=False):
            weight.data.copy_(before)
        kept = "The weights are those of the last good step."
        if spoilt and not self.before:
            kept = "The weights are spoilt: go back to a checkpoint, or load the model again."
        raise TrainingError(
            f"step {step}: {what}. {kept} Likely causes: a learning rate that is too high (now at most "
            f"{run.optimizer.defaults['lr']:g}), half precision without bf16, or a damaged checkpoint. Try a third of "
            "the learning rate."
        )


class StopOnSignal(Part):
    """Ctrl-C, SIGTERM and SIGHUP stop the run after the step at hand; a second Ctrl-C interrupts at once."""

    SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

    def start(self, run: Run) -> None:
        self.asked = threading.Event()
        self.previous: dict = {}
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread do this
            self.previous = {number: signal.signal(number, self._handle) for number in self.SIGNALS if _heard(number)}

    def after_step(self, run: Run) -> None:
        accelerator, asked = run.accelerator, self.asked.is_set()
        if accelerator.num_processes > 1:  # all must stop at the same step, or the others wait for ever
            asked = accelerator.reduce(torch.tensor(float(asked), device=accelerator.device), "sum").item() > 0
        run.history.interrupted = asked

    def finish(self, run: Run) -> None:
        self._give_back()

    def _handle(self, signum, frame) -> None:
        self.asked.set()
        if signum == signal.SIGINT:  # launchers and clusters send the others more than once
            self._give_back()

    def _give_back(self) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        self.previous = {}


def _heard(number: int) -> bool:
    """Whether the run should listen to a signal: one that was started with nohup outlives its terminal."""
    return number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN


class Evaluate(Part):
    """Metrics over the held-out records, every `eval_every` steps and at the end."""

    def __init__(self, trainer):
        self.trainer = trainer

    def after_step(self, run: Run) -> None:
        every = self.trainer.config.eval_every
        due = every is not None and run.step % every == 0
        if due or run.step == run.steps or run.history.interrupted:
            found = self.trainer.held_out_metrics(run)
            run.metrics |= {f"eval_{name}": value for name, value in found.items()}


@torch.no_grad()
def evaluate(trainer: Method, run: Run) -> dict[str, float]:
    """Means over all held-out rows, each term weighing the same; the trained weights stay as they are."""
    batches = trainer.batches_of(trainer.held_out, accumulation=1, seed=0, share=run.share)
    sums = defaultdict(float)
    modules = torch.nn.ModuleList(run.unwrapped().values())
    for _ in range(len(batches)):
        (batch,) = [to_device(b, run.accelerator.device) for b in batches.take()]
        with evaluating(modules), run.accelerator.autocast():
            trainer.before_step(run, [batch])
            loss, metrics = trainer.loss(*run.models.values(), batch)
        terms = terms_of(trainer, batch)
        for name, value in ({"loss": loss.item() / max(1, terms)} | metrics | {"terms": 1.0}).items():
            sums[name] += value * terms
    sums = summed(run.accelerator, sums)
    total = sums.pop("terms")
    return {name: value / total for name, value in sums.items()}


class KeepBest(Part):
    """Write the model as `checkpoint_folder/best` whenever the held-out metric that `keep_best` names improves."""

    def __init__(self, trainer):
        self.trainer = trainer
        self.sign, self.metric = (-1 if trainer.config.keep_best[0] == "-" else 1), trainer.config.keep_best[1:]

    def after_step(self, run: Run) -> None:
        if not any(name.startswith("eval_") for name in run.metrics):
            return
        if self.metric not in run.metrics:
            known = sorted(name for name in run.metrics if name.startswith("eval_"))
            raise TrainingError(f"keep_best names {self.metric!r}, and held-out metrics are {', '.join(known)}")
        value = run.metrics[self.metric]
        if run.best is None or self.sign * value > self.sign * run.best:
            run.best = value
            self.trainer.save_pretrained(Path(self.trainer.config.checkpoint_folder) / "best")


class Samples(Part):
    """Greedy replies to a few prompts every so many steps and at the end, to read beside the curves.

    Args:
        prompts: strings or dialogues.
        every: optimiser steps between looks.
        tokenizer: the policy's.

    `rows` holds `{"step", "prompt", "reply"}` for each, on the main process.
    """

    def __init__(self, prompts, every: int, tokenizer, *, max_new_tokens: int = 48):
        self.prompts, self.every, self.tokenizer = list(prompts), every, tokenizer
        self.max_new_tokens, self.rows = max_new_tokens, []

    def after_step(self, run: Run) -> None:
        if run.step % self.every and run.step != run.steps and not run.history.interrupted:
            return
        policy = run.unwrapped()["policy"]
        with whole(policy):
            if run.accelerator.is_main_process:
                self._look(run.step, policy)

    def _look(self, step: int, policy) -> None:
        replies = sample(
            policy, self.tokenizer, self.prompts, temperature=0, max_new_tokens=self.max_new_tokens
        )  # fmt: skip
        self.rows += [{"step": step, "prompt": p, "reply": r} for p, r in zip(self.prompts, replies, strict=True)]


class Log(Part):
    """Average the metrics of `every` steps into one row of the history; the first and the last step have theirs."""

    def __init__(self, every: int):
        self.every = every

    def after_step(self, run: Run) -> None:
        for name, value in run.metrics.items():
            run.since_last_row[name].append(value)
        looked = any(name.startswith("eval_") for name in run.metrics)
        ends = run.step in (1, run.steps) or run.history.interrupted
        if ends or looked or run.step % self.every == 0:
            means = {name: sum(values) / len(values) for name, values in run.since_last_row.items()}
            run.history.rows.append({"step": run.step, "epoch": run.epoch} | means)
            run.since_last_row.clear()


class Progress(Part):
    """A progress bar with the loss of the history's last row."""

    def __init__(self, title: str, shown: bool):
        self.title, self.shown = title, shown

    def start(self, run: Run) -> None:
        hidden = not (self.shown and run.accelerator.is_main_process)
        self.bar = tqdm(total=run.steps, initial=run.step, disable=hidden, desc=self.title)

    def after_step(self, run: Run) -> None:
        self.bar.update()
        if run.history.rows:
            self.bar.set_postfix(loss=f"{run.history.rows[-1]['loss']:.3f}", refresh=False)

    def finish(self, run: Run) -> None:
        self.bar.close()


class SaveCheckpoints(Part):
    """Write a checkpoint every so many steps, and where the run ends."""

    def __init__(self, trainer: Method, checkpoints: Checkpoints):
        self.trainer, self.checkpoints = trainer, checkpoints

    def start(self, run: Run) -> None:
        if run.accelerator.is_main_process:
            self.checkpoints.refuse_unwritable()

    def after_step(self, run: Run) -> None:
        ends = run.step == run.steps or run.history.interrupted
        if run.step % self.trainer.config.checkpoint_every == 0 or ends:
            self.save(run)

    def save(self, run: Run) -> None:
        state = {"of": self.trainer.description(), "trainer": self.trainer.state_dict(), "run": run.state_dict()}
        if run.accelerator.is_main_process:
            try:
                self.checkpoints.write(run.step, state)
            except OSError as error:
                logger.warning("step %d: no checkpoint was written (%s); training goes on", run.step, error)
        run.accelerator.wait_for_everyone()
