"""Reward modelling and supervised fine-tuning: formulas, hand-derived numbers, wrong use."""

import math
from decimal import Decimal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import assert_value_and_gradient, columns, few, in_every_regime, log_sigmoid

from course_lib import bradley_terry_loss, sft_loss

LOGPS = torch.tensor([[-12.0, -7.5, -30.0], [-14.0, -7.0, -31.0], [-13.0, -8.0, -29.0], [-13.5, -7.5, -35.0]])
MASK = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 1, 1]], dtype=torch.bool)


@in_every_regime
@few
@given(st.data(), st.sampled_from([0.0, 0.01]))
def test_bradley_terry_with_margin_and_centring_equals_its_formula(regime, data, centring):
    def formula(chosen, rejected, margin):
        return -log_sigmoid(chosen - rejected - margin) + Decimal(centring) * (chosen + rejected) ** 2

    def loss(chosen, rejected, margin):
        return bradley_terry_loss(chosen, rejected, margin=margin, center_coefficient=centring, reduction="none")

    assert_value_and_gradient(loss, formula, data.draw(columns(regime, 3)), wrt=(0, 1))


@in_every_regime
@few
@given(st.data())
def test_sft_loss_is_minus_the_log_probability_of_each_token(regime, data):
    def loss(logps):
        return sft_loss(logps.unsqueeze(1), torch.ones(len(logps), 1), reduction="none").squeeze(1)

    assert_value_and_gradient(loss, lambda logp: -logp, data.draw(columns(regime, 1)), wrt=(0,))


def test_bradley_terry_with_margin_and_centring_equals_the_hand_derived_value():
    loss = bradley_terry_loss(
        torch.tensor([2.0]), torch.tensor([1.0]), margin=torch.tensor([1.0]), center_coefficient=0.5
    )
    assert loss.item() == pytest.approx(math.log(2) + 0.5 * 9)


@few
@given(st.integers(0, 100))
def test_sft_loss_equals_cross_entropy_with_ignored_labels(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 6, 11, generator=generator)
    labels = torch.randint(0, 11, (3, 6), generator=generator)
    mask = torch.rand(3, 6, generator=generator) < 0.6
    mask[:, 0] = True
    logps = logits.log_softmax(-1).gather(-1, labels[..., None]).squeeze(-1)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.masked_fill(~mask, -100).flatten())
    torch.testing.assert_close(sft_loss(logps, mask), expected)


def test_sft_mean_weighs_tokens_equally_over_one_and_a_thousand_of_them():
    logps, mask = torch.full((2, 1000), -1.0), torch.zeros(2, 1000, dtype=torch.bool)
    logps[1, -1], mask[0], mask[1, -1] = -1002.0, True, True
    assert sft_loss(logps, mask).item() == pytest.approx((1000 + 1002) / 1001)


@pytest.mark.parametrize("filler", [1e4, math.inf, math.nan])
def test_sft_loss_and_gradient_do_not_see_what_lies_outside_the_mask(filler):
    logps = LOGPS.masked_fill(~MASK, filler).requires_grad_()
    loss = sft_loss(logps, MASK)
    loss.backward()
    assert loss == sft_loss(LOGPS.masked_fill(~MASK, -1.0), MASK)
    torch.testing.assert_close(logps.grad, -MASK.float() / MASK.sum())


def test_bradley_terry_is_ln_2_where_rewards_are_equal_and_knows_only_differences():
    rewards, other = LOGPS[0], LOGPS[1]
    assert bradley_terry_loss(rewards, rewards).item() == pytest.approx(math.log(2))
    torch.testing.assert_close(bradley_terry_loss(rewards + 7, other + 7), bradley_terry_loss(rewards, other))


def test_centring_pulls_the_free_constant_of_rewards_towards_zero():
    rewards = torch.tensor([5.0], requires_grad=True)
    bradley_terry_loss(rewards, rewards, center_coefficient=0.1).backward()
    assert rewards.grad.item() == pytest.approx(4.0)  # the slope of 0.1 * (r + r)^2 is 0.8 r


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: sft_loss(LOGPS, MASK & (torch.arange(4) != 2)[:, None]), r"sequences \[2\] have no completion token"),
        (lambda: sft_loss(LOGPS[:, :0], MASK[:, :0]), "empty"),
        (lambda: bradley_terry_loss(LOGPS[0], LOGPS[1], center_coefficient=-1), "center_coefficient must be at least"),
    ],
)
def test_wrong_use_gives_a_value_error_that_names_the_cause(call, names):
    with pytest.raises(ValueError, match=names):
        call()
