"""A trainer: a method, the loop that trains it, and the folders that it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from accelerate.state import PartialState

from course_lib.models import save_pretrained
from course_lib.trainers.checkpoint import Checkpoints
from course_lib.trainers.history import History
from course_lib.trainers.loop import fit
from course_lib.trainers.method import Method
from course_lib.trainers.part import Part
from course_lib.trainers.parts import evaluate, standard_parts
from course_lib.trainers.run import Run
from course_lib.trainers.sharded import whole_on_main


class Trainer(Method):
    """A method together with the loop: `Trainer(policy, tokenizer, records, config).train()`."""

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

    def held_out_metrics(self, run: Run) -> dict[str, float]:
        """What a look at the held-out records finds: here means of the loss and its metrics over all of them."""
        return evaluate(self, run)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the policy and its tokenizer so that `load_policy(folder)` reads them back.

        Of several processes all call this, for each may hold a shard of the weights, and the main one writes.
        """
        main = PartialState().is_main_process
        with whole_on_main(self.policy, main):
            if main:
                save_pretrained(self.policy, self.tokenizer, folder)


def _refuse_another_run(saved: dict, now: dict) -> None:
    changed = [f"{k} was {saved.get(k)!r} and is {now.get(k)!r}" for k in now if saved.get(k) != now[k]]
    if changed:
        raise ValueError(
            f"the checkpoint is of another run: {'; '.join(changed)}. Go back to what it was, or begin in another "
            "checkpoint_folder"
        )
