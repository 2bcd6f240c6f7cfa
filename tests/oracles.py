"""Independent oracles: a paper's formula, written as printed, in decimals of fifty digits, and its derivative.

With that many digits no formula needs a rewriting for stability, so nothing is shared with the code under test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

STEP = Decimal("1e-15")

few = settings(max_examples=20, deadline=None)

# Log-probabilities up to 2e4 nats apart, on a grid where fp32 subtracts without rounding: what is then measured
# is the loss, and not how well fp32 can hold its inputs.
ORDINARY = st.floats(-30, -(2**-20), width=32)
EXTREME = st.sampled_from([0.0, -0.125, -3.5, -1e4, -1e4 - 7.5, -2e4])
REGIMES = {
    "ordinary": (ORDINARY, torch.float32),
    "extreme": (EXTREME, torch.float32),
    "bf16": (ORDINARY, torch.bfloat16),
    "extreme-bf16": (EXTREME, torch.bfloat16),
}
in_every_regime = pytest.mark.parametrize("regime", REGIMES)
betas = st.floats(0.01, 1)
shares = st.floats(0, 0.4)


def columns(regime: str, count: int, *, least: int = 1, most: int = 4) -> st.SearchStrategy[list[Tensor]]:
    """`count` tensors (B,) of log-probabilities, with B from `least` to `most`."""
    values, dtype = REGIMES[regime]
    rows = st.lists(st.tuples(*[values] * count), min_size=least, max_size=most)
    return rows.map(lambda drawn: [torch.tensor(column).to(dtype) for column in zip(*drawn, strict=True)])


def sigmoid(x: Decimal) -> Decimal:
    return 1 / (1 + (-x).exp())


def log_sigmoid(x: Decimal) -> Decimal:
    return sigmoid(x).ln()


def assert_value_and_gradient(
    loss: Callable[..., Tensor], formula: Callable[..., Decimal], inputs: Sequence[Tensor], *, wrt: Sequence[int]
) -> None:
    """Check `loss(*inputs)` (N,) against `formula`, row by row, and its gradient with respect to inputs `wrt`.

    A formula that is a sum returns its terms: where large ones cancel, what is left is known to 1e-5 of them, not of
    itself. A gradient that comes back in bf16 is rounded to eight bits.
    """
    leaves = [t.detach().clone().requires_grad_(i in wrt) for i, t in enumerate(inputs)]
    values = loss(*leaves)
    gradients = torch.autograd.grad(values.sum(), [leaves[i] for i in wrt])
    with localcontext(prec=50):
        rows = [list(map(Decimal, row)) for row in zip(*(t.tolist() for t in inputs), strict=True)]
        expected = [_terms(formula(*row)) for row in rows]
        slopes = [[_slopes(formula, row, i) for row in rows] for i in wrt]
    assert values.dtype == torch.float32
    _assert_sums(values.detach(), expected, 1e-5)
    for gradient, slope in zip(gradients, slopes, strict=True):
        _assert_sums(gradient.float(), slope, 2**-8 if gradient.dtype == torch.bfloat16 else 1e-5)


def _terms(value: Decimal | tuple[Decimal, ...]) -> tuple[Decimal, ...]:
    return value if isinstance(value, tuple) else (value,)


def _slopes(formula: Callable, row: list[Decimal], i: int) -> list[Decimal]:
    """The derivative of each of the formula's terms."""
    above, below = (_terms(formula(*row[:i], row[i] + side, *row[i + 1 :])) for side in (STEP, -STEP))
    return [(a - b) / (2 * STEP) for a, b in zip(above, below, strict=True)]


def _assert_sums(found: Tensor, terms: Sequence[Sequence[Decimal]], rtol: float) -> None:
    expected = torch.tensor([float(sum(row)) for row in terms], dtype=torch.float64).float()
    sizes = torch.tensor([float(sum(map(abs, row))) for row in terms], dtype=torch.float64)
    finite = expected.isfinite()
    torch.testing.assert_close(found[~finite], expected[~finite])
    error = (found[finite].double() - expected[finite].double()).abs()
    assert (error <= 1e-5 + rtol * sizes[finite]).all(), f"{found} is not {expected}"
