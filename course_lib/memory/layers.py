"""What one pass through a piece of a model holds, its operations written as their PyTorch code computes them."""

from __future__ import annotations

from dataclasses import dataclass, field

from course_lib.memory.tape import Marks, Tape, Value
from course_lib.sizing.settings import Numerics


def layer_pass(arch, numerics: Numerics, rows: int, length: int, *, grad: bool, first: bool = False) -> Marks:
    """One layer over `rows` sequences of `length` tokens; `grad` tells whether autograd records it.

    The input of the `first` layer needs no gradient where the embeddings are frozen.
    """
    tape, tokens = Tape(grad), rows * length
    start = Value(numerics.width * tokens * arch.hidden_size, grad and not first, numerics.width)
    block = _Block(tape, arch, numerics, rows, length)
    attended = tape.add(start, block.attention(block.norm(start)))
    end = tape.add(attended, block.mlp(block.norm(attended)))
    tape.hold(start)
    return tape.measured(start, end)


def head_pass(
    arch, numerics: Numerics, rows: int, length: int, scored: int, how: str, *, grad: bool, values=False
) -> Marks:
    """The final norm, the output layer at `scored` tokens, and their log-probabilities.

    `how` is "loss" (transformers' own, of all tokens' logits), "full" (all tokens' logits), "completion" (those of
    scored tokens), "chunked" (as `course_lib.logprobs` does), "score" (one number a sequence) or "values" (one a
    token). With `values` a value head reads the hidden states too.
    """
    tape, tokens = Tape(grad), rows * length
    start = Value(numerics.width * tokens * arch.hidden_size, grad, numerics.width)
    block = _Block(tape, arch, numerics, rows, length)
    hidden = block.norm(start)
    if how in ("score", "values"):
        return tape.measured(start, block.number(hidden, rows if how == "score" else tokens))
    logps = block.chunked_logps(hidden, scored) if how == "chunked" else block.logps(hidden, scored, how)
    if values:
        number = block.number(hidden, tokens)
        logps = tape.run(4, logps, tape.run(4, number, width=4), width=4)
    return tape.measured(start, logps)


CHUNK_BYTES = 64 * 2**20  # of fp32 logits, as in course_lib.logprobs.head


@dataclass
class _Block:
    """The parts of a layer, written as their PyTorch code computes them."""

    tape: Tape
    arch: object
    numerics: Numerics
    rows: int
    length: int
    returned: list[Value] = field(default_factory=list)  # by attention, held in the layer's variables

    @property
    def tokens(self) -> int:
        return self.rows * self.length

    def norm(self, x: Value, groups: int = 1) -> Value:
        if self.arch.is_gpt2:
            weight = 2 * self.numerics.width * self.arch.hidden_size if self.numerics.full else 0
            return self.tape.run(x.size, x, width=x.width, saves=[x], keeps=8 * self.tokens, gradient=weight)
        wide, tape, statistics = self.tape.cast(x, 4), self.tape, 4 * self.tokens * groups
        square = tape.run(wide.size, wide, width=4, saves=[wide], scratch=(0, 2 * wide.size))
        mean = tape.run(statistics, square, width=4)
        root = tape.run(statistics, mean, width=4, saves=[None])
        normal = tape.run(wide.size, wide, root, width=4, saves=[wide, root], scratch=(0, wide.size))
        weight = self.numerics.width * x.size / x.width / self.tokens / groups if self.numerics.full else 0
        late = self.arch.norm == "gemma"  # multiplies in fp32 and rounds afterwards
        scaled = normal if late else tape.cast(normal, x.width)
        saves = [scaled] if weight else []
        out = tape.run(scaled.size, scaled, width=scaled.width, saves=saves, gradient=weight, scratch=(0, scaled.size))
        tape.hold(normal)
        return tape.cast(out, x.width)

    def linear(self, x: Value, wide_in: int, wide_out: int, tokens: int | None = None, head: bool = False) -> Value:
        numerics, shape = self.numerics, (wide_in, wide_out)
        if numerics.quantized and not head:
            unpacked = 2 * wide_in * wide_out
            out = self.tape.run(2 * self.tokens * wide_out, self.tape.cast(x, 2), scratch=(unpacked, unpacked))
            out = self.tape.cast(out, x.width)
        else:
            out = self.times(x, shape, tokens or self.tokens, numerics.width, numerics.compute, numerics.full)
        if numerics.lora_rank and not head:
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

    def attention(self, x: Value) -> Value:
        arch, tape = self.arch, self.tape
        hidden, queries, keys = arch.hidden_size, arch.queries, arch.keys
        if arch.is_gpt2:
            merged = self.linear(x, hidden, 3 * hidden)
            q, k, v = tape.views(merged, *3 * [merged.size / 3])
        else:
            q, k, v = (self.linear(x, hidden, width) for width in (queries, keys, keys))
            if arch.qk_norm:
                q, k = self.norm(q, arch.heads), self.norm(k, arch.kv_heads)
            plain = q, k
            q, k = self.rotated(q), self.rotated(k)
            tape.hold(*plain)
        mixed, *weights = self.mix(q, k, v)
        out = self.linear(mixed, queries, hidden)
        tape.hold(x, q, k, v, *weights)
        self.returned = [*weights, out] if arch.is_gpt2 else weights
        return out

    def rotated(self, x: Value) -> Value:
        """Rotary positions: x cos + rotate(x) sin, where autograd saves only cos and sin."""
        tape, width = self.tape, max(x.width, self.numerics.width)
        size = x.size * width / x.width
        cosine = tape.run(size, x, width=width)
        turned = tape.run(x.size, x, width=x.width, scratch=(x.size / 2, x.size))
        return tape.add(cosine, tape.run(size, turned, width=width))

    def mix(self, q: Value, k: Value, v: Value) -> tuple[Value, ...]:
        """The values' mixture and, where a tensor of them exists, the attention weights."""
        q, k, v = (self.tape.cast(x, self.numerics.compute) for x in (q, k, v))
        return self._eager(q, k, v) if self.numerics.eager else (self._flash(q, k, v),)

    def _flash(self, q: Value, k: Value, v: Value) -> Value:
        statistics = 4 * self.arch.heads * self.tokens
        return self.tape.run(q.size, q, k, v, width=q.width, saves=[q, k, v, None], keeps=statistics)

    def _eager(self, q: Value, k: Value, v: Value) -> tuple[Value, Value]:
        tape, table = self.tape, self.arch.heads * self.tokens * self.length
        if self.arch.heads != self.arch.kv_heads and (self.arch.kv_heads, self.rows) != (1, 1):  # else a view does
            k, v = (tape.run(q.size, x, width=x.width) for x in (k, v))
        scores = tape.run(q.width * table, q, k, width=q.width, saves=[q, k])
        scores = tape.run(scores.size, scores, width=q.width)
        width = max(q.width, self.numerics.width)  # the mask's is that of the hidden states
        masked = tape.run(width * table, scores, width=width, passes_on=True)
        wide = masked if self.arch.is_gpt2 else tape.cast(masked, 4)  # GPT-2's softmax is in its own type
        weights = tape.cast(tape.run(wide.size, wide, width=wide.width, saves=[None]), q.width)
        if not self.arch.is_gpt2:
            tape.hold(masked)
        return tape.run(q.size, weights, v, width=q.width, saves=[weights, v], holds=(k,)), weights

    def mlp(self, x: Value) -> Value:
        arch, tape, hidden, inner = self.arch, self.tape, self.arch.hidden_size, self.arch.intermediate_size
        if arch.experts:
            out = self.experts(x)
        elif arch.is_gpt2:
            out = self.linear(self.gelu(self.linear(x, hidden, inner)), inner, hidden)
        else:
            gate = self.linear(x, hidden, inner)
            gated = tape.run(gate.size, gate, width=gate.width, saves=[gate])
            out = self.linear(self.product(gated, self.linear(x, hidden, inner)), inner, hidden)
        tape.hold(x, *self.returned)
        return out

    def product(self, left: Value, right: Value) -> Value:
        return self.tape.run(left.size, left, right, width=left.width, saves=[left, right])

    def experts(self, x: Value) -> Value:
        """Each token goes through some of the experts: sorted by expert, multiplied in groups, sorted back."""
        arch, tape, width = self.arch, self.tape, self.numerics.width
        hidden, inner, routed = arch.hidden_size, arch.intermediate_size, self.tokens * arch.experts_per_token
        share, wide = self.routing(x), 4 * routed * hidden  # the shares are fp32, and so is what they multiply
        chosen = tape.run(width * routed * hidden, x, width=width, keeps=8 * routed, scratch=(16 * routed, 0))
        both = self.grouped(chosen, hidden, 2 * inner)
        gate, up = tape.views(both, both.size / 2, both.size / 2)
        gated = tape.run(gate.size, gate, width=gate.width, saves=[gate])
        out = self.grouped(self.product(gated, up), inner, hidden)
        tape.hold(both)
        weighted = tape.run(wide, out, share, width=4, saves=[out, share], scratch=(0, wide))
        back = tape.run(wide, weighted, width=4, keeps=8 * routed)
        tape.hold(weighted, out)
        end = tape.cast(tape.run(4 * self.tokens * hidden, back, width=4), width)
        tape.hold(chosen, back)
        return end

    def routing(self, x: Value) -> Value:
        """The weights of each token's experts, fp32."""
        arch, tape, numerics = self.arch, self.tape, self.numerics
        routed, shape = 4 * self.tokens * arch.experts_per_token, (arch.hidden_size, arch.experts)
        logits = self.times(x, shape, self.tokens, numerics.width, numerics.compute, numerics.full)
        chances = tape.run(4 * self.tokens * arch.experts, tape.cast(logits, 4), width=4, saves=[None])
        best = tape.run(routed, chances, width=4, keeps=2 * routed)
        return tape.run(routed, best, width=4, saves=[best, None])

    def grouped(self, x: Value, wide_in: int, wide_out: int) -> Value:
        """One product for all experts, which autocast leaves alone."""
        weight, size = self.numerics.width * self.arch.experts * wide_in * wide_out, x.size * wide_out / wide_in
        full = self.numerics.full
        return self.tape.run(size, x, width=x.width, saves=[x] if full else [], gradient=weight if full else 0)

    def gelu(self, x: Value) -> Value:
        """GPT-2's: 0.5 x (1 + tanh(a (x + b x^3))), step by step."""
        tape, same = self.tape, {"width": x.width}
        half = tape.run(x.size, x, **same)
        cubed = tape.run(x.size, x, saves=[x], scratch=(0, 2 * x.size), **same)
        inner = tape.add(x, tape.run(x.size, cubed, **same))
        curve = tape.run(x.size, tape.run(x.size, inner, **same), saves=[None], **same)
        above = tape.run(x.size, curve, passes_on=True, **same)
        return tape.run(x.size, half, above, saves=[half, above], **same)

    def number(self, hidden: Value, count: int) -> Value:
        """One fp32 number for each of `count` tokens, from a head without bias that is trained also beside adapters."""
        tape, numerics = self.tape, self.numerics
        if count < self.tokens:
            hidden = tape.run(hidden.size * count / self.tokens, hidden, width=hidden.width)
        inner = tape.cast(hidden, numerics.compute)
        gradient = numerics.width * self.arch.hidden_size if numerics.trained else 0
        found = tape.run(numerics.compute * count, inner, width=numerics.compute, saves=[inner], gradient=gradient)
        return tape.cast(found, 4)

    def logps(self, hidden: Value, scored: int, how: str) -> Value:
        """By way of logits, of which those of each row's last token are made in vain and cut off."""
        tape, arch = self.tape, self.arch
        count = scored + self.rows if how == "completion" else self.tokens
        wanted = hidden
        if count < self.tokens and self.rows > 1:
            wanted = tape.run(hidden.size * count / self.tokens, hidden, width=hidden.width)
        elif count < self.tokens:
            (wanted,) = tape.views(hidden, hidden.size * count / self.tokens)
        logits = used = self.linear(wanted, arch.hidden_size, arch.vocab_size, count, head=True)
        tape.hold(hidden)
        if how != "loss":
            (used,) = tape.views(logits, logits.size * (1 - self.rows / count))
        wide = tape.cast(used, 4)
        logps = tape.run(wide.size, wide, width=4, saves=[None], holds=(logits,))
        if how == "loss":
            tape.hold(hidden)
        return tape.run(logps.size / arch.vocab_size, logps, width=4)

    def chunked_logps(self, hidden: Value, tokens: int) -> Value:
        """Chunks of fp32 logits, made again in the backward pass, where the weight's gradient is summed in fp32.

        While a chunk is made, Python variables hold the logits of the one before and their gradient.
        """
        hidden = self.tape.run(hidden.size * tokens / self.tokens, hidden, width=hidden.width)
        arch, numerics = self.arch, self.numerics
        narrow = numerics.compute < 4
        chunk = min(tokens, max(1, CHUNK_BYTES // (4 * arch.vocab_size)))
        logits, following = (4 * n * arch.vocab_size for n in (chunk, min(chunk, tokens - chunk)))
        with_copy = 1.5 if narrow else 1  # of logits, or of their gradient, with the one in bf16
        kept = logits if chunk == tokens else 0
        weight = arch.vocab_size * arch.hidden_size
        gradient = numerics.width * weight if numerics.full else 0
        share = 2 * weight if numerics.full and narrow else 0
        forward = max(2 * logits, logits + with_copy * following)
        before = logits + logits / 2 if narrow else 2 * logits
        loop = max(logits + with_copy * logits, before + with_copy * following, with_copy * logits + share)
        summed = 4 * weight if numerics.full else 0
        backward = summed + loop - kept - gradient
        inner = self.tape.cast(hidden, numerics.compute)
        copy = 2 * weight if numerics.compute != numerics.width else 0
        return self.tape.run(4 * tokens, inner, width=4, saves=[inner], keeps=copy + kept, gradient=gradient,
                             scratch=(forward - kept, max(0, backward)))  # fmt: skip
