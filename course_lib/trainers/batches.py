"""Where a run's batches come from: indices bucketed by length, shared out to processes, cut into micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from course_lib.data import LengthBuckets, even_parts


class RecordBatches:
    """Micro-batches of records, epoch after epoch; it knows its place, so a run can go on from there.

    Args:
        lengths: tokens of each row.
        groups: one number a row; every batch and micro-batch holds its share of every group. None: no groups.
        collate: row indices to a batch of tensors.
        batch_size, accumulation, seed: as in `TrainingConfig`.
        share: (process, processes): each takes every so manieth batch; the first ones stand in for those that miss.
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
        """Batches an epoch, for each process."""
        return -(-len(self.buckets) // self.share[1])

    def take(self) -> list[dict[str, Tensor]]:
        """The next batch, as micro-batches."""
        if self.place == len(self):
            self.epoch, self.place, self.order = self.epoch + 1, 0, self._epoch(self.epoch + 1)
        indices = self.order[self.place]
        self.place += 1
        return [self.collate(part) for part in self.micro_batches(indices)]

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
        """This process's batches of an epoch, as row indices; all processes get equally many."""
        process, processes = self.share
        self.buckets.epoch = epoch
        batches = list(self.buckets)
        padded = (batches * processes)[: len(self) * processes]
        return padded[process::processes]
