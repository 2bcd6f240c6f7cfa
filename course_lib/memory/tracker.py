"""What a piece of PyTorch code really holds in memory: the truth that `estimate_memory` is measured against.

The only file of this room that needs torch. Under `FakeTensorMode` tensors have
shapes but no data, so a step of a model of any size can be tracked on a laptop.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Kernels that allocate a scratch tensor of their input's size and hide it from the dispatcher.
SCRATCH = {torch.ops.aten.logsumexp.default}


class MemoryTracker(TorchDispatchMode):
    """Follows every tensor storage from birth to death while it is active: `with MemoryTracker() as tracker: ...`.

    `live` is what is held now, `peak` the most that was, `phases` the most in each `phase(name)`; all in bytes as
    the tensors need them. An allocator rounds each one up to 512, and holds free blocks beside them.
    """

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0
        self.phases: dict[str, int] = {}
        self._storages: weakref.WeakSet = weakref.WeakSet()
        self._phase: str | None = None

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Record the peak of what runs inside under this name."""
        self._phase, before = name, self._phase
        self._measure()
        try:
            yield
        finally:
            self._phase = before

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._follow(tensor.untyped_storage())
        scratch = args[0].untyped_storage().nbytes() if func in SCRATCH else 0
        self._measure(scratch)
        return out

    def _follow(self, storage: torch.UntypedStorage) -> None:
        if storage not in self._storages:
            self._storages.add(storage)
            self.live += storage.nbytes()
            weakref.finalize(storage, self._forget, storage.nbytes())

    def _forget(self, size: int) -> None:
        self.live -= size

    def _measure(self, scratch: int = 0) -> None:
        self.peak = max(self.peak, self.live + scratch)
        if self._phase is not None:
            self.phases[self._phase] = max(self.phases.get(self._phase, 0), self.live + scratch)
