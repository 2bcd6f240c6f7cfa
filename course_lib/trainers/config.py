"""Settings of a run: each has a default, says what it does and what it may be, and is checked when a config is made."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from pathlib import Path

Check = Callable[[object], str]  # what is allowed, for a value that is not; empty for one that is

SCHEDULES = (
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt"
)  # fmt: skip


def setting(default, check: Check, help: str):
    """A dataclass field with its check and its help text."""
    return field(default=default, metadata={"check": check, "help": help})


def number(
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
    infinite: bool = False,
) -> Check:
    """A real number within bounds; NaN never, infinity only if asked for."""
    bounds = [f"above {above:g}"] * (above > -math.inf) + [f"at least {least:g}"] * (least > -math.inf)
    bounds += [f"at most {most:g}"] * (most < math.inf) + [f"below {below:g}"] * (below < math.inf)
    allowed = " ".join(["a number", " and ".join(bounds)]).strip()

    def check(value) -> str:
        plain = isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)
        fits = plain and (infinite or not math.isinf(value)) and value > above and least <= value <= most
        fits = fits and (value < below or below == math.inf)
        return "" if fits else allowed

    return check


def count(least: int = 1) -> Check:
    """A whole number."""

    def check(value) -> str:
        whole = isinstance(value, Integral) and not isinstance(value, bool)
        return "" if whole and value >= least else f"a whole number, at least {least}"

    return check


def one_of(*allowed) -> Check:
    return lambda value: (
        "" if isinstance(value, str) and value in allowed else "one of " + ", ".join(map(repr, allowed))
    )


def optional(check: Check) -> Check:
    """None, or what `check` allows."""
    return lambda value: "" if value is None or not check(value) else f"None or {check(value)}"


def flag(value) -> str:
    return "" if isinstance(value, bool) else "True or False"


def folder(value) -> str:
    return "" if isinstance(value, (str, Path)) and str(value) else "a folder's path"


def _signed_metric(value) -> str:
    fits = isinstance(value, str) and value[:1] in "+-" and value[1:].startswith("eval_")
    return "" if fits else "'-eval_loss' or another held-out metric, with - where low is good and + where high is"


def _two_betas(value) -> str:
    share = number(least=0, most=1)
    fits = isinstance(value, (tuple, list)) and len(value) == 2 and not any(share(b) or b == 1 for b in value)
    return "" if fits else "two numbers, each at least 0 and below 1"


@dataclass
class Checked:
    """Settings, each a `setting`: checked when they are made, and plain values for YAML or JSON."""

    def __post_init__(self):
        for known in fields(self):
            if allowed := known.metadata["check"](getattr(self, known.name)):
                raise ValueError(f"{known.name} is {allowed}; got {getattr(self, known.name)!r}")

    def to_dict(self) -> dict:
        """All settings as plain values, for YAML or JSON."""
        return {known.name: _plain(getattr(self, known.name)) for known in fields(self)}

    @classmethod
    def from_dict(cls, settings: Mapping):
        """A config from plain values, such as a YAML file holds; what is left out keeps its default.

        Raises:
            ValueError: for a name that is no setting (the nearest one is named), or a value that cannot be meant.
        """
        names = [known.name for known in fields(cls)]
        for name in settings:
            if name not in names:
                near = difflib.get_close_matches(str(name), names, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names)}"
                raise ValueError(f"{cls.__name__} has no setting {name!r}; {hint}")
        return cls(**settings)


@dataclass
class TrainingConfig(Checked):
    """Settings that every trainer has.

    Default learning rates suit models of billions of parameters; the course's tiny one takes about a
    hundred times as much. `batch_size` counts records (pairs, for pairs) an optimiser step, over all processes
    together: each gets an equal share of them, and cuts it into `accumulation` micro-batches that go through the model
    one after another. Neither the number of processes nor that of micro-batches changes the result.

    Raises:
        ValueError: when it is made, for any setting that cannot be meant.
    """

    learning_rate: float = setting(2e-5, number(above=0), "highest learning rate of AdamW")
    epochs: float = setting(1, number(above=0), "passes over the records; parts of one are allowed")
    batch_size: int = setting(32, count(), "records (pairs, for pairs) an optimiser step, over all processes")
    accumulation: int = setting(1, count(), "micro-batches that each process cuts its share of a batch into")
    schedule: str = setting("linear", one_of(*SCHEDULES), "how the learning rate falls after warm-up")
    warmup_ratio: float = setting(0.1, number(least=0, most=1), "share of the steps in which the rate rises")
    optimizer: str = setting("adamw", one_of("adamw", "adamw-8bit"), "8bit: moments in 8 bits, by bitsandbytes")
    weight_decay: float = setting(0.0, number(least=0), "AdamW's decay")
    adam_betas: tuple[float, float] = setting((0.9, 0.999), _two_betas, "AdamW's averaging of gradients and squares")
    max_grad_norm: float = setting(1.0, number(above=0, infinite=True), "gradients are scaled down to it; inf never")
    max_length: int = setting(1024, count(2), "tokens of prompt and completion together")
    over_long: str = setting("refuse", one_of("refuse", "drop", "truncate"), "what becomes of longer records")
    gradient_checkpointing: bool = setting(False, flag, "keep layers' inputs alone, and compute the rest again")
    mixed_precision: str = setting("no", one_of("no", "bf16"), "bf16: fp32 weights, arithmetic in bf16")
    chunk_size: int | None = setting(None, optional(count()), "tokens scored at a time, as in completion_logps")
    seed: int = setting(0, count(0), "of the order of batches, and of dropout")
    log_every: int = setting(10, count(), "optimiser steps averaged into one row of the history")
    eval_every: int | None = setting(None, optional(count()), "steps between looks at the held-out records")
    keep_best: str | None = setting(
        None,
        optional(_signed_metric),
        "held-out metric by which the best model is kept, in the folder `best`",
    )
    checkpoint_folder: str | Path | None = setting(None, optional(folder), "where checkpoints go")
    checkpoint_every: int = setting(100, count(), "steps between checkpoints, if there is a folder for them")
    keep_checkpoints: int = setting(2, count(), "newest checkpoints that stay")
    progress: bool = setting(True, flag, "show a progress bar")

    def __post_init__(self):
        super().__post_init__()
        if self.accumulation > self.batch_size:
            raise ValueError(
                f"a batch of {self.batch_size} cannot be cut into {self.accumulation} micro-batches; "
                "lower accumulation or raise batch_size"
            )

        if self.keep_best and not (self.eval_every and self.checkpoint_folder):
            raise ValueError("keep_best needs eval_every, to know what is best, and checkpoint_folder, to keep it in")


@dataclass
class OnlineConfig(TrainingConfig):
    """Settings of a run on the policy's own samples. `epochs` are passes over the prompts, `batch_size` completions."""

    learning_rate: float = setting(1e-6, number(above=0), "highest learning rate of AdamW")
    schedule: str = setting("constant", one_of(*SCHEDULES), "how the learning rate falls after warm-up")
    warmup_ratio: float = setting(0.0, number(least=0, most=1), "share of the steps in which the rate rises")
    prompts_per_rollout: int = setting(96, count(), "prompts that are rolled out together")
    completions: int = setting(1, count(), "completions of each prompt")
    update_epochs: int = setting(1, count(), "how often a rollout is gone through")
    max_new_tokens: int = setting(48, count(), "where a completion is cut off")
    temperature: float = setting(1.0, number(above=0), "of the distribution that is drawn from and trained")
    kl_coefficient: float = setting(0.05, number(least=0), "price of a nat of distance from the reference")
    missing_end_penalty: float = setting(0.0, number(least=0), "taken from the score of a completion that was cut off")
    rollout_batch: int = setting(256, count(), "completions that are drawn or scored together")


def _plain(value):
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value
