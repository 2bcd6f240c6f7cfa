"""Losses on preference pairs with a reference: formulas, hand-derived numbers, invariants, wrong use.

Four log-probabilities a pair, in this order: policy chosen, policy rejected, reference chosen, reference rejected.
"""

import math
from decimal import Decimal
from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import assert_value_and_gradient, betas, columns, few, in_every_regime, log_sigmoid, shares

from course_lib import bradley_terry_loss, dpo_loss, implicit_reward, ipo_loss, length_dpo_loss, robust_dpo_loss

FOUR = torch.tensor([[-12.0, -7.5, -30.0], [-14.0, -7.0, -31.0], [-13.0, -8.0, -29.0], [-13.5, -7.5, -35.0]])
ONE_PAIR = [row[:1] for row in FOUR]  # h = (-12 + 13) - (-14 + 13.5) = 1.5
LENGTHS = torch.tensor([4, 2, 9]), torch.tensor([3, 5, 9])


def log_ratio_difference(policy_chosen, policy_rejected, ref_chosen, ref_rejected):
    return (policy_chosen - ref_chosen) - (policy_rejected - ref_rejected)


@in_every_regime
@few
@given(st.data(), betas, shares)
def test_dpo_with_and_without_label_smoothing_equals_its_formula(regime, data, beta, share):
    def formula(*four):
        h, eps = Decimal(beta) * log_ratio_difference(*four), Decimal(share)
        return -(1 - eps) * log_sigmoid(h) - eps * log_sigmoid(-h)

    def loss(*four):
        return dpo_loss(*four, beta=beta, label_smoothing=share, reduction="none")

    assert_value_and_gradient(loss, formula, data.draw(columns(regime, 4)), wrt=(0, 1))


@in_every_regime
@few
@given(st.data(), betas, shares)
def test_robust_dpo_equals_its_formula(regime, data, beta, share):
    def formula(*four):
        h, eps = Decimal(beta) * log_ratio_difference(*four), Decimal(share)
        return (-(1 - eps) * log_sigmoid(h) + eps * log_sigmoid(-h)) / (1 - 2 * eps)

    def loss(*four):
        return robust_dpo_loss(*four, beta=beta, label_smoothing=share, reduction="none")

    assert_value_and_gradient(loss, formula, data.draw(columns(regime, 4)), wrt=(0, 1))


@in_every_regime
@few
@given(st.data(), betas)
def test_ipo_equals_its_formula(regime, data, beta):
    def formula(*four):
        return (log_ratio_difference(*four) - 1 / (2 * Decimal(beta))) ** 2

    def loss(*four):
        return ipo_loss(*four, beta=beta, reduction="none")

    assert_value_and_gradient(loss, formula, data.draw(columns(regime, 4)), wrt=(0, 1))


@in_every_regime
@few
@given(st.data(), betas, st.floats(0, 0.1), st.lists(st.sampled_from([1, 2, 17, 1000]), min_size=8, max_size=8))
def test_length_dpo_equals_its_formula(regime, data, beta, penalty, lengths):
    def formula(*inputs):
        *four, chosen, rejected = inputs
        return -log_sigmoid(Decimal(beta) * log_ratio_difference(*four) + Decimal(penalty) * (chosen - rejected))

    def loss(*inputs):
        return length_dpo_loss(*inputs, beta=beta, length_penalty=penalty, reduction="none")

    four = data.draw(columns(regime, 4))
    size = len(four[0])
    inputs = [*four, torch.tensor(lengths[:size]), torch.tensor(lengths[4 : 4 + size])]
    assert_value_and_gradient(loss, formula, inputs, wrt=(0, 1))


@in_every_regime
@few
@given(st.data(), betas)
def test_implicit_reward_equals_its_formula(regime, data, beta):
    def formula(policy, ref):
        return Decimal(beta) * (policy - ref)

    inputs = data.draw(columns(regime, 2))
    assert_value_and_gradient(lambda *two: implicit_reward(*two, beta=beta), formula, inputs, wrt=(0,))


def test_dpo_equals_the_hand_derived_value():
    assert dpo_loss(*ONE_PAIR, beta=0.1).item() == pytest.approx(math.log(1 + math.exp(-0.15)), abs=1e-7)


@few
@given(st.data(), st.floats(0.01, 10))
def test_dpo_starts_at_ln_2_whatever_beta(data, beta):
    chosen, rejected = data.draw(columns("ordinary", 2))
    assert dpo_loss(chosen, rejected, chosen, rejected, beta=beta).item() == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize(
    "loss", [dpo_loss, partial(robust_dpo_loss, label_smoothing=0.2), ipo_loss], ids=["dpo", "robust", "ipo"]
)
@few
@given(shift=st.integers(-50, 50))
def test_a_shift_of_both_log_probabilities_of_a_pair_changes_nothing(loss, shift):
    torch.testing.assert_close(loss(FOUR[0] + shift, FOUR[1] + shift, FOUR[2], FOUR[3]), loss(*FOUR))
    torch.testing.assert_close(loss(FOUR[0], FOUR[1], FOUR[2] + shift, FOUR[3] + shift), loss(*FOUR))


def test_dpo_gradient_is_beta_times_the_sigmoid_of_the_wrong_margin():
    values = [t.clone().requires_grad_() for t in FOUR]
    dpo_loss(*values, beta=0.3, reduction="sum").backward()
    margin = 0.3 * ((FOUR[0] - FOUR[2]) - (FOUR[1] - FOUR[3]))
    torch.testing.assert_close(values[0].grad, -0.3 * torch.sigmoid(-margin))
    torch.testing.assert_close(values[1].grad, 0.3 * torch.sigmoid(-margin))


def test_label_smoothing_mixes_the_losses_of_a_pair_and_of_the_swapped_pair():
    straight, swapped = dpo_loss(*FOUR), dpo_loss(FOUR[1], FOUR[0], FOUR[3], FOUR[2])
    torch.testing.assert_close(dpo_loss(*FOUR, label_smoothing=0.2), 0.8 * straight + 0.2 * swapped)


def at_margin(loss, h: float, **options) -> tuple[float, float]:
    """Value and slope of a loss on one pair whose log-ratios differ by h."""
    chosen = torch.tensor([h], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros_like(chosen)
    value = loss(chosen, zero, zero, zero, **options)
    return value.item(), torch.autograd.grad(value, chosen)[0].item()


@few
@given(betas, st.floats(0.01, 0.4))
def test_cdpo_has_its_minimum_where_the_policy_gives_the_labels_their_true_share(beta, eps):
    best = math.log((1 - eps) / eps) / beta
    value, slope = at_margin(dpo_loss, best, beta=beta, label_smoothing=eps)
    entropy = -(1 - eps) * math.log(1 - eps) - eps * math.log(eps)
    assert slope == pytest.approx(0, abs=1e-9) and value == pytest.approx(entropy)
    assert min(at_margin(dpo_loss, best + d, beta=beta, label_smoothing=eps)[0] for d in (-0.1, 0.1)) > value


@few
@given(betas)
def test_ipo_has_its_minimum_at_half_of_one_over_beta(beta):
    assert at_margin(ipo_loss, 1 / (2 * beta), beta=beta) == pytest.approx((0, 0), abs=1e-9)
    assert at_margin(ipo_loss, 0.0, beta=beta) == pytest.approx((1 / (4 * beta**2), -1 / beta))


def test_dpo_falls_for_ever_where_ipo_turns():
    assert at_margin(dpo_loss, 50.0, beta=0.1)[1] < 0 < at_margin(ipo_loss, 50.0, beta=0.1)[1]


def test_robust_dpo_falls_below_zero_without_bound_where_cdpo_turns():
    options = {"beta": 0.1, "label_smoothing": 0.2}
    value, slope = at_margin(robust_dpo_loss, 1000.0, **options)
    assert (value, slope) == pytest.approx((-0.2 * 100 / 0.6, -0.2 * 0.1 / 0.6))
    assert at_margin(dpo_loss, 1000.0, **options)[1] > 0


@few
@given(st.data(), betas, shares)
def test_robust_dpo_averaged_over_flipped_labels_equals_dpo_on_clean_ones(data, beta, eps):
    chosen, rejected, ref_chosen, ref_rejected = (t.double() for t in data.draw(columns("ordinary", 4)))
    options = {"beta": beta, "label_smoothing": eps}
    straight = robust_dpo_loss(chosen, rejected, ref_chosen, ref_rejected, **options)
    flipped = robust_dpo_loss(rejected, chosen, ref_rejected, ref_chosen, **options)
    clean = dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta=beta)
    torch.testing.assert_close((1 - eps) * straight + eps * flipped, clean)


def test_robust_dpo_without_noise_is_dpo():
    torch.testing.assert_close(robust_dpo_loss(*FOUR, label_smoothing=0.0), dpo_loss(*FOUR))


def test_length_dpo_without_penalty_is_dpo():
    assert length_dpo_loss(*FOUR, *LENGTHS, length_penalty=0.0) == dpo_loss(*FOUR)


def test_length_dpo_pulls_less_towards_a_longer_chosen_response():
    def pull(chosen_length, rejected_length):
        chosen = ONE_PAIR[0].clone().requires_grad_()
        lengths = torch.tensor([chosen_length]), torch.tensor([rejected_length])
        length_dpo_loss(chosen, *ONE_PAIR[1:], *lengths, length_penalty=0.1).backward()
        return -chosen.grad.item()

    assert pull(9, 3) < pull(3, 3) == pull(9, 9) < pull(3, 9)


def test_swapping_the_sides_flips_the_length_term():
    start = [torch.zeros(1)] * 4
    long, short = torch.tensor([9]), torch.tensor([3])
    # -ln sigmoid(x) + ln sigmoid(-x) = -x, here with x = 0.1 * (9 - 3)
    difference = length_dpo_loss(*start, long, short, length_penalty=0.1) - length_dpo_loss(
        *start, short, long, length_penalty=0.1
    )
    assert difference.item() == pytest.approx(-0.6)


def test_implicit_reward_is_beta_times_the_log_ratio():
    assert implicit_reward(FOUR[0], FOUR[2], beta=0.5).tolist() == [0.5, 0.25, -0.5]


def test_dpo_is_bradley_terry_of_the_implicit_rewards():
    rewards = implicit_reward(FOUR[0], FOUR[2], beta=0.3), implicit_reward(FOUR[1], FOUR[3], beta=0.3)
    torch.testing.assert_close(bradley_terry_loss(*rewards), dpo_loss(*FOUR, beta=0.3))


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: dpo_loss(*FOUR, label_smoothing=0.5), "label_smoothing is a share of wrong labels"),
        (lambda: dpo_loss(*FOUR, label_smoothing=-0.1), "label_smoothing"),
        (lambda: robust_dpo_loss(*FOUR, label_smoothing=0.5), "label_smoothing"),
        (lambda: length_dpo_loss(*FOUR, *LENGTHS, length_penalty=-0.1), "length_penalty must be at least 0"),
        (lambda: length_dpo_loss(*FOUR, LENGTHS[0] * 0, LENGTHS[1]), r"chosen_lengths .* rows \[0, 1, 2\] are empty"),
        (lambda: length_dpo_loss(*FOUR, LENGTHS[0], LENGTHS[1] - 3), r"rejected_lengths .* rows \[0\] are empty"),
    ],
)
def test_wrong_use_gives_a_value_error_that_names_the_cause(call, names):
    with pytest.raises(ValueError, match=names):
        call()
