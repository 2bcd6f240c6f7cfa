"""What an MLP or a mixture of experts holds, its operations written as their PyTorch code computes them."""

from __future__ import annotations

from course_lib.memory.pieces import Pieces
from course_lib.memory.tape import Value


def mlp(parts: Pieces, x: Value) -> Value:
    """Of normed hidden states."""
    arch, hidden, inner = parts.arch, parts.arch.hidden_size, parts.arch.intermediate_size
    adapted = not arch.is_mixture
    if arch.experts:
        out = _experts(parts, x)
    elif arch.is_gpt2:
        out = parts.linear(_gelu(parts, parts.linear(x, hidden, inner)), inner, hidden)
    elif arch.merged:
        both = parts.linear(x, hidden, 2 * inner)
        gate, up = parts.tape.views(both, both.size / 2, both.size / 2)
        out = parts.linear(parts.product(_activated(parts, gate), up), inner, hidden)
        parts.tape.hold(both)
    else:
        gated = _activated(parts, parts.linear(x, hidden, inner, adapted=adapted))
        product = parts.product(gated, parts.linear(x, hidden, inner, adapted=adapted))
        out = parts.linear(product, inner, hidden, adapted=adapted)
    parts.tape.hold(x, *parts.returned)
    return out


def _activated(parts: Pieces, x: Value) -> Value:
    return parts.tape.run(x.size, x, width=x.width, saves=[x])


def _experts(parts: Pieces, x: Value) -> Value:
    """Each token goes through some of the experts: sorted by expert, multiplied in groups, sorted back."""
    arch, tape, width = parts.arch, parts.tape, parts.numerics.width
    hidden, inner, routed = arch.hidden_size, arch.expert_size, parts.tokens * arch.experts_per_token
    share = _routing(parts, x)
    shared = max(share.width, width)
    wide = shared * routed * hidden
    chosen = tape.run(width * routed * hidden, x, width=width, keeps=8 * routed, scratch=(16 * routed, 0))
    share = tape.run(share.size, share, width=share.width, keeps=8 * routed)
    out, *bias = _grouped(parts, _gated(parts, chosen), inner, hidden)
    weighted = tape.run(wide, out, share, width=shared, saves=[out, share], scratch=(0, wide))
    back = tape.run(wide, weighted, width=shared, keeps=8 * routed)
    tape.hold(weighted, out)
    end = tape.cast(tape.run(shared * parts.tokens * hidden, back, width=shared), width)
    tape.hold(chosen, back, *bias)
    return end


def _gated(parts: Pieces, chosen: Value) -> Value:
    """What the experts' first product makes of the sorted tokens, one half of it activated and times the other."""
    tape, inner = parts.tape, parts.arch.expert_size
    both, *bias = _grouped(parts, chosen, parts.arch.hidden_size, 2 * inner, first=True)
    if parts.arch.family != "gpt-oss":
        gate, up = tape.views(both, both.size / 2, both.size / 2)
        gated = parts.product(_activated(parts, gate), up)
        tape.hold(both)
        return gated
    half, wide = both.size / 2, {"width": both.width}
    gate, up = (tape.views(both, half)[0] for _ in range(2))  # every second column, each cut out by itself
    gate, up = (tape.run(half, x, saves=[x], **wide) for x in (gate, up))  # clamped
    curve = tape.run(half, tape.run(half, gate, **wide), saves=[None], **wide)  # sigmoid(alpha gate)
    glu = parts.product(gate, curve)
    gated = parts.product(tape.run(half, up, **wide), glu)  # (up + 1) glu
    tape.hold(both, gate, up, glu, *bias)
    return gated


def _routing(parts: Pieces, x: Value) -> Value:
    """The weights of each token's experts; Mixtral leaves them in fp32."""
    arch, tape, numerics = parts.arch, parts.tape, parts.numerics
    routed, shape = parts.tokens * arch.experts_per_token, (arch.hidden_size, arch.experts)
    logits = parts.times(x, shape, parts.tokens, numerics.width, numerics.compute, numerics.full)
    if arch.family == "gpt-oss":  # the softmax of the best alone
        best = tape.run(logits.width * routed, logits, width=logits.width, keeps=8 * routed)
        return tape.run(best.size, best, width=best.width, saves=[None])
    chances = tape.run(4 * parts.tokens * arch.experts, tape.cast(logits, 4), width=4, saves=[None])
    best = tape.run(4 * routed, chances, width=4, keeps=8 * routed)
    share = tape.run(4 * routed, best, width=4, saves=[best, None])
    return share if arch.family == "mixtral" else tape.cast(share, logits.width)


def _grouped(parts: Pieces, x: Value, wide_in: int, wide_out: int, first: bool = False) -> list[Value]:
    """One product for all experts, which autocast leaves alone; GPT-OSS adds each token's bias in place, given too.

    To gather the biases it keeps, once for both products, whose turn it is.
    """
    numerics, experts, tape = parts.numerics, parts.arch.experts, parts.tape
    weight, size = numerics.width * experts * wide_in * wide_out, x.size * wide_out / wide_in
    full, biases = numerics.full, []
    if parts.arch.family == "gpt-oss":
        gradient = numerics.width * experts * wide_out if full else 0
        whose = 8 * parts.tokens * parts.arch.experts_per_token if first else 0
        biases = [tape.run(size, width=x.width, gradient=gradient, keeps=whose, scratch=(0, gradient))]
    out = tape.run(size, x, width=x.width, saves=[x] if full else [], gradient=weight if full else 0)
    for bias in biases:
        tape.add_in_place(out, bias)
    return [out, *biases]


def _gelu(parts: Pieces, x: Value) -> Value:
    """GPT-2's: 0.5 x (1 + tanh(a (x + b x^3))), step by step."""
    tape, same = parts.tape, {"width": x.width}
    half = tape.run(x.size, x, **same)
    cubed = tape.run(x.size, x, saves=[x], scratch=(0, 2 * x.size), **same)
    inner = tape.add(x, tape.run(x.size, cubed, **same))
    curve = tape.run(x.size, tape.run(x.size, inner, **same), saves=[None], **same)
    above = tape.run(x.size, curve, passes_on=True, **same)
    return tape.run(x.size, half, above, saves=[half, above], **same)
