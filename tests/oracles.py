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

    A gradient that comes back in bf16 is rounded to eight bits; all else agrees to 1e-5.
    """
    leaves = [t.detach().clone().requires_grad_(i in wrt) for i, t in enumerate(inputs)]
    values = loss(*leaves)
    gradients = torch.autograd.grad(values.sum(), [leaves[i] for i in wrt])
    with localcontext(prec=50):
        rows = [list(map(Decimal, row)) for row in zip(*(t.tolist() for t in inputs), strict=True)]
        expected = [formula(*row) for row in rows]
        slopes = [[_slope(formula, row, i) for row in rows] for i in wrt]
    assert values.dtype == torch.float32
    torch.testing.assert_close(values.detach(), _fp32(expected), atol=1e-5, rtol=1e-5)
    for gradient, slope in zip(gradients, slopes, strict=True):
        rtol = 2**-8 if gradient.dtype == torch.bfloat16 else 1e-5
        torch.testing.assert_close(gradient.float(), _fp32(slope), atol=1e-5, rtol=rtol)


def _slope(formula: Callable[..., Decimal], row: list[Decimal], i: int) -> Decimal:
    above, below = (formula(*row[:i], row[i] + side, *row[i + 1 :]) for side in (STEP, -STEP))
    return (above - below) / (2 * STEP)


def _fp32(values: Sequence[Decimal]) -> Tensor:
    return torch.tensor([float(v) for v in values], dtype=torch.float64).float()
