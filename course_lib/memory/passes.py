"""What one pass through a piece of a model holds: each operation's output, and what its backward pass needs again.

Stands beside the flow; arithmetic only. A `Tape` replays in bytes what autograd does with tensors: an output lives
until its last use, what an operation saves lives until its backward, and gradients flow in the opposite order.
"""

from __future__ import annotations

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
    output: Value
    saved: list[Value]
    gradient: float  # bytes of weight gradients that its backward makes and leaves
    scratch: tuple[float, float]  # bytes that live only inside the kernel, forward and backward
    passes_on: bool  # its inputs' gradients are its output's, not copies
    holds: tuple[Value, ...] = ()  # values that a Python variable keeps alive until here


@dataclass(frozen=True)
class Pass:
    """Bytes of one pass, without its input: all but `saved` and `gradients` are high-water marks.

    `forward` and `backward` count the saved tensors in; `backward` counts the incoming gradient and the weight
    gradients made on the way.
    """

    saved: float
    forward: float
    backward: float
    gradients: float
    output: float


@dataclass
class Tape:
    """Operations in the order in which a forward pass runs them; `grad` tells whether autograd records."""

    grad: bool
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
        self.operations.append(Operation(inputs, output, saved, gradient, scratch, passes_on, holds))
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

    def measured(self, start: Value, end: Value) -> Pass:
        """The high-water marks of the whole tape, from its input `start` to its output `end`."""
        saved = {s for op in self.operations for s in op.saved}
        held = sum(s.size for s in saved)
        forward = self._forward(start, end, saved)
        backward, gradients = self._backward(end, held) if end.needs_grad else (0.0, 0.0)
        return Pass(held, forward, backward, gradients, end.size)

    def _forward(self, start: Value, end: Value, saved: set[Value]) -> float:
        last_use = {v.storage: i for i, op in enumerate(self.operations) for v in (op.output, *op.inputs, *op.holds)}
        ends_at: dict[int, list[Value]] = {}
        for value, i in last_use.items():
            if value not in saved and value is not end and value is not start:
                ends_at.setdefault(i, []).append(value)
        live, peak, counted = start.size, start.size, {start}
        for i, op in enumerate(self.operations):
            for new in (op.output.storage, *op.saved):
                live += 0.0 if new in counted else new.size
                counted.add(new)
            peak = max(peak, live + op.scratch[0])
            live -= sum(v.size for v in ends_at.get(i, ()))
        return peak

    def _backward(self, end: Value, held: float) -> tuple[float, float]:
        holders: dict[Value, int] = {}
        for op in self.operations:
            for value in op.saved:
                holders[value] = holders.get(value, 0) + 1
        buffers: dict[Value, list] = {end: [end.size, 1]}  # a gradient: bytes, and how many values share it
        live, gradients = held + end.size, 0.0
        peak = live

        def release(buffer: list) -> float:
            buffer[1] -= 1
            return buffer[0] if buffer[1] == 0 else 0.0

        for op in reversed(self.operations):
            incoming = buffers.pop(op.output, None)
            if incoming is None:
                continue
            made = []
            for value in op.inputs:
                if not value.needs_grad:
                    continue
                if op.passes_on and value.width == op.output.width:
                    incoming[1] += 1
                    made.append((value, incoming))
                else:
                    made.append((value, [value.size, 1]))
                    live += value.size
            live += op.gradient
            gradients += op.gradient
            peak = max(peak, live + op.scratch[1])
            live -= release(incoming)
            for value in op.saved:
                holders[value] -= 1
                live -= value.size if holders[value] == 0 else 0.0
            for value, buffer in made:
                if value in buffers:  # a sum of two gradients is a third tensor until both are gone
                    peak = max(peak, live + value.size)
                    live += value.size - release(buffers[value]) - release(buffer)
                    buffer = [value.size, 1]
                buffers[value] = buffer
        return peak, gradients


@dataclass(frozen=True)
class Kind:
    """How a model is held and computed: bytes an element, what is trained, and how attention runs."""

    width: int = 2  # of weights outside the quantised ones, and of the residual stream
    compute: int = 2  # of matrix products: 2 under autocast
    trained: bool = True
    lora_rank: int | None = None
    adapter_width: int = 4
    quantized: bool = False
    eager: bool = False

    @property
    def full(self) -> bool:
        """Whether all weights are trained."""
        return self.trained and self.lora_rank is None


def layer_pass(arch, kind: Kind, rows: int, length: int, *, grad: bool, first: bool = False) -> Pass:
    """One layer over `rows` sequences of `length` tokens; `grad` tells whether autograd records it.

    The input of the `first` layer needs no gradient where the embeddings are frozen.
    """
    tape, tokens = Tape(grad), rows * length
    start = Value(kind.width * tokens * arch.hidden_size, grad and not first, kind.width)
    block = _Block(tape, arch, kind, rows, length)
    attended = tape.add(start, block.attention(block.norm(start)))
    end = tape.add(attended, block.mlp(block.norm(attended)))
    return tape.measured(start, end)


def head_pass(arch, kind: Kind, rows: int, length: int, scored: int, how: str, *, grad: bool) -> Pass:
    """The final norm, the output layer at `scored` tokens, and their log-probabilities.

    `how` is "full" (all tokens' logits), "completion" (those of scored tokens), "chunked" (as
    `course_lib.logprobs` does), "score" (one number a sequence) or "values" (one a token).
    """
    tape, tokens = Tape(grad), rows * length
    start = Value(kind.width * tokens * arch.hidden_size, grad, kind.width)
    block = _Block(tape, arch, kind, rows, length)
    hidden = block.norm(start)
    if how in ("score", "values"):
        count = rows if how == "score" else tokens
        last = tape.run(hidden.size * count / tokens, hidden, width=hidden.width) if how == "score" else hidden
        gradient = kind.width * arch.hidden_size * kind.trained
        return tape.measured(start, tape.run(4 * count, last, width=4, saves=[last], gradient=gradient))
    if how != "full":
        hidden = tape.run(hidden.size * scored / tokens, hidden, width=hidden.width)
    count = tokens if how == "full" else scored
    if how == "chunked":
        return tape.measured(start, block.chunked_logps(hidden, count))
    logits = block.linear(hidden, arch.hidden_size, arch.vocab_size, count, head=True)
    wide = tape.cast(logits, 4)
    logps = tape.run(wide.size, wide, width=4, saves=[None], holds=(logits,))
    return tape.measured(start, tape.run(4 * count, logps, width=4))


CHUNK_BYTES = 64 * 2**20  # of fp32 logits, as in course_lib.logprobs.head


@dataclass
class _Block:
    """The parts of a layer, written as their PyTorch code computes them."""

    tape: Tape
    arch: object
    kind: Kind
    rows: int
    length: int

    @property
    def tokens(self) -> int:
        return self.rows * self.length

    def norm(self, x: Value, groups: int = 1) -> Value:
        if self.arch.is_gpt2:
            weight = 2 * self.kind.width * self.arch.hidden_size * self.kind.full
            return self.tape.run(x.size, x, width=x.width, saves=[x], keeps=8 * self.tokens, gradient=weight)
        wide, tape, statistics = self.tape.cast(x, 4), self.tape, 4 * self.tokens * groups
        square = tape.run(wide.size, wide, width=4, saves=[wide], scratch=(0, 2 * wide.size))
        mean = tape.run(statistics, square, width=4)
        root = tape.run(statistics, mean, width=4, saves=[None])
        normal = tape.run(wide.size, wide, root, width=4, saves=[wide, root], scratch=(0, wide.size))
        weight = self.kind.width * x.size / x.width / self.tokens / groups * self.kind.full
        late = self.arch.norm == "gemma"  # multiplies in fp32 and rounds afterwards
        normal = normal if late else tape.cast(normal, x.width)
        saves = [normal] if weight else []
        out = tape.run(normal.size, normal, width=normal.width, saves=saves, gradient=weight, scratch=(0, normal.size))
        return tape.cast(out, x.width)

    def linear(self, x: Value, wide_in: int, wide_out: int, tokens: int | None = None, head: bool = False) -> Value:
        kind, tape, tokens = self.kind, self.tape, tokens or self.tokens
        trained = kind.full
        quantized = kind.quantized and not head
        compute = 2 if quantized else kind.compute
        copied = 2 * wide_in * wide_out * (quantized or kind.compute != kind.width)
        gradient = kind.width * wide_in * wide_out * trained
        inner = tape.cast(x, compute)
        kept = copied if not quantized else 0
        scratch = (0, copied if trained else 0) if not quantized else (copied, copied)
        out = tape.run(compute * tokens * wide_out, inner, width=compute, saves=[inner] if trained else [], keeps=kept,
                       gradient=gradient, scratch=scratch)  # fmt: skip
        if quantized:
            out = tape.cast(out, x.width)
        return out if head or not kind.lora_rank else self._adapted(x, out, wide_in, wide_out)

    def _adapted(self, x: Value, out: Value, wide_in: int, wide_out: int) -> Value:
        tape, rank = self.tape, self.kind.lora_rank
        stored = self.kind.adapter_width
        compute = self.kind.compute if self.kind.compute != self.kind.width else stored
        narrow = tape.cast(tape.cast(x, stored), compute)
        down = tape.run(
            compute * self.tokens * rank, narrow, width=compute, saves=[narrow], gradient=stored * rank * wide_in
        )
        up = tape.run(
            compute * self.tokens * wide_out, down, width=compute, saves=[down], gradient=stored * rank * wide_out
        )
        scaled = tape.run(up.size, up, width=compute)
        return tape.cast(tape.add(out, scaled), out.width)

    def attention(self, x: Value) -> Value:
        arch, tape = self.arch, self.tape
        hidden, queries, keys = arch.hidden_size, arch.queries, arch.keys
        if arch.is_gpt2:
            merged = self.linear(x, hidden, 3 * hidden)
            q, k, v = (Value(merged.size / 3, merged.needs_grad, merged.width, merged) for _ in range(3))
            tape.operations.append(Operation((merged,), q, [], 0.0, (0.0, 0.0), False))
            return self.linear(self.mix(q, k, v), hidden, hidden)
        q, k, v = (self.linear(x, hidden, width) for width in (queries, keys, keys))
        if arch.qk_norm:
            q, k = self.norm(q, arch.heads), self.norm(k, arch.kv_heads)
        q, k = self.rotated(q), self.rotated(k)
        return self.linear(self.mix(q, k, v), queries, hidden)

    def rotated(self, x: Value) -> Value:
        """Rotary positions: x cos + rotate(x) sin, where autograd saves only cos and sin."""
        tape, width = self.tape, max(x.width, self.kind.width)
        size = x.size * width / x.width
        cosine = tape.run(size, x, width=width)
        turned = tape.run(x.size, x, width=x.width, scratch=(x.size / 2, x.size))
        return tape.add(cosine, tape.run(size, turned, width=width))

    def mix(self, q: Value, k: Value, v: Value) -> Value:
        q, k, v = (self.tape.cast(x, self.kind.compute) for x in (q, k, v))
        return self._eager(q, k, v) if self.kind.eager else self._flash(q, k, v)

    def _flash(self, q: Value, k: Value, v: Value) -> Value:
        statistics = 4 * self.arch.heads * self.tokens
        return self.tape.run(q.size, q, k, v, width=q.width, saves=[q, k, v, None], keeps=statistics)

    def _eager(self, q: Value, k: Value, v: Value) -> Value:
        tape, table = self.tape, self.arch.heads * self.tokens * self.length
        if self.arch.heads != self.arch.kv_heads and (self.arch.kv_heads, self.rows) != (1, 1):  # else a view does
            k, v = (tape.run(q.size, x, width=x.width) for x in (k, v))
        scores = tape.run(q.width * table, q, k, width=q.width, saves=[q, k])
        scores = tape.run(scores.size, scores, width=q.width)
        masked = tape.run(scores.size, scores, width=q.width, passes_on=True)
        native = self.arch.is_gpt2 and self.kind.compute == self.kind.width  # its softmax is not in fp32
        wide = masked if native else tape.cast(masked, 4)
        weights = tape.cast(tape.run(wide.size, wide, width=wide.width, saves=[None]), q.width)
        return tape.run(q.size, weights, v, width=q.width, saves=[weights, v])

    def mlp(self, x: Value) -> Value:
        arch, tape, hidden = self.arch, self.tape, self.arch.hidden_size
        inner = arch.intermediate_size * arch.experts_per_token
        if arch.is_gpt2:
            return self.linear(self.gelu(self.linear(x, hidden, inner)), inner, hidden)
        gate = self.linear(x, hidden, inner)
        gated = tape.run(gate.size, gate, width=gate.width, saves=[gate])
        up = self.linear(x, hidden, inner)
        product = tape.run(up.size, gated, up, width=up.width, saves=[gated, up])
        return self.linear(product, inner, hidden)

    def gelu(self, x: Value) -> Value:
        """GPT-2's: 0.5 x (1 + tanh(a (x + b x^3))), step by step."""
        tape, same = self.tape, {"width": x.width}
        half = tape.run(x.size, x, **same)
        cubed = tape.run(x.size, x, saves=[x], scratch=(0, 2 * x.size), **same)
        inner = tape.add(x, tape.run(x.size, cubed, **same))
        curve = tape.run(x.size, tape.run(x.size, inner, **same), saves=[None], **same)
        above = tape.run(x.size, curve, passes_on=True, **same)
        return tape.run(x.size, half, above, saves=[half, above], **same)

    def chunked_logps(self, hidden: Value, tokens: int) -> Value:
        """Chunks of fp32 logits, made again in the backward pass, where the weight's gradient is summed in fp32."""
        arch, kind = self.arch, self.kind
        narrow = kind.compute < 4
        chunk = min(tokens, max(1, CHUNK_BYTES // (4 * arch.vocab_size)))
        logits, weight = 4 * chunk * arch.vocab_size, arch.vocab_size * arch.hidden_size
        single, gradient = chunk == tokens, kind.width * weight * kind.full
        inner = self.tape.cast(hidden, kind.compute)
        copy = 2 * weight * (kind.compute != kind.width)
        rounded = logits / 2 if narrow else 0
        forward = logits if single else 2 * logits + rounded
        # fp32 sum and one chunk's product beside the logits, their gradient and its rounded copy
        product = 2 * weight * (kind.full and narrow)
        backward = 4 * weight + logits * (not single) + rounded + max(logits, product) - gradient
        return self.tape.run(4 * tokens, inner, width=4, saves=[inner], keeps=copy + logits * single,
                             gradient=gradient, scratch=(forward, max(0, backward)))  # fmt: skip
