"""KTO: formula, the baseline that carries no gradient, saturation on both sides, wrong use."""

from decimal import Decimal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import assert_value_and_gradient, betas, columns, few, in_every_regime, sigmoid

from course_lib import kto_kl_baseline, kto_loss

POLICY, REF = torch.tensor([-5.0, -9.0, -3.0, -4.0]), torch.tensor([-6.0, -6.0, -3.0, -8.0])
DESIRABLE = torch.tensor([True, False, False, True])


@in_every_regime
@few
@given(st.data(), betas, st.sampled_from([0.0, 0.75, 16.0, 1e4]), st.floats(0, 2), st.floats(0, 2))
def test_kto_equals_its_formula(regime, data, beta, baseline, desirable_weight, undesirable_weight):
    def formula(policy, ref, desirable):
        h = policy - ref
        if desirable:
            return Decimal(desirable_weight) * (1 - sigmoid(Decimal(beta) * (h - Decimal(baseline))))
        return Decimal(undesirable_weight) * (1 - sigmoid(Decimal(beta) * (Decimal(baseline) - h)))

    def loss(*inputs):
        weights = {"desirable_weight": desirable_weight, "undesirable_weight": undesirable_weight}
        return kto_loss(*inputs, baseline, beta=beta, **weights, reduction="none")

    policy, ref = data.draw(columns(regime, 2, least=2))
    desirable = torch.arange(len(policy)) % 2 == 0
    assert_value_and_gradient(loss, formula, [policy, ref, desirable], wrt=(0,))


@in_every_regime
@few
@given(st.data())
def test_baseline_is_the_mean_log_ratio_of_mismatched_responses_or_zero(regime, data):
    policy, ref = data.draw(columns(regime, 2))
    mean = sum(p - r for p, r in zip(policy.tolist(), ref.tolist(), strict=True)) / len(policy)
    assert kto_kl_baseline(policy, ref).item() == pytest.approx(max(0.0, mean), rel=1e-5, abs=1e-5)


def test_at_the_start_every_response_loses_half_its_weight():
    loss = kto_loss(REF, REF, DESIRABLE, 0.0, desirable_weight=1.0, undesirable_weight=3.0, reduction="none")
    assert loss.tolist() == [0.5, 1.5, 1.5, 0.5]


def test_baseline_carries_no_gradient():
    policy = POLICY.clone().requires_grad_()
    assert not kto_kl_baseline(policy, REF).requires_grad
    live = torch.tensor(0.5, requires_grad=True)
    kto_loss(policy, REF, DESIRABLE, live).backward()
    assert live.grad is None
    given_as_number = POLICY.clone().requires_grad_()
    kto_loss(given_as_number, REF, DESIRABLE, 0.5).backward()
    assert torch.equal(policy.grad, given_as_number.grad)


def test_gradient_raises_desirable_responses_and_lowers_the_others():
    policy = POLICY.clone().requires_grad_()
    kto_loss(policy, REF, DESIRABLE, 0.0).backward()
    assert torch.equal(policy.grad < 0, DESIRABLE)


def test_responses_far_from_the_baseline_on_either_side_hardly_move():
    policy = torch.tensor([0.0, 0.0, 300.0, -300.0], requires_grad=True)
    kto_loss(policy, torch.zeros(4), torch.tensor([1, 0, 1, 1]), 0.0, reduction="sum").backward()
    assert policy.grad[:2].tolist() == pytest.approx([-0.1 / 4, 0.1 / 4])  # beta * sigmoid'(0)
    assert policy.grad[2:].abs().max() < 1e-12


def test_an_undesirable_response_is_a_desirable_one_mirrored_at_the_baseline():
    mirrored = kto_loss(2 * 1.5 - (POLICY - REF), torch.zeros(4), ~DESIRABLE, 1.5)
    torch.testing.assert_close(mirrored, kto_loss(POLICY, REF, DESIRABLE, 1.5))


def test_losses_of_a_batch_do_not_depend_on_its_other_rows():
    whole = kto_loss(POLICY, REF, DESIRABLE, 0.2, reduction="none")
    parts = [kto_loss(POLICY[s], REF[s], DESIRABLE[s], 0.2, reduction="none") for s in (slice(2), slice(2, 4))]
    torch.testing.assert_close(torch.cat(parts), whole)


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: kto_loss(POLICY, REF, torch.ones(4), 0.0), "all responses of the batch are desirable"),
        (lambda: kto_loss(POLICY, REF, torch.zeros(4), 0.0), "all responses of the batch are undesirable"),
        (lambda: kto_loss(POLICY, REF, DESIRABLE, POLICY), "kl_baseline is one number"),
        (lambda: kto_loss(POLICY, REF, DESIRABLE, 0.0, desirable_weight=-1), "desirable_weight must be at least 0"),
        (lambda: kto_loss(POLICY, REF, DESIRABLE, 0.0, undesirable_weight=-1), "undesirable_weight must be at least"),
    ],
)
def test_wrong_use_gives_a_value_error_that_names_the_cause(call, names):
    with pytest.raises(ValueError, match=names):
        call()
