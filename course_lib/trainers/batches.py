"""Where a run's batches come from: indices bucketed by length, shared out to processes, cut into micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from course_lib.data import LengthBuckets, even_parts


class StandIn(dict):
    """A batch that a process without rows computes along with the others, which would wait for it; it counts 0."""


class RecordBatches:
    """Micro-batches of records, epoch after epoch; it knows its place, so a run can go on from there.

    Batches are formed as in one process, and each is dealt out to the processes, so that their number changes nothing.

    Args:
        lengths: tokens of each row.
        groups: one number a row; every batch and micro-batch holds its share of every group. None: no groups.
        collate: row indices to a batch of tensors.
        batch_size, accumulation, seed: as in `TrainingConfig`.
        share: (process, processes): which of how many equal parts of each batch is this process's own.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        groups: Sequence[int] | None,
        collate: Callable[[list[int]], dict[str, Tensor]],
        *,
        batch_size: int,
        accumulation: int = 1,
        seed: int = 0,
        share: tuple[int, int] = (0, 1),
    ):
        self.buckets = LengthBuckets(lengths, batch_size, seed=seed, groups=groups)
        self.groups = groups or [0] * len(lengths)
        self.collate, self.accumulation, self.share = collate, accumulation, share
        self.epoch, self.place, self.order = 0, 0, self._epoch(0)

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.buckets)

    def take(self) -> list[dict[str, Tensor]]:
        """This process's share of the next batch, as micro-batches; one `StandIn` where it has no row of it."""
        if self.place == len(self):
            self.epoch, self.place, self.order = self.epoch + 1, 0, self._epoch(self.epoch + 1)
        indices = self.order[self.place]
        self.place += 1
        mine = self.dealt(indices)
        if not mine:
            return [StandIn(self.collate(indices[:1]))]
        return [self.collate(part) for part in self.micro_batches(mine)]

    def dealt(self, indices: list[int]) -> list[int]:
        """This process's rows of a batch: like the others' in number, in lengths, and of every group."""
        process, processes = self.share
        if processes == 1:
            return indices
        return sorted(indices, key=lambda i: self.groups[i])[process::processes]

    def micro_batches(self, indices: list[int]) -> list[list[int]]:
        """A batch's rows, each group dealt evenly over the micro-batches."""
        members = [[i for i in indices if self.groups[i] == g] for g in sorted({self.groups[i] for i in indices})]
        dealt = [even_parts(group, self.accumulation) for group in members]
        return [[row for part in parts for row in part] for parts in zip(*dealt, strict=True)]

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "place": self.place}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.place = state["epoch"], state["place"]
        self.order = self._epoch(self.epoch)

    def _epoch(self, epoch: int) -> list[list[int]]:
        """The batches of an epoch, as row indices."""
        self.buckets.epoch = epoch
        return list(self.buckets)
