"""On-policy RL: KL estimates, shaped rewards, advantages and clipped losses against formulas and slow loops."""

import math
from decimal import Decimal
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import assert_value_and_gradient, columns, few, in_every_regime

from course_lib import (
    generalized_advantage_estimate,
    grpo_advantages,
    grpo_loss,
    kl_estimate,
    kl_shaped_rewards,
    ppo_policy_loss,
    ppo_value_loss,
    rloo_advantages,
    whiten,
)

seeds = st.integers(0, 10**6)
MASK = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0], [0, 1, 1, 1]], dtype=torch.bool)
clipped_losses = pytest.mark.parametrize("loss", [ppo_policy_loss, grpo_loss], ids=["ppo", "grpo"])


def rollout(seed: int, count: int) -> tuple[list[torch.Tensor], torch.Tensor]:
    """`count` normal tensors (B, T) in fp64, and a mask with holes, of at least one token a row."""
    generator = torch.Generator().manual_seed(seed)
    shape = [int(torch.randint(1, most, (), generator=generator)) for most in (4, 8)]
    mask = torch.rand(shape, generator=generator) < 0.6
    mask[:, int(torch.randint(shape[1], (), generator=generator))] = True
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(count)], mask


def token(t: torch.Tensor) -> torch.Tensor:
    """Values (N,) as N sequences of one token."""
    return t.unsqueeze(1)


K_FORMULAS = {"k1": lambda d: d, "k2": lambda d: d**2 / 2, "k3": lambda d: (-d).exp() - 1 + d}


@in_every_regime
@pytest.mark.parametrize("estimator", K_FORMULAS)
@few
@given(data=st.data())
def test_kl_estimates_equal_their_formulas(regime, estimator, data):
    def formula(policy, ref):
        return K_FORMULAS[estimator](policy - ref)

    inputs = data.draw(columns(regime, 2))
    assert_value_and_gradient(partial(kl_estimate, estimator=estimator), formula, inputs, wrt=(0,))


@few
@given(seeds)
def test_k1_and_k3_are_unbiased_and_k2_is_not(seed):
    logits = torch.randn(2, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    policy, ref = logits.log_softmax(-1)
    kl = (policy.exp() * (policy - ref)).sum()
    mean = {k: (policy.exp() * kl_estimate(policy, ref, estimator=k)).sum() for k in K_FORMULAS}
    torch.testing.assert_close(mean["k1"], kl)
    torch.testing.assert_close(mean["k3"], kl)
    assert abs(mean["k2"] - kl) > 1e-6 * kl


@pytest.mark.parametrize("scale", [1e-8, 1e-4, 1e-2, 1.0, 100.0])
def test_k2_and_k3_are_never_negative(scale):
    difference = scale * torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    for estimator in ("k2", "k3"):
        assert (kl_estimate(difference, torch.zeros_like(difference), estimator=estimator) >= 0).all()


@few
@given(seeds, st.floats(0, 1))
def test_shaped_rewards_equal_a_loop_over_tokens(seed, kl_coefficient):
    (policy, ref), mask = rollout(seed, 2)
    scores = torch.arange(len(mask), dtype=torch.float64) + 0.5
    expected = torch.zeros_like(policy)
    for b in range(len(mask)):
        tokens = mask[b].nonzero().flatten().tolist()
        for t in tokens:
            expected[b, t] = -kl_coefficient * (policy[b, t] - ref[b, t])
        expected[b, tokens[-1]] += scores[b]
    filled = policy.masked_fill(~mask, math.nan)
    torch.testing.assert_close(kl_shaped_rewards(scores, filled, ref, mask, kl_coefficient=kl_coefficient), expected)


def test_shaped_rewards_of_a_completion_sum_to_its_score_less_the_price_of_its_kl():
    scores, policy = torch.tensor([1.0, 2.0, 3.0]), torch.full(MASK.shape, -1.0, requires_grad=True)
    rewards = kl_shaped_rewards(scores, policy, torch.full(MASK.shape, -2.0), MASK, kl_coefficient=0.1)
    assert rewards.sum(dim=1).tolist() == pytest.approx([1 - 0.3, 2 - 0.1, 3 - 0.3])
    assert rewards.argmax(dim=1).tolist() == [2, 0, 3] and not rewards.requires_grad


def slow_advantages(rewards: list[float], values: list[float], gamma: float, lam: float) -> list[float]:
    """sum_l (gamma * lam)^l * delta_{t+l}, written out for every t."""
    following = [*values[1:], 0.0]
    delta = [r + gamma * after - v for r, after, v in zip(rewards, following, values, strict=True)]
    return [sum((gamma * lam) ** (k - t) * delta[k] for k in range(t, len(delta))) for t in range(len(delta))]


@few
@given(seeds, st.floats(0, 1), st.floats(0, 1))
def test_gae_equals_a_slow_double_loop_over_the_tokens_of_the_mask(seed, gamma, lam):
    (rewards, values), mask = rollout(seed, 2)
    expected = torch.zeros_like(values)
    for b in range(len(mask)):
        inside = slow_advantages(rewards[b, mask[b]].tolist(), values[b, mask[b]].tolist(), gamma, lam)
        expected[b, mask[b]] = torch.tensor(inside, dtype=torch.float64)
    filled = rewards.masked_fill(~mask, math.nan), values.masked_fill(~mask, math.inf)
    advantages, returns = generalized_advantage_estimate(*filled, mask, gamma=gamma, lam=lam)
    torch.testing.assert_close(advantages, expected)
    torch.testing.assert_close(returns, (expected + values).masked_fill(~mask, 0.0))


@few
@given(seeds)
def test_gae_with_lam_and_gamma_1_returns_the_sum_of_future_rewards_whatever_the_critic(seed):
    (rewards, values), mask = rollout(seed, 2)
    rewards = rewards.masked_fill(~mask, 0.0)
    advantages, returns = generalized_advantage_estimate(rewards, values, mask, gamma=1.0, lam=1.0)
    future = rewards.flip(1).cumsum(1).flip(1).masked_fill(~mask, 0.0)
    torch.testing.assert_close(returns, future)
    torch.testing.assert_close(advantages, future - values.masked_fill(~mask, 0.0))


def test_gae_over_a_thousand_tokens_keeps_the_score_of_the_last():
    rewards, values = torch.zeros(1, 1000), torch.zeros(1, 1000)
    rewards[0, -1] = 1.0
    advantages, returns = generalized_advantage_estimate(rewards, values, torch.ones(1, 1000), gamma=1.0, lam=0.95)
    assert returns[0, [0, 979, 999]].tolist() == pytest.approx([0.95**999, 0.95**20, 1.0])
    assert torch.equal(advantages, returns)


def test_gae_of_a_perfect_critic_is_zero_and_carries_no_gradient():
    rewards = torch.tensor([[0.5, -1.0, 2.0]])
    values = torch.tensor([[1.5, 1.0, 2.0]], requires_grad=True)
    advantages, returns = generalized_advantage_estimate(rewards, values, torch.ones(1, 3), gamma=1.0, lam=0.7)
    assert advantages.abs().max() == 0 and returns.tolist() == values.tolist()
    assert not advantages.requires_grad and not returns.requires_grad


@few
@given(seeds, st.booleans())
def test_whiten_equals_numpy_on_the_values_of_the_mask(seed, shift_mean):
    (values,), mask = rollout(seed, 1)
    mask[0] = True
    inside = values[mask].numpy()
    std = math.sqrt(np.var(inside, ddof=1) + 1e-8) if len(inside) > 1 else 1.0
    expected = torch.zeros_like(values)
    expected[mask] = torch.from_numpy((inside - inside.mean()) / std + (0 if shift_mean else inside.mean()))
    torch.testing.assert_close(whiten(values.masked_fill(~mask, math.nan), mask, shift_mean=shift_mean), expected)


@few
@given(st.floats(-100, 100), st.floats(0.1, 10))
def test_whitened_values_have_mean_0_and_variance_1_whatever_their_scale(shift, scale):
    values = shift + scale * torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    inside = whiten(values, MASK)[MASK]
    assert inside.mean().item() == pytest.approx(0, abs=1e-9) and inside.var().item() == pytest.approx(1, abs=1e-5)
    kept = whiten(values, MASK, shift_mean=False)[MASK]
    assert kept.mean().item() == pytest.approx(values[MASK].mean().item()) and kept.var().item() == pytest.approx(
        1, abs=1e-5
    )


@pytest.mark.parametrize("value", [0.0, 0.1, 1000.1])
def test_equal_values_are_whitened_to_zero(value):
    assert whiten(torch.full((3, 4), value), MASK).abs().max() < 1e-3


def test_one_value_alone_is_whitened_to_zero():
    assert whiten(torch.tensor([[3.0, 9.0]]), torch.tensor([[True, False]])).tolist() == [[0.0, 0.0]]


@few
@given(st.integers(2, 6), seeds)
def test_rloo_equals_the_score_less_the_mean_of_the_others(group, seed):
    scores = torch.randn(3, group, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = [[row[i] - np.mean(np.delete(row, i)) for i in range(group)] for row in scores.numpy()]
    torch.testing.assert_close(rloo_advantages(scores), torch.tensor(np.array(expected)))


@few
@given(st.integers(2, 6), seeds)
def test_grpo_advantages_equal_numpy_with_and_without_scale(group, seed):
    scores = torch.randn(3, group, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    centred = scores.numpy() - scores.numpy().mean(axis=1, keepdims=True)
    std = scores.numpy().std(axis=1, ddof=1, keepdims=True)
    torch.testing.assert_close(grpo_advantages(scores), torch.from_numpy(centred / (std + 1e-4)))
    torch.testing.assert_close(grpo_advantages(scores, scale=False), torch.from_numpy(centred))


def test_rloo_and_unscaled_grpo_differ_by_a_factor_of_the_group_size():
    scores = torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]])
    assert rloo_advantages(scores).tolist() == [[-3.0, -1.5, 4.5], [-1.5, -1.5, 3.0]]
    torch.testing.assert_close(rloo_advantages(scores), grpo_advantages(scores, scale=False) * 3 / 2)


@pytest.mark.parametrize("advantages", [rloo_advantages, grpo_advantages], ids=["rloo", "grpo"])
def test_group_advantages_sum_to_zero_ignore_a_shift_and_carry_no_gradient(advantages):
    scores = torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.5, 3.0]], requires_grad=True)
    result = advantages(scores)
    torch.testing.assert_close(result.sum(dim=1), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(advantages(scores + 16), result)
    assert not result.requires_grad


@pytest.mark.parametrize("score", [0.0, 0.1, 1000.1])
@pytest.mark.parametrize("advantages", [rloo_advantages, grpo_advantages], ids=["rloo", "grpo"])
def test_samples_that_score_the_same_have_no_advantage(advantages, score):
    assert advantages(torch.full((2, 7), score)).abs().max() < 1e-3


def clipped_surrogate(logp, old, advantage):
    ratio = (logp - old).exp()
    return -min(ratio * advantage, max(min(ratio, Decimal("1.2")), Decimal("0.8")) * advantage)


def with_either_sign(values: torch.Tensor) -> torch.Tensor:
    return values + (1e4 if values.min() < -100 else 10)


@in_every_regime
@few
@given(st.data())
def test_ppo_policy_loss_equals_its_formula(regime, data):
    def loss(*three):
        return ppo_policy_loss(*map(token, three), torch.ones(len(three[0]), 1), reduction="none").squeeze(1)

    logps, old, other = data.draw(columns(regime, 3))
    assert_value_and_gradient(loss, clipped_surrogate, [logps, old, with_either_sign(other)], wrt=(0,))


@pytest.mark.parametrize(("regime", "beta"), [("ordinary", 0.1), ("bf16", 0.1), ("extreme", 0), ("extreme-bf16", 0)])
@few
@given(st.data())
def test_grpo_loss_equals_its_formula(regime, beta, data):
    def formula(logp, old, advantage, ref):
        return clipped_surrogate(logp, old, advantage), Decimal(beta) * K_FORMULAS["k3"](logp - ref)

    def loss(logps, old, advantages, ref):
        mask = torch.ones(len(logps), 1)
        return grpo_loss(token(logps), token(old), advantages, mask, ref_logps=token(ref), beta=beta, reduction="none")

    logps, old, other, ref = data.draw(columns(regime, 4))
    assert_value_and_gradient(loss, formula, [logps, old, with_either_sign(other), ref], wrt=(0,))


@in_every_regime
@few
@given(st.data(), st.lists(st.sampled_from([-0.35, -0.1, 0.0, 0.05, 0.3]), min_size=4, max_size=4), st.booleans())
def test_ppo_value_loss_equals_its_formula(regime, data, moves, near):
    # fp32 adds it to the extreme values without rounding, and no two drawn values are likely to lie just that far apart
    clip_range = 0.25 + 2**-9

    def formula(value, old, target):
        clipped = old + max(min(value - old, Decimal(clip_range)), -Decimal(clip_range))
        return max((value - target) ** 2, (clipped - target) ** 2) / 2

    def loss(*three):
        mask = torch.ones(len(three[0]), 1)
        return ppo_value_loss(*map(token, three), mask, clip_range=clip_range, reduction="none").squeeze(1)

    values, old, returns = data.draw(columns(regime, 3))
    if near and regime == "ordinary":
        old = values + torch.tensor(moves[: len(values)])
    assert_value_and_gradient(loss, formula, [values, old, returns], wrt=(0,))


@clipped_losses
def test_at_the_first_update_the_ratio_is_1_and_the_gradient_is_that_of_policy_gradient(loss):
    (old, advantages), mask = rollout(3, 2)
    logps = old.clone().requires_grad_()
    advantages[:] = advantages[:, :1]
    value = loss(logps, old, advantages, mask)
    value.backward()
    weights = mask / (mask.sum() if loss is ppo_policy_loss else mask.sum(1, keepdim=True) * len(mask))
    torch.testing.assert_close(value, -(advantages * weights).sum())
    torch.testing.assert_close(logps.grad, -advantages * weights)


@clipped_losses
@pytest.mark.parametrize(
    ("log_ratio", "advantage", "moves"),
    [
        (0.5, 1.0, False),
        (-0.5, 1.0, True),
        (0.5, -1.0, True),
        (-0.5, -1.0, False),
        (0.1, 1.0, True),
        (-0.1, -1.0, True),
    ],
)
def test_clipping_stops_the_gradient_only_where_the_policy_has_already_moved_the_right_way(
    loss, log_ratio, advantage, moves
):
    logps = torch.full((1, 1), log_ratio, requires_grad=True)
    loss(logps, torch.zeros(1, 1), torch.full((1, 1), float(advantage)), torch.ones(1, 1)).backward()
    assert bool(logps.grad) == moves


@clipped_losses
def test_old_policy_and_advantages_carry_no_gradient(loss):
    logps, old, advantages = (torch.zeros(1, 2, requires_grad=True) for _ in range(3))
    loss(logps, old, advantages + 1, torch.ones(1, 2)).backward()
    assert logps.grad is not None and old.grad is None and advantages.grad is None


def test_value_loss_within_the_clip_range_is_half_the_squared_error():
    old, returns = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 0.0]])
    assert ppo_value_loss(old + 0.1, old, returns, torch.ones(1, 2)).item() == pytest.approx((1.9**2 + 2.1**2) / 4)


def test_value_loss_never_rewards_a_jump_to_the_target():
    old, returns = torch.zeros(1, 1), torch.ones(1, 1)
    jumped = torch.ones(1, 1, requires_grad=True)
    loss = ppo_value_loss(jumped, old, returns, torch.ones(1, 1))
    loss.backward()
    assert loss.item() == pytest.approx(0.8**2 / 2) and jumped.grad == 0


def test_grpo_weighs_sequences_equally_where_ppo_weighs_tokens():
    (logps, old, advantages), mask = rollout(0, 3)
    alone = [ppo_policy_loss(*(t[b : b + 1] for t in (logps, old, advantages, mask))) for b in range(len(mask))]
    assert len(set(mask.sum(1).tolist())) > 1
    torch.testing.assert_close(grpo_loss(logps, old, advantages, mask), torch.stack(alone).mean())
    weights = mask.sum(1) / mask.sum()
    torch.testing.assert_close(ppo_policy_loss(logps, old, advantages, mask), (torch.stack(alone) * weights).sum())


def test_grpo_takes_one_advantage_a_sequence_or_one_a_token():
    (logps, old, advantages), mask = rollout(0, 3)
    each_token = advantages[:, :1].expand_as(logps)
    torch.testing.assert_close(grpo_loss(logps, old, advantages[:, 0], mask), grpo_loss(logps, old, each_token, mask))


def test_grpo_with_no_advantage_is_beta_times_k3():
    (logps, old, ref), mask = rollout(0, 3)
    loss = grpo_loss(logps, old, torch.zeros(len(mask)), mask, ref_logps=ref, beta=0.3, reduction="none")
    k3 = kl_estimate(logps, ref, estimator="k3")
    torch.testing.assert_close(loss, torch.stack([0.3 * k3[b, mask[b]].mean() for b in range(len(mask))]))


@pytest.mark.parametrize("filler", [1e4, math.nan])
@pytest.mark.parametrize("loss", ["ppo", "value", "grpo"])
def test_losses_and_gradients_do_not_see_what_lies_outside_the_mask(loss, filler):
    def value_and_gradient(outside):
        leaf, old, other = (t.masked_fill(~mask, outside) for t in tensors)
        leaf.requires_grad_()
        if loss == "grpo":
            value = grpo_loss(leaf, old, other, mask, ref_logps=other, beta=0.1)
        else:
            value = {"ppo": ppo_policy_loss, "value": ppo_value_loss}[loss](leaf, old, other, mask)
        return value.detach(), torch.autograd.grad(value, leaf)[0]

    tensors, mask = rollout(0, 3)
    assert not mask.all()
    torch.testing.assert_close(value_and_gradient(filler), value_and_gradient(0.0))


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda z: kl_estimate(z, z, estimator="k4"), "estimator is one of k1, k2, k3; got 'k4'"),
        (lambda z: kl_shaped_rewards(z[:, 0], z, z, MASK, kl_coefficient=-0.1), "kl_coefficient must be at least 0"),
        (lambda z: kl_shaped_rewards(z[:, :1], z, z, MASK), "one shape: scores"),
        (lambda z: kl_shaped_rewards(z[:, 0], z, z, MASK & False), r"sequences \[0, 1, 2\] have no completion token"),
        (lambda z: generalized_advantage_estimate(z, z, MASK, gamma=1.1), "gamma and lam lie between 0 and 1"),
        (lambda z: generalized_advantage_estimate(z, z, MASK, lam=-0.1), "gamma and lam lie between 0 and 1"),
        (lambda z: generalized_advantage_estimate(z, z, MASK & False), "no completion token"),
        (lambda z: whiten(z, MASK & False), "mask is empty"),
        (lambda z: ppo_policy_loss(z, z, z, MASK & False), "no completion token"),
        (lambda z: ppo_policy_loss(z, z, z, MASK, clip_range=0.0), "clip_range is how far"),
        (lambda z: ppo_policy_loss(z, z, z[:, 0], MASK), "one shape"),
        (lambda z: ppo_value_loss(z, z, z, MASK, clip_range=0.0), "clip_range is how far a value"),
        (lambda z: ppo_value_loss(z, z, z, MASK & False), "no completion token"),
        (lambda z: rloo_advantages(z[:, :1]), "at least two samples a prompt"),
        (lambda z: rloo_advantages(z[0]), r"scores are \(prompts, group\)"),
        (lambda z: grpo_advantages(z[:, :1]), "at least two samples a prompt"),
        (lambda z: grpo_loss(z, z, z[:, 0], MASK & False), "no completion token"),
        (lambda z: grpo_loss(z, z, z[0], MASK), "one shape: advantages"),
        (lambda z: grpo_loss(z, z, z[:, 0], MASK, beta=0.1), "pass ref_logps"),
        (lambda z: grpo_loss(z, z, z[:, 0], MASK, beta=-0.1), "beta must be at least 0"),
        (lambda z: grpo_loss(z, z, z[:, 0], MASK, clip_range=1.0), "clip_range is how far"),
        (lambda z: grpo_loss(z[:, :0], z[:, :0], z[:, 0], MASK[:, :0]), "empty"),
    ],
)
def test_wrong_use_gives_a_value_error_that_names_the_cause(call, names):
    with pytest.raises(ValueError, match=names):
        call(torch.zeros(MASK.shape))


def test_gradients_of_kl_estimates_summed_over_all_outcomes():
    """In the reward k1 has the gradient of KL(pi || ref), in the loss none; k2 in the loss has it too; k3 that of
    KL(ref || pi)."""
    generator = torch.Generator().manual_seed(0)
    logits, ref = (torch.randn(5, dtype=torch.float64, generator=generator) for _ in range(2))
    logits.requires_grad_()
    ref = ref.log_softmax(0)

    def gradient(value):
        return torch.autograd.grad(value, logits, retain_graph=True)[0]

    logps = logits.log_softmax(0)
    chances = logps.exp().detach()
    forward = gradient((logps.exp() * (logps - ref)).sum())
    backward = gradient((ref.exp() * (ref - logps)).sum())
    in_reward = gradient((chances * (logps.detach() - ref) * logps).sum())  # REINFORCE, each outcome by its chance
    in_loss = {k: gradient((chances * kl_estimate(logps, ref, estimator=k)).sum()) for k in ("k1", "k2", "k3")}
    torch.testing.assert_close(in_reward, forward)
    torch.testing.assert_close(in_loss["k1"], torch.zeros_like(forward))
    torch.testing.assert_close(in_loss["k2"], forward)
    torch.testing.assert_close(in_loss["k3"], backward)
    assert not torch.allclose(forward, backward, rtol=0.1)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        *(({"normalise": value}, "normalise is") for value in (0, -1.0, "mean", True, float("inf"))),
        *(({"clip_range_high": value}, "clip_range_high is") for value in (0.0, -1.5, float("nan"))),
        ({"kl_estimator": "k1"}, "pulls nowhere"),
    ],
)
def test_group_settings_out_of_range_are_refused(option, message):
    with pytest.raises(ValueError, match=message):
        grpo_loss(
            torch.zeros(2, 3),
            torch.zeros(2, 3),
            torch.zeros(2),
            torch.ones(2, 3, dtype=torch.bool),
            **option,
        )
