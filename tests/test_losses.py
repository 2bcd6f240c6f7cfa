"""Losses against hand-derived numbers, invariants, torch's own functions and TRL."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib import bradley_terry_loss, dpo_loss, implicit_reward, sft_loss

FOUR = torch.tensor([[-12.0, -7.5, -30.0], [-14.0, -7.0, -31.0], [-13.0, -8.0, -29.0], [-13.5, -7.5, -35.0]])


def four(seed: int, size: int = 8, scale: float = 30.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [-scale * torch.rand(size, generator=generator) for _ in range(4)]


def test_dpo_equals_the_hand_derived_value():
    # h = (-12 + 13) - (-14 + 13.5) = 1.5; -ln sigmoid(0.1 * 1.5) = 0.620957...
    one = [row[:1] for row in FOUR]
    assert dpo_loss(*one, beta=0.1).item() == pytest.approx(math.log(1 + math.exp(-0.15)), abs=1e-7)


@given(seed=st.integers(0, 1000), beta=st.floats(0.01, 10))
@settings(max_examples=25, deadline=None)
def test_dpo_starts_at_ln_2_whatever_beta(seed, beta):
    chosen, rejected, _, _ = four(seed)
    assert dpo_loss(chosen, rejected, chosen, rejected, beta=beta).item() == pytest.approx(math.log(2), abs=1e-6)


@given(seed=st.integers(0, 1000), shift=st.floats(-50, 50))
@settings(max_examples=25, deadline=None)
def test_dpo_ignores_a_shift_of_both_policy_logps(seed, shift):
    chosen, rejected, *ref = four(seed)
    shifted = dpo_loss(chosen + shift, rejected + shift, *ref)
    torch.testing.assert_close(shifted, dpo_loss(chosen, rejected, *ref), atol=1e-4, rtol=1e-4)


def test_dpo_gradient_is_beta_times_the_sigmoid_of_the_wrong_margin():
    values = [t.clone().requires_grad_() for t in FOUR]
    dpo_loss(*values, beta=0.3, reduction="sum").backward()
    margin = 0.3 * ((FOUR[0] - FOUR[2]) - (FOUR[1] - FOUR[3]))
    torch.testing.assert_close(values[0].grad, -0.3 * torch.sigmoid(-margin))
    torch.testing.assert_close(values[1].grad, 0.3 * torch.sigmoid(-margin))


def test_swapping_a_pair_with_label_smoothing_mixes_both_losses():
    straight, swapped = dpo_loss(*FOUR), dpo_loss(FOUR[1], FOUR[0], FOUR[3], FOUR[2])
    torch.testing.assert_close(dpo_loss(*FOUR, label_smoothing=0.2), 0.8 * straight + 0.2 * swapped)


@pytest.mark.parametrize("scale", [1e4, 1e6])
def test_dpo_is_finite_on_extreme_log_ratios(scale):
    values = [(t * scale).requires_grad_() for t in four(0)]
    loss = dpo_loss(*values)
    loss.backward()
    assert loss.isfinite() and all(v.grad.isfinite().all() for v in values)


def test_implicit_reward_is_beta_times_the_log_ratio():
    assert implicit_reward(FOUR[0], FOUR[2], beta=0.5).tolist() == [0.5, 0.25, -0.5]


@given(st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_sft_loss_equals_cross_entropy_with_ignored_labels(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 6, 11, generator=generator)
    labels = torch.randint(0, 11, (3, 6), generator=generator)
    mask = torch.rand(3, 6, generator=generator) < 0.6
    mask[:, 0] = True
    logps = logits.log_softmax(-1).gather(-1, labels[..., None]).squeeze(-1)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.masked_fill(~mask, -100).flatten())
    torch.testing.assert_close(sft_loss(logps, mask), expected)


def test_sft_none_sums_to_sum():
    logps, mask = torch.tensor([[-1.0, -2.0, -9.0], [-3.0, -4.0, -5.0]]), torch.tensor([[1, 1, 0], [0, 0, 1]])
    assert sft_loss(logps, mask, reduction="none").sum(dim=1).tolist() == [3.0, 5.0]
    assert sft_loss(logps, mask, reduction="sum").item() == 8.0


def test_bradley_terry_with_margin_and_centring():
    loss = bradley_terry_loss(
        torch.tensor([2.0]), torch.tensor([1.0]), margin=torch.tensor([1.0]), center_coefficient=0.5
    )
    assert loss.item() == pytest.approx(math.log(2) + 0.5 * 9)


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda: dpo_loss(FOUR[0], FOUR[1][:2], FOUR[2], FOUR[3]), "one shape"),
        (lambda: dpo_loss(*FOUR, beta=-0.1), "beta"),
        (lambda: dpo_loss(*FOUR, beta=0.0), "beta"),
        (lambda: dpo_loss(*FOUR, label_smoothing=0.5), "label_smoothing"),
        (lambda: dpo_loss(*FOUR, reduction="avg"), "reduction"),
        (lambda: dpo_loss(*FOUR[:, :0]), "empty"),
        (lambda: implicit_reward(FOUR[0], FOUR[1][:1]), "one shape"),
        (lambda: sft_loss(FOUR, torch.zeros_like(FOUR)), "no completion token"),
        (lambda: bradley_terry_loss(FOUR[0], FOUR[1], center_coefficient=-1), "center_coefficient"),
    ],
)
def test_wrong_use_gives_a_value_error_that_names_the_cause(call, names):
    with pytest.raises(ValueError, match=names):
        call()
