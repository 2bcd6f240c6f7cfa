"""SimPO and ORPO: formulas at token means from one to a thousand tokens, hand-derived numbers, invariants."""

import math
from decimal import Decimal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import REGIMES, assert_value_and_gradient, few, in_every_regime, log_sigmoid

from course_lib import orpo_loss, simpo_loss

CHOSEN, REJECTED = torch.tensor([-6.0, -8.0]), torch.tensor([-9.0, -7.0])
LENGTHS = torch.tensor([3, 4]), torch.tensor([3, 7])
ALMOST_CERTAIN = -(Decimal(2) ** -23)  # the closest to zero that ORPO takes a mean log-probability for


@st.composite
def pairs(draw, regime):
    """Summed log-probabilities and lengths of chosen and rejected responses: (B,) each."""
    means, dtype = REGIMES[regime]
    means = st.one_of(means, st.sampled_from([-(2**-10), -(2**-18)]))  # where 1 - p is lost if taken naively
    lengths = st.sampled_from([1, 1024] if "extreme" in regime else [1, 7, 1000])
    rows = draw(st.lists(st.tuples(means, means, lengths, lengths), min_size=1, max_size=4))
    chosen, rejected, chosen_lengths, rejected_lengths = map(torch.tensor, zip(*rows, strict=True))
    logps = [(mean * length).to(dtype) for mean, length in ((chosen, chosen_lengths), (rejected, rejected_lengths))]
    return [*logps, chosen_lengths, rejected_lengths]


@in_every_regime
@few
@given(st.data(), st.floats(0.1, 2), st.floats(0, 2))
def test_simpo_equals_its_formula(regime, data, beta, gamma):
    def formula(chosen, rejected, chosen_length, rejected_length):
        return -log_sigmoid(
            Decimal(beta) / chosen_length * chosen - Decimal(beta) / rejected_length * rejected - Decimal(gamma)
        )

    def loss(*inputs):
        return simpo_loss(*inputs, beta=beta, gamma=gamma, reduction="none")

    assert_value_and_gradient(loss, formula, data.draw(pairs(regime)), wrt=(0, 1))


@in_every_regime
@few
@given(st.data(), st.floats(0.01, 1))
def test_orpo_equals_its_formula(regime, data, beta):
    def log_odds(logp, length):
        p = min(logp / length, ALMOST_CERTAIN).exp()
        return (p / (1 - p)).ln()

    def formula(chosen, rejected, chosen_length, rejected_length, nll):
        ratio = log_odds(chosen, chosen_length) - log_odds(rejected, rejected_length)
        return nll - Decimal(beta) * log_sigmoid(ratio)

    def loss(*inputs):
        return orpo_loss(*inputs, beta=beta, reduction="none")

    inputs = data.draw(pairs(regime))
    nll = -inputs[0] / inputs[2]
    assert_value_and_gradient(loss, formula, [*inputs, nll.to(inputs[0].dtype)], wrt=(0, 1, 4))


def test_simpo_at_beta_1_and_gamma_0_is_the_logistic_loss_of_token_means():
    # mean log-probs -2 and -3, then -2 and -1: margins 1 and -1
    loss = simpo_loss(CHOSEN, REJECTED, *LENGTHS, beta=1.0, gamma=0.0, reduction="none")
    assert loss.tolist() == pytest.approx([math.log(1 + math.exp(-1)), math.log(1 + math.exp(1))])


def test_simpo_takes_its_margin_after_beta():
    # beta * 1 - gamma = 0, so ln 2
    loss = simpo_loss(CHOSEN[:1], REJECTED[:1], LENGTHS[0][:1], LENGTHS[1][:1], beta=3.0, gamma=3.0)
    assert loss.item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("times", [2, 1000])
def test_simpo_and_the_odds_of_orpo_do_not_see_a_response_repeated(times):
    inputs = CHOSEN, REJECTED, *LENGTHS
    longer = [t * times for t in inputs]
    torch.testing.assert_close(simpo_loss(*longer), simpo_loss(*inputs))
    torch.testing.assert_close(orpo_loss(*longer, torch.zeros(2)), orpo_loss(*inputs, torch.zeros(2)))


def test_orpo_equals_the_hand_derived_value():
    # p = 1/2 and 1/4: odds 1 and 1/3, their ratio 3, sigmoid(ln 3) = 3/4
    logps = [torch.tensor([3 * math.log(p)]) for p in (0.5, 0.25)]
    three = torch.tensor([3])
    loss = orpo_loss(*logps, three, three, -logps[0] / 3, beta=0.2)
    assert loss.item() == pytest.approx(math.log(2) - 0.2 * math.log(0.75))


def test_orpo_with_equal_odds_is_sft_plus_beta_ln_2():
    nll = torch.tensor([1.5, 0.5])
    loss = orpo_loss(CHOSEN, CHOSEN, LENGTHS[0], LENGTHS[0], nll, beta=0.3, reduction="none")
    torch.testing.assert_close(loss, nll + 0.3 * math.log(2))


def test_orpo_takes_one_likelihood_for_the_batch_as_for_each_response():
    inputs = CHOSEN, REJECTED, *LENGTHS
    torch.testing.assert_close(orpo_loss(*inputs, torch.tensor(2.0)), orpo_loss(*inputs, torch.full((2,), 2.0)))


def test_orpo_is_finite_where_a_response_is_certain():
    certain, other = torch.zeros(1, requires_grad=True), torch.tensor([-5.0], requires_grad=True)
    for pair in ((certain, other), (other, certain), (certain, certain)):
        loss = orpo_loss(*pair, torch.ones(1), torch.ones(1), torch.zeros(1))
        assert loss.isfinite() and all(g.isfinite() for g in torch.autograd.grad(loss, set(pair)))


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: simpo_loss(CHOSEN, REJECTED, *LENGTHS, gamma=-0.1), "gamma must be at least 0"),
        (lambda: simpo_loss(CHOSEN, REJECTED, LENGTHS[0] * 0, LENGTHS[1]), r"chosen_lengths .* \[0, 1\] are empty"),
        (lambda: simpo_loss(CHOSEN, REJECTED, LENGTHS[0], LENGTHS[1] - 3), r"rejected_lengths .* \[0\] are empty"),
        (lambda: orpo_loss(CHOSEN, REJECTED, LENGTHS[0], LENGTHS[1] - 3, -CHOSEN), r"rejected_lengths .* \[0\]"),
        (lambda: orpo_loss(CHOSEN, REJECTED, *LENGTHS, torch.ones(2, 2)), "chosen_nll"),
    ],
)
def test_wrong_use_gives_a_value_error_that_names_the_cause(call, names):
    with pytest.raises(ValueError, match=names):
        call()
