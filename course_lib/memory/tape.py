"""In bytes, what autograd does with tensors: an output lives until its last use, a saved tensor until its backward."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(eq=False, slots=True)
class Value:
    """A tensor. `size` in bytes; `home` owns its storage where it is a view of another value."""

    size: float
    needs_grad: bool
    width: int = 2  # bytes an element
    home: Value | None = None

    @property
    def storage(self) -> Value:
        return self.home or self


@dataclass(eq=False, slots=True)
class Operation:
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    saved: list[Value]
    gradient: float = 0.0  # bytes of weight gradients that its backward makes and leaves
    scratch: tuple[float, float] = (0.0, 0.0)  # bytes that live only inside the kernel, forward and backward
    passes_on: bool = False  # its inputs' gradients are its output's, not copies
    holds: tuple[Value, ...] = ()  # values that a Python variable keeps alive until here
    pinned: tuple[Value, ...] = ()  # storages that its function keeps as long as the graph lives


@dataclass(frozen=True)
class Marks:
    """How high one pass rises, in bytes. Each high-water mark includes the tensors saved for the backward pass.

    `saved`: those tensors alone. `forward`: the mark of a forward pass, its input included. `backward`: that of a
    backward pass, with gradients of activations and of weights. `recompute`: that of a checkpoint's second forward
    pass, which stops once nothing is left to save, with its input and the gradients that wait meanwhile. `gradients`:
    gradients of weights that the pass leaves behind. `keeps_input`: whether the input is among the saved tensors.
    `pinned`: bytes that last to the end of the whole backward pass, checkpointed or not.
    """

    saved: float
    forward: float
    recompute: float
    backward: float
    gradients: float
    keeps_input: bool
    pinned: float = 0.0


@dataclass
class Tape:
    """Operations in the order in which a forward pass runs them; `grad` tells whether autograd records.

    `again`: as a checkpoint does in the backward pass; what that pins is gone once the pass is through.
    """

    grad: bool
    again: bool = False
    operations: list[Operation] = field(default_factory=list)

    def run(
        self,
        size: float,
        *inputs: Value,
        width=2,
        saves=(),
        keeps=0.0,
        gradient=0.0,
        scratch=(0.0, 0.0),
        passes_on=False,
        pins=(),
        holds=(),
    ) -> Value:
        """Append an operation with an output of `size` bytes; it saves its output if `saves` holds None.

        `keeps` are further bytes that it makes and saves, such as the softmax's statistics.
        """
        needs_grad = self.grad and (gradient > 0 or any(v.needs_grad for v in inputs))
        output = Value(size, needs_grad, width)
        saved = [(output if v is None else v).storage for v in saves] if needs_grad else []
        if keeps and needs_grad:
            saved.append(Value(keeps, False))
        elif keeps:
            scratch = (scratch[0] + keeps, scratch[1])
        gradient = gradient if needs_grad else 0.0
        pinned = tuple(v.storage for v in pins) if needs_grad else ()
        self.operations.append(Operation(inputs, (output,), saved, gradient, scratch, passes_on, holds, pinned))
        return output

    def cast(self, value: Value, width: int) -> Value:
        """The value with `width` bytes an element: itself if it has them already."""
        if value.width == width:
            return value
        return self.run(value.size * width / value.width, value, width=width)

    def add(self, left: Value, right: Value) -> Value:
        """The sum, in the wider of the two types."""
        big = left if left.width >= right.width else right
        return self.run(big.size, left, right, width=big.width, passes_on=True)

    def add_in_place(self, value: Value, other: Value) -> None:
        """`value += other`."""
        self.operations.append(Operation((value, other), (value,), [], passes_on=True))

    def views(self, value: Value, *sizes: float) -> tuple[Value, ...]:
        """Parts of a value, without a copy; their gradients are put together into one of the value's size."""
        parts = tuple(Value(size, value.needs_grad, value.width, value.storage) for size in sizes)
        self.operations.append(Operation((value,), parts, []))
        return parts

    def hold(self, *values: Value) -> None:
        """Python variables keep these alive until the last operation so far."""
        self.operations[-1].holds += values

    def measured(self, start: Value, end: Value) -> Marks:
        """The high-water marks of the whole tape, from its input `start` to its output `end`."""
        pinned = {s for op in self.operations for s in op.pinned}
        saved = {s for op in self.operations for s in op.saved}
        lasting = saved if self.again else saved | pinned
        held = sum(s.size for s in lasting)
        last = max((i for i, op in enumerate(self.operations) if op.saved), default=-1)
        forward, recompute = self._forward(start, end, saved | pinned, last)
        holders = {} if self.again else dict.fromkeys(pinned, 1)
        backward, waiting, gradients = self._backward(end, held, last, holders) if end.needs_grad else (0.0, 0.0, 0.0)
        kept_anyway = sum(s.size for s in pinned - {start})
        return Marks(held, forward, recompute + waiting, backward, gradients, start in lasting, kept_anyway)

    def _forward(self, start: Value, end: Value, saved: set[Value], last: int) -> tuple[float, float]:
        """The high-water mark, and that up to operation `last`, whose output is made only if it is saved."""
        ends_at = self._last_uses(saved | {end})
        live = peak = recompute = start.size
        counted = {start}
        for i, op in enumerate(self.operations):
            for new in (*op.saved, *op.pinned, *(v.storage for v in op.outputs)):
                if i == last and new not in saved:
                    recompute = max(peak, live)
                live += 0.0 if new in counted else new.size
                counted.add(new)
            peak = max(peak, live + op.scratch[0])
            if i == last and op.outputs[0].storage in saved:
                recompute = peak
            live -= sum(v.size for v in ends_at.get(i, ()))
        return peak, recompute

    def _last_uses(self, lasting: set[Value]) -> dict[int, list[Value]]:
        """The values that end with each operation."""
        used = ((v.storage, i) for i, op in enumerate(self.operations) for v in (*op.outputs, *op.inputs, *op.holds))
        ends_at: dict[int, list[Value]] = {}
        for value, i in dict(used).items():
            if value not in lasting:
                ends_at.setdefault(i, []).append(value)
        return ends_at

    def _backward(self, end: Value, held: float, last: int, holders: dict[Value, int]) -> tuple[float, float, float]:
        """The high-water mark, the gradients alive when operation `last` runs backward, and those of weights.

        `holders` tells how many others than autograd hold a saved value.
        """
        for op in self.operations:
            for value in op.saved:
                holders[value] = holders.get(value, 0) + 1
        buffers: dict[Value, list] = {end: [end.size, 1]}  # a gradient: bytes, and how many values share it
        live, gradients = held + end.size, 0.0
        peak, waiting = live, end.size
        for i, op in reversed(list(enumerate(self.operations))):
            if i == last:
                waiting = live - held
            incoming = [buffers.pop(v) for v in op.outputs if v in buffers]
            if not incoming:
                continue
            made = []
            for value in op.inputs:
                if not value.needs_grad:
                    continue
                if op.passes_on and value.width == op.outputs[0].width:
                    incoming[0][1] += 1
                    made.append((value, incoming[0]))
                else:
                    made.append((value, [value.size, 1]))
                    live += value.size
            live += op.gradient
            gradients += op.gradient
            peak = max(peak, live + op.scratch[1])
            live -= _released(incoming)
            for value in op.saved:
                holders[value] -= 1
                live -= value.size if holders[value] == 0 else 0.0
            for value, buffer in made:
                if value in buffers:  # a sum of two gradients is a third tensor until both are gone
                    peak = max(peak, live + value.size)
                    live += value.size - _released([buffers[value], buffer])
                    buffer = [value.size, 1]
                buffers[value] = buffer
        return peak, waiting, gradients


def _released(buffers: Iterable[list]) -> float:
    """Bytes that are free once one more value lets go of each buffer."""
    freed = 0.0
    for buffer in buffers:
        buffer[1] -= 1
        freed += buffer[0] if buffer[1] == 0 else 0.0
    return freed
