"""What norms, linear layers and adapters hold, their operations written as their PyTorch code computes them."""

from __future__ import annotations

from dataclasses import dataclass, field

from course_lib.memory.tape import Tape, Value
from course_lib.sizing.settings import Numerics
from course_lib.sizing.shapes import Architecture


@dataclass
class Pieces:
    """The parts that a model of this architecture is put together from, on a tape of `rows` rows of `length` tokens."""

    tape: Tape
    arch: Architecture
    numerics: Numerics
    rows: int
    length: int
    returned: list[Value] = field(default_factory=list)  # by attention, held in the layer's variables

    @property
    def tokens(self) -> int:
        return self.rows * self.length

    def norm(self, x: Value, groups: int = 1) -> Value:
        """Over each of `groups` equal parts of every token's vector."""
        if self.arch.is_gpt2:
            weight = 2 * self.numerics.width * self.arch.hidden_size if self.numerics.full else 0
            return self.tape.run(x.size, x, width=x.width, saves=[x], keeps=8 * self.tokens, gradient=weight)
        wide, tape, statistics = self.tape.cast(x, 4), self.tape, 4 * self.tokens * groups
        square = tape.run(wide.size, wide, width=4, saves=[wide], scratch=(0, 2 * wide.size))
        mean = tape.run(statistics, square, width=4)
        root = tape.run(statistics, mean, width=4, saves=[None])
        normal = tape.run(wide.size, wide, root, width=4, saves=[wide, root], scratch=(0, wide.size))
        weight = self.numerics.width * x.size / x.width / self.tokens / groups if self.numerics.full else 0
        late = self.arch.family in ("gemma", "gemma2", "gemma3", "gpt-oss")  # multiplies in fp32, rounds afterwards
        scaled = normal if late else tape.cast(normal, x.width)
        saves = [scaled] if weight else []
        out = tape.run(scaled.size, scaled, width=scaled.width, saves=saves, gradient=weight, scratch=(0, scaled.size))
        tape.hold(normal)
        return tape.cast(out, x.width)

    def linear(self, x: Value, wide_in: int, wide_out: int, *, adapted: bool = True) -> Value:
        """A layer's matrix, its weight quantised or not, and its adapter's part."""
        numerics, shape = self.numerics, (wide_in, wide_out)
        adapted = adapted and numerics.lora_rank is not None
        if numerics.quantization == "nf4":
            out = self.in_4_bits(x, shape, adapted)
        elif numerics.quantization == "int8":
            out = self.in_8_bits(x, shape)
        else:
            out = self.times(x, shape, self.tokens, numerics.width, numerics.compute, numerics.full)
        if adapted:
            out = self.adapted(x, out, *shape)
        self.tape.hold(x)
        return out

    def times(self, x: Value, shape: tuple[int, int], tokens: int, stored: int, compute: int, trained: bool) -> Value:
        """x times a weight of `stored` bytes an element, of which autocast makes a copy with `compute` bytes."""
        tape, elements = self.tape, shape[0] * shape[1]
        gradient, copies = stored * elements if trained else 0, []
        if stored != compute:
            copies, gradient = [tape.run(compute * elements, width=compute, gradient=gradient)], 0
        inner = tape.cast(x, compute)
        saves = [*copies, inner] if trained else copies
        return tape.run(compute * tokens * shape[1], inner, *copies, width=compute, saves=saves, gradient=gradient)

    def in_4_bits(self, x: Value, shape: tuple[int, int], adapted: bool) -> Value:
        """bitsandbytes unpacks the weight in each pass, and keeps nothing; PEFT copies what it adds adapters to.

        It computes in the type of what is not quantised, as `load_policy` builds it.
        """
        tape, width, elements = self.tape, self.numerics.width, shape[0] * shape[1]
        unpacked = width * elements + 4 * elements / 64  # with its scales in fp32
        inner = tape.cast(x, width)
        out = tape.run(width * self.tokens * shape[1], inner, width=width, scratch=(unpacked, unpacked))
        out = tape.cast(out, x.width)
        return tape.run(out.size, out, width=out.width) if adapted else out

    def in_8_bits(self, x: Value, shape: tuple[int, int]) -> Value:
        """bitsandbytes' LLM.int8: inputs in 8 bits too, sums in 32; the backward pass unpacks the weight.

        Its function keeps the input in a variable of its own, out of autograd's sight: neither a layer's backward
        nor checkpointing lets go of it.
        """
        (wide_in, wide_out), tokens = shape, self.tokens
        forward = tokens * max(3 * wide_in, wide_in + 6 * wide_out)
        backward = x.width * wide_in * wide_out
        return self.tape.run(x.width * tokens * wide_out, x, width=x.width, pins=[x], scratch=(forward, backward))

    def adapted(self, x: Value, out: Value, wide_in: int, wide_out: int) -> Value:
        """The output of a linear layer, and what its adapter adds: two products in the adapter's own type."""
        tape, numerics, rank, stored = self.tape, self.numerics, self.numerics.lora_rank, self.numerics.adapter_width
        compute = numerics.compute if numerics.compute != numerics.width else stored
        narrow = tape.cast(x, stored)
        down = self.times(narrow, (wide_in, rank), self.tokens, stored, compute, trained=True)
        up = self.times(down, (rank, wide_out), self.tokens, stored, compute, trained=True)
        both = tape.add(out, tape.run(up.size, up, width=compute))
        tape.hold(narrow)
        return tape.cast(both, out.width)

    def product(self, left: Value, right: Value) -> Value:
        return self.tape.run(left.size, left, right, width=left.width, saves=[left, right])

    def capped(self, x: Value) -> Value:
        """cap * tanh(x / cap), as Gemma 2 bounds attention scores and logits."""
        inner = self.tape.run(x.size, x, width=x.width)
        curve = self.tape.run(x.size, inner, width=x.width, saves=[None])
        return self.tape.run(x.size, curve, width=x.width)
