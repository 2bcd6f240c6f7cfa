"""What one pass through a layer holds."""

from __future__ import annotations

from course_lib.memory.attention import attention
from course_lib.memory.mlp import mlp
from course_lib.memory.pieces import Pieces
from course_lib.memory.tape import Marks, Tape, Value
from course_lib.sizing.settings import Numerics
from course_lib.sizing.shapes import Architecture


def layer_pass(
    arch: Architecture,
    numerics: Numerics,
    rows: int,
    length: int,
    *,
    grad: bool,
    first: bool = False,
    again: bool = False,
) -> Marks:
    """One layer over `rows` rows of `length` tokens; `grad` tells whether autograd records it.

    The input of the `first` layer needs no gradient where the embeddings are frozen. `again`: as checkpointing runs
    it in the backward pass.
    """
    tape, tokens = Tape(grad, again), rows * length
    start = Value(numerics.width * tokens * arch.hidden_size, grad and not first, numerics.width)
    parts = Pieces(tape, arch, numerics, rows, length)
    attended = _added(parts, start, attention(parts, parts.norm(start)))
    end = _added(parts, attended, mlp(parts, parts.norm(attended)))
    tape.hold(start)
    return tape.measured(start, end)


def _added(parts: Pieces, residual: Value, out: Value) -> Value:
    return parts.tape.add(residual, parts.norm(out) if parts.arch.post_norms else out)
