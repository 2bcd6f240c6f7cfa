"""What the processes of a run tell one another, so that all know and decide the same; alone, a process asks nobody."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.state import PartialState
from accelerate.utils import broadcast_object_list, gather_object

Found = TypeVar("Found")


def summed(accelerator: Accelerator, values: dict[str, float]) -> dict[str, float]:
    """Sums over all processes, each of which has the same names."""
    if accelerator.num_processes == 1:
        return dict(values)
    names = sorted(values)
    mine = torch.tensor([values[name] for name in names], dtype=torch.float64, device=accelerator.device)
    return dict(zip(names, accelerator.reduce(mine, "sum").tolist(), strict=True))


def largest(accelerator: Accelerator, values: dict[str, float]) -> dict[str, float]:
    """The largest value of each name over all processes."""
    if accelerator.num_processes == 1 or not values:
        return dict(values)
    names = sorted(values)
    mine = torch.tensor([[values[name] for name in names]], dtype=torch.float64, device=accelerator.device)
    return dict(zip(names, accelerator.gather(mine).amax(dim=0).tolist(), strict=True))


def joined(compute: Callable[[], Found]) -> list[Found]:
    """What `compute` gives on each process, in their order.

    Raises:
        RuntimeError: if it raises one on any process, the same one on all; else the others would wait for ever.
    """
    if PartialState().num_processes == 1:
        return [compute()]
    try:
        mine = compute()
    except RuntimeError as error:
        mine = error
    everywhere = gather_object([mine])
    for found in everywhere:
        if isinstance(found, RuntimeError):
            raise found
    return everywhere


def of_main(compute: Callable[[], Found]) -> Found:
    """What `compute` gives on the main process, which alone runs it."""
    state = PartialState()
    [found] = broadcast_object_list([compute() if state.is_main_process else None])
    return found


def my_part(count: int) -> slice:
    """This process's part of so many things, all parts together being all of them in order; it may be empty."""
    state = PartialState()
    cuts = [round(i * count / state.num_processes) for i in (state.process_index, state.process_index + 1)]
    return slice(*cuts)
