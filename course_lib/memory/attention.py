"""What attention holds, its operations written as their PyTorch code computes them."""

from __future__ import annotations

from course_lib.memory.pieces import Pieces
from course_lib.memory.tape import Value


def attention(parts: Pieces, x: Value) -> Value:
    """Of normed hidden states; leaves in `parts.returned` what the layer's variables go on holding."""
    arch, tape = parts.arch, parts.tape
    hidden, queries = arch.hidden_size, arch.queries
    if arch.is_gpt2:
        merged = parts.linear(x, hidden, 3 * hidden)
        q, k, v = tape.views(merged, *3 * [merged.size / 3])
    else:
        q, k, v, *merged = _projected(parts, x)
        if arch.qk_norm:
            q, k = parts.norm(q, arch.heads), parts.norm(k, arch.kv_heads)
        plain = q, k
        q, k = _rotated(parts, q), _rotated(parts, k)
        tape.hold(*plain)
    mixed, *weights = _mixed(parts, q, k, v)
    out = parts.linear(mixed, queries, hidden)
    tape.hold(x, q, k, v, *weights)
    if not arch.is_gpt2:
        tape.hold(*merged)
    parts.returned = [*weights, out] if arch.is_gpt2 else weights
    return out


def _projected(parts: Pieces, x: Value) -> list[Value]:
    """Queries, keys and values; for Phi-3 also the tensor that they are parts of, each cut out by itself."""
    arch, widths = parts.arch, (parts.arch.queries, parts.arch.keys, parts.arch.keys)
    if not arch.merged:
        return [parts.linear(x, arch.hidden_size, width) for width in widths]
    merged = parts.linear(x, arch.hidden_size, sum(widths))
    cut = [parts.tape.views(merged, merged.size * width / sum(widths))[0] for width in widths]
    return [*cut, merged]


def _rotated(parts: Pieces, x: Value) -> Value:
    """Rotary positions: x cos + rotate(x) sin, where autograd saves only cos and sin."""
    tape, width = parts.tape, max(x.width, parts.numerics.width)
    size = x.size * width / x.width
    if parts.arch.family == "gpt-oss":  # each half by itself
        halves = []
        for _ in range(2):
            left, right = (tape.run(size / 2, x, width=width) for _ in range(2))
            halves.append(tape.add(left, right))
        return tape.run(size, *halves, width=width)
    cosine = tape.run(size, x, width=width)
    turned = tape.run(x.size, x, width=x.width, scratch=(x.size / 2, x.size))
    both = tape.add(cosine, tape.run(size, turned, width=width))
    return tape.run(size, both, width=width) if parts.arch.family == "phi3" else both  # beside what is not turned


def _mixed(parts: Pieces, q: Value, k: Value, v: Value) -> tuple[Value, ...]:
    """The values' mixture and, where a tensor of them exists, the attention weights."""
    q, k, v = (parts.tape.cast(x, parts.numerics.compute) for x in (q, k, v))
    if parts.numerics.eager:
        return _eager(parts, q, k, v)
    out = _kernel(parts, q, k, v)
    if parts.arch.family in ("phi3", "gpt-oss"):  # whose queries lie head by head, and so does what the kernel makes
        out = parts.tape.run(out.size, out, width=out.width)
    return (out,)


def _kernel(parts: Pieces, q: Value, k: Value, v: Value) -> Value:
    """Flash attention, or PyTorch's own with a mask tensor: added to the scores, so in their type, and saved."""
    tape, arch, saves = parts.tape, parts.arch, [q, k, v, None]
    if parts.numerics.masked:
        if arch.heads != arch.kv_heads:
            k, v = (tape.run(q.size, x, width=x.width) for x in (k, v))
        saves = [q, k, v, Value(q.width * parts.tokens * parts.length, False), None]
    return tape.run(q.size, q, k, v, width=q.width, saves=saves, keeps=4 * arch.heads * parts.tokens)


def _eager(parts: Pieces, q: Value, k: Value, v: Value) -> tuple[Value, Value]:
    arch, tape = parts.arch, parts.tape
    table = arch.heads * parts.tokens * parts.length
    if arch.heads != arch.kv_heads and (arch.kv_heads, parts.rows) != (1, 1):  # else a view does
        k, v = (tape.run(q.size, x, width=x.width) for x in (k, v))
    elif arch.family == "phi3" and parts.rows > 1:  # no product takes several rows of a part of a tensor
        v = tape.run(v.size, v, width=v.width)
    scores = tape.run(q.width * table, q, k, width=q.width, saves=[q, k])
    scores = tape.run(scores.size, scores, width=q.width)
    if arch.score_cap:
        scores = parts.capped(scores)
    width = max(q.width, parts.numerics.width)  # the mask's is that of the hidden states
    masked = tape.run(width * table, scores, width=width, passes_on=True)
    if arch.family == "gpt-oss":
        weights = _beside_sinks(parts, masked, q.width)
    else:
        wide = masked if arch.is_gpt2 else tape.cast(masked, 4)  # GPT-2's softmax is in its own type
        weights = tape.cast(tape.run(wide.size, wide, width=wide.width, saves=[None]), q.width)
        if not arch.is_gpt2:
            tape.hold(masked)
    return tape.run(q.size, weights, v, width=q.width, saves=[weights, v], holds=(k,)), weights


def _beside_sinks(parts: Pieces, scores: Value, width: int) -> Value:
    """Attention weights where a further column of scores takes a share, and is cut off."""
    tape, arch = parts.tape, parts.arch
    sinks = arch.heads * scores.width if parts.numerics.full else 0
    rows = arch.heads * parts.tokens
    combined = tape.run(scores.size + rows * scores.width, scores, width=scores.width, gradient=sinks)
    largest = tape.run(rows * scores.width, combined, width=scores.width, keeps=8 * rows)
    shifted = tape.run(combined.size, combined, largest, width=scores.width, passes_on=True)
    tape.hold(combined)
    shares = tape.run(shifted.size, shifted, width=scores.width, saves=[None])
    tape.hold(shifted, scores)
    (kept,) = tape.views(shares, scores.size)
    return tape.cast(kept, width)
