"""What one pass through a model's end holds: the final norm, the output layer, and what is made of its outputs."""

from __future__ import annotations

from course_lib.memory.pieces import Pieces
from course_lib.memory.tape import Marks, Tape, Value
from course_lib.sizing.settings import Numerics
from course_lib.sizing.shapes import Architecture

CHUNK_BYTES = 64 * 2**20  # of fp32 logits, as in course_lib.logprobs.head


def head_pass(
    arch: Architecture,
    numerics: Numerics,
    rows: int,
    length: int,
    scored: int,
    how: str,
    *,
    sequences: int,
    grad: bool,
    values=False,
) -> Marks:
    """The final norm, the output layer at `scored` tokens, and their log-probabilities.

    `how` is "loss" (transformers' own, of all tokens' logits), "full" (all tokens' logits), "completion" (those of
    scored tokens), "chunked" (as `course_lib.logprobs` does), "score" (one number a sequence) or "values" (one a
    token). With `values` a value head reads the hidden states too.
    """
    tape, tokens = Tape(grad), rows * length
    start = Value(numerics.width * tokens * arch.hidden_size, grad, numerics.width)
    parts = Pieces(tape, arch, numerics, rows, length)
    hidden = parts.norm(start)
    if how in ("score", "values"):
        return tape.measured(start, _number(parts, hidden, sequences if how == "score" else tokens))
    logps = _chunked_logps(parts, hidden, scored) if how == "chunked" else _logps(parts, hidden, scored, how)
    if values:
        number = _number(parts, hidden, tokens)
        logps = tape.run(4, logps, tape.run(4, number, width=4), width=4)
    return tape.measured(start, logps)


def _number(parts: Pieces, hidden: Value, count: int) -> Value:
    """One fp32 number for each of `count` tokens, from a head without bias that is trained also beside adapters."""
    tape, numerics = parts.tape, parts.numerics
    if count < parts.tokens:
        hidden = tape.run(hidden.size * count / parts.tokens, hidden, width=hidden.width)
    inner = tape.cast(hidden, numerics.compute)
    gradient = numerics.width * parts.arch.hidden_size if numerics.trained else 0
    found = tape.run(numerics.compute * count, inner, width=numerics.compute, saves=[inner], gradient=gradient)
    return tape.cast(found, 4)


def _logps(parts: Pieces, hidden: Value, scored: int, how: str) -> Value:
    """By way of logits, of which those of each row's last token are made in vain and cut off."""
    tape, arch = parts.tape, parts.arch
    count = scored + parts.rows if how == "completion" else parts.tokens
    wanted = hidden
    if count < parts.tokens and parts.rows > 1:
        wanted = tape.run(hidden.size * count / parts.tokens, hidden, width=hidden.width)
    elif count < parts.tokens:
        (wanted,) = tape.views(hidden, hidden.size * count / parts.tokens)
    numerics, shape = parts.numerics, (arch.hidden_size, arch.vocab_size)
    logits = parts.times(wanted, shape, count, numerics.width, numerics.compute, numerics.full)
    tape.hold(wanted, hidden)
    used = logits = parts.capped(logits) if arch.logit_cap else logits
    if how != "loss":
        (used,) = tape.views(logits, logits.size * (1 - parts.rows / count))
    wide = tape.cast(used, 4)
    logps = tape.run(wide.size, wide, width=4, saves=[None], holds=(logits,))
    if how == "loss":
        tape.hold(hidden)
    return tape.run(logps.size / arch.vocab_size, logps, width=4)


def _chunked_logps(parts: Pieces, hidden: Value, tokens: int) -> Value:
    """Chunks of fp32 logits, made again in the backward pass, where the weight's gradient is summed in fp32.

    While a chunk is made, Python variables hold the logits of the one before and their gradient.
    """
    hidden = parts.tape.run(hidden.size * tokens / parts.tokens, hidden, width=hidden.width)
    arch, numerics = parts.arch, parts.numerics
    narrow = numerics.compute < 4
    chunk = min(tokens, max(1, CHUNK_BYTES // (4 * arch.vocab_size)))
    logits, following = (4 * n * arch.vocab_size for n in (chunk, min(chunk, tokens - chunk)))
    with_copy = 1.5 if narrow else 1  # of logits, or of their gradient, with the one in bf16
    made, slope = (3, 1) if arch.logit_cap else (with_copy, 0)  # what logits in the making take; the cap's derivative
    kept = logits if chunk == tokens else 0
    weight = arch.vocab_size * arch.hidden_size
    gradient = numerics.width * weight if numerics.full else 0
    share = 2 * weight if numerics.full and narrow else 0
    forward = max(max(2, made) * logits, logits + made * following)
    before = (1.5 if narrow else 2) * logits + slope * logits
    loop = max((1 + with_copy + slope) * logits, before + made * following, (with_copy + slope) * logits + share)
    summed = 4 * weight if numerics.full else 0
    backward = summed + loop - kept - gradient
    inner = parts.tape.cast(hidden, numerics.compute)
    copy = 2 * weight if numerics.compute != numerics.width else 0
    scratch = (forward - kept, max(0, backward))
    keeps = copy + kept
    return parts.tape.run(4 * tokens, inner, width=4, saves=[inner], keeps=keeps, gradient=gradient, scratch=scratch)
