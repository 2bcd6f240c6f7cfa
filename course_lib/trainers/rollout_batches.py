"""Where an online run's batches come from: rollouts of a few prompts, dealt out several times in minibatches."""

from __future__ import annotations

import random
from collections.abc import Callable

from torch import Tensor

from course_lib.data import even_parts
from course_lib.trainers.batches import StandIn
from course_lib.trainers.parts import TrainingError


class RolloutBatches:
    """Minibatches of one rollout after another; it knows its place, in the middle of a rollout too.

    Args:
        prompts: how many there are.
        collect: `(round, prompt indices)` to the tensors of a rollout, (B, T) or (B,) each.
        prompts_per_rollout: prompts that are rolled out together; the last of a pass may be fewer.
        rows_per_prompt: rows that a prompt adds to a rollout, at most.
        batch_size: completions of an optimiser step.
        update_epochs: how often a rollout is gone through.
        accumulation: micro-batches of a process's share of a minibatch.
        seed: of the order of prompts and minibatches.
        share: (process, processes): which of how many equal parts of each minibatch is this process's own. The rollout
            is the same on all of them.
    """

    def __init__(
        self,
        prompts: int,
        collect: Callable[[int, list[int]], dict[str, Tensor]],
        *,
        prompts_per_rollout: int,
        rows_per_prompt: int,
        batch_size: int,
        update_epochs: int,
        accumulation: int,
        seed: int,
        share: tuple[int, int] = (0, 1),
    ):
        self.prompts, self.collect, self.seed = prompts, collect, seed
        self.per_rollout = min(prompts_per_rollout, prompts)
        self.rows_per_prompt, self.batch_size = rows_per_prompt, batch_size
        self.update_epochs, self.accumulation, self.share = update_epochs, accumulation, share
        self.round, self.rollout, self.queue = 0, {}, []

    @property
    def rounds(self) -> int:
        """Rollouts in a pass over the prompts."""
        return -(-self.prompts // self.per_rollout)

    def __len__(self) -> int:
        """Optimiser steps in a pass over the prompts."""
        sizes = [len(self._asked(number)) * self.rows_per_prompt for number in range(self.rounds)]
        return self.update_epochs * sum(len(self._cut(list(range(size)))) for size in sizes)

    def take(self) -> list[dict[str, Tensor]]:
        """This process's share of the next minibatch, as micro-batches; one `StandIn` where it has no row of it.

        Raises:
            TrainingError: if a whole pass over the prompts gave nothing to learn from.
        """
        began = self.round
        while not self.queue:
            if self.round - began > self.rounds:
                raise TrainingError(
                    "all completions of every prompt have equal rewards, so there is nothing to learn from; look at "
                    "the reward function, or raise temperature or completions. The weights are kept"
                )
            self.rollout = self.collect(self.round, self._asked(self.round))
            rows = len(self.rollout["input_ids"])
            for epoch in range(self.update_epochs if rows else 0):
                self.queue += self._cut(self._shuffled(range(rows), f"{self.round}-{epoch}"))
            self.round += 1
        rows, (process, processes) = self.queue.pop(0), self.share
        micro_batches = min(self.accumulation, max(1, len(rows) // processes))  # equally many on every process
        if not (mine := rows[process::processes]):
            return [StandIn(self._rows(rows[:1]))]
        return [self._rows(part) for part in even_parts(mine, micro_batches)]

    def drop_the_rest(self) -> None:
        """Go on with a new rollout."""
        self.queue = []

    def state_dict(self) -> dict:
        return {"round": self.round, "queue": self.queue, "rollout": self.rollout}

    def load_state_dict(self, state: dict) -> None:
        self.round, self.queue, self.rollout = state["round"], [list(rows) for rows in state["queue"]], state["rollout"]

    def _asked(self, number: int) -> list[int]:
        """Indices of the prompts of a round: every prompt once in each pass."""
        order = self._shuffled(range(self.prompts), f"pass-{number // self.rounds}")
        start = number % self.rounds * self.per_rollout
        return order[start : start + self.per_rollout]

    def _shuffled(self, items, name: str) -> list[int]:
        return random.Random(f"{self.seed}-{name}").sample(list(items), len(items))

    def _cut(self, rows: list[int]) -> list[list[int]]:
        return even_parts(rows, max(1, round(len(rows) / self.batch_size)))

    def _rows(self, rows: list[int]) -> dict[str, Tensor]:
        """Some rows of the rollout, without columns that are padding in all of them."""
        picked = {name: tensor[rows] for name, tensor in self.rollout.items()}
        used = picked["attention_mask"].bool().flatten(0, -2).any(dim=0).nonzero()[:, 0]
        first, last = used[0], used[-1] + 1
        return {name: t[..., first:last] if t.dim() > 1 else t for name, t in picked.items()}
