"""What can happen around the steps of a run; `parts` holds those that every run has."""

from __future__ import annotations

from course_lib.trainers.run import Run


class Part:
    """Something that happens before, between and after the steps of a run; override what you need."""

    def start(self, run: Run) -> None:
        """Before the first step, or the first after a checkpoint."""

    def before_update(self, run: Run) -> None:
        """After the gradients of a step, before the weights move; `run.metrics` holds the step's loss and norm."""

    def after_step(self, run: Run) -> None:
        """After the weights have moved and `run.step` counts the step."""

    def finish(self, run: Run) -> None:
        """After the last step, or what ended the run before it."""
