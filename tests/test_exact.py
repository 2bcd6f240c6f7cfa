"""The exact corner: theorems about RLHF, DPO and IPO, checked in fp64 where every response can be enumerated."""

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib import bradley_terry_loss, dpo_loss, implicit_reward, ipo_loss, robust_dpo_loss
from course_lib.exact import (
    bradley_terry,
    expected_pair_loss,
    ipo_optimum,
    kl_divergence,
    log_partition,
    minimise,
    optimal_policy,
    rlhf_gradient,
    rlhf_objective,
)

few = settings(max_examples=15, deadline=None)
seeds = st.integers(0, 10**6)
betas = st.sampled_from([0.1, 0.3, 1.0, 5.0])
same = partial(torch.testing.assert_close, atol=1e-6, rtol=1e-6)

UNIFORM = torch.full((3,), 1 / 3, dtype=torch.float64).log()
DECIDED = torch.tensor([[0.5, 1, 1], [0, 0.5, 1], [0, 0, 0.5]], dtype=torch.float64)


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def draw(*shape: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probabilities of a policy and of a reference, and rewards."""
    policy, ref, rewards = normal(3, *shape, seed=seed)
    return policy.log_softmax(-1), ref.log_softmax(-1), rewards


@few
@given(seeds, betas)
def test_dpo_on_bradley_terry_data_and_rlhf_on_its_rewards_have_one_optimum(seed, beta):
    _, ref, rewards = draw(5, seed=seed)
    preferences = bradley_terry(rewards)
    dpo = minimise(lambda logps: expected_pair_loss(partial(dpo_loss, beta=beta), logps, ref, preferences), ref)
    same(dpo, optimal_policy(ref, rewards, beta=beta))


@few
@given(seeds, betas)
def test_no_policy_near_or_far_does_better_than_the_closed_form(seed, beta):
    _, ref, rewards = draw(5, seed=seed)
    best = optimal_policy(ref, rewards, beta=beta)
    steps = torch.logspace(-3, 1, 200, dtype=torch.float64).unsqueeze(1) * normal(200, 5, seed=seed + 1)
    others = rlhf_objective((best + steps).log_softmax(-1), ref.expand(200, 5), rewards.expand(200, 5), beta=beta)
    assert others.max() <= rlhf_objective(best, ref, rewards, beta=beta) + 1e-12


@few
@given(seeds, betas)
def test_objective_is_beta_ln_z_less_beta_times_the_kl_to_the_optimum(seed, beta):
    policy, ref, rewards = draw(4, 6, seed=seed)
    best = optimal_policy(ref, rewards, beta=beta)
    top = beta * log_partition(ref, rewards, beta=beta)
    same(rlhf_objective(best, ref, rewards, beta=beta), top)
    same(rlhf_objective(policy, ref, rewards, beta=beta), top - beta * kl_divergence(policy, best))


@few
@given(seeds, betas)
def test_a_constant_added_to_the_rewards_of_a_prompt_cancels(seed, beta):
    _, ref, rewards = draw(4, 6, seed=seed)
    constant = normal(4, 1, seed=seed + 1)
    same(optimal_policy(ref, rewards + constant, beta=beta), optimal_policy(ref, rewards, beta=beta))
    same(bradley_terry(rewards + constant), bradley_terry(rewards))
    shift = log_partition(ref, rewards + constant, beta=beta) - log_partition(ref, rewards, beta=beta)
    same(shift, constant.squeeze(-1) / beta)


@few
@given(seeds, betas)
def test_implicit_rewards_of_the_optimum_differ_as_the_true_rewards_do(seed, beta):
    _, ref, rewards = draw(4, 6, seed=seed)
    implicit = implicit_reward(optimal_policy(ref, rewards, beta=beta), ref, beta=beta)
    same(implicit - implicit[:, :1], rewards - rewards[:, :1])
    same(implicit + beta * log_partition(ref, rewards, beta=beta).unsqueeze(-1), rewards)


@few
@given(seeds, betas)
def test_closed_form_gradient_equals_autograd_and_vanishes_at_the_optimum(seed, beta):
    policy, ref, rewards = draw(4, 6, seed=seed)
    logits = policy.clone().requires_grad_()
    objective = rlhf_objective(logits.log_softmax(-1), ref, rewards, beta=beta)
    same(rlhf_gradient(policy, ref, rewards, beta=beta), torch.autograd.grad(objective.sum(), logits)[0])
    at_best = rlhf_gradient(optimal_policy(ref, rewards, beta=beta), ref, rewards, beta=beta)
    same(at_best, torch.zeros_like(at_best))


@few
@given(seeds, betas)
def test_ipo_minimiser_is_its_closed_form_on_any_preferences(seed, beta):
    _, ref, _ = draw(5, seed=seed)
    upper = torch.rand(5, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).triu(1)
    preferences = upper + (1 - upper.T).tril(-1) + torch.eye(5, dtype=torch.float64) / 2
    ipo = minimise(lambda logps: expected_pair_loss(partial(ipo_loss, beta=beta), logps, ref, preferences), ref)
    same(ipo, ipo_optimum(ref, preferences, beta=beta))


@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0, 10.0])
def test_on_decided_preferences_dpo_falls_until_nothing_but_the_winner_is_left_whatever_beta(beta):
    path = [normal(3, seed=0).log_softmax(-1)]
    path += [torch.tensor([s, 0, -s], dtype=torch.float64).log_softmax(-1) for s in (5.0, 50.0, 500.0, 5000.0)]
    losses = [expected_pair_loss(partial(dpo_loss, beta=beta), p, UNIFORM, DECIDED).item() for p in path]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 1e-12 and path[-1].exp()[1:].max() < 1e-12


@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0, 10.0])
def test_on_decided_preferences_ipo_stays_within_one_over_beta_where_dpo_goes_on(beta):
    spread = {}
    for loss in (dpo_loss, ipo_loss):
        objective = partial(expected_pair_loss, partial(loss, beta=beta), ref_logps=UNIFORM, preferences=DECIDED)
        ratio = minimise(objective, UNIFORM) - UNIFORM
        spread[loss] = beta * (ratio.max() - ratio.min()).item()
    # the best response wins against 5/6 of all responses, itself counted as half, and the worst against 1/6
    assert spread[ipo_loss] == pytest.approx(5 / 6 - 1 / 6, abs=1e-6)
    assert spread[dpo_loss] > 20


@few
@given(seeds, betas)
def test_robust_dpo_on_noisy_labels_is_dpo_on_clean_ones(seed, beta):
    policy, ref, rewards = draw(5, seed=seed)
    clean = bradley_terry(rewards)
    noisy = 0.8 * clean + 0.2 * clean.T
    robust = expected_pair_loss(partial(robust_dpo_loss, beta=beta, label_smoothing=0.2), policy, ref, noisy)
    same(robust, expected_pair_loss(partial(dpo_loss, beta=beta), policy, ref, clean))
    blurred = expected_pair_loss(partial(dpo_loss, beta=beta, label_smoothing=0.2), policy, ref, clean)
    same(blurred, expected_pair_loss(partial(dpo_loss, beta=beta), policy, ref, noisy))


@few
@given(seeds)
def test_reward_model_on_bradley_terry_data_finds_the_rewards_up_to_a_constant(seed):
    _, _, rewards = draw(4, seed=seed)

    def loss(chosen, rejected, *_, reduction):
        return bradley_terry_loss(chosen, rejected, reduction=reduction)

    # a reward model is free up to a constant, and so are logits: its rewards take the place of log-probabilities
    start = torch.zeros(4, dtype=torch.float64)
    found = minimise(lambda r: expected_pair_loss(loss, r, start, bradley_terry(rewards)), start)
    same(found - found[0], rewards - rewards[0])


@few
@given(seeds, st.sampled_from([0.1, 0.3, 1.0]))
def test_a_response_in_no_pair_stays_where_dpo_began_and_a_reward_model_of_the_same_pairs_is_as_blind(seed, beta):
    _, ref, rewards = draw(5, seed=seed)
    labels = bradley_terry(rewards[1:])

    def over_seen(loss, logps, start):
        return expected_pair_loss(loss, logps[1:], start[1:], labels)

    def place(logps):
        return logps[0] - logps[1:].mean()

    dpo = minimise(lambda logps: over_seen(partial(dpo_loss, beta=beta), logps, ref), ref)
    same(place(dpo), place(ref))
    elsewhere = (ref + 3.0 * torch.eye(5, dtype=torch.float64)[0]).log_softmax(-1)
    moved = minimise(lambda logps: over_seen(partial(dpo_loss, beta=beta), logps, ref), elsewhere)
    same(place(moved), place(ref) + 3)
    same(over_seen(partial(dpo_loss, beta=beta), moved, ref), over_seen(partial(dpo_loss, beta=beta), dpo, ref))
    flat = torch.zeros(5, dtype=torch.float64)
    fitted = minimise(lambda scores: over_seen(partial(dpo_loss, beta=1.0), scores, flat), flat)
    same(optimal_policy(ref, fitted, beta=beta), dpo)


def test_expected_pair_loss_of_two_responses_is_written_out():
    policy, ref = torch.tensor([-0.2, -1.7]), torch.tensor([-0.7, -0.7])
    preferences = torch.tensor([[0.5, 0.7], [0.3, 0.5]])
    loss = expected_pair_loss(partial(dpo_loss, beta=1.0), policy, ref, preferences)
    assert loss.item() == pytest.approx(0.7 * math.log(1 + math.exp(-1.5)) + 0.3 * math.log(1 + math.exp(1.5)))


def test_optimum_equals_the_hand_derived_value():
    # weights 1/2 * e^(ln 3 / 1) and 1/2 * e^0: Z = 2, pi* = 3/4 and 1/4
    ref, rewards = torch.tensor([0.5, 0.5]).log(), torch.tensor([math.log(3), 0.0])
    assert log_partition(ref, rewards, beta=1.0).item() == pytest.approx(math.log(2))
    assert optimal_policy(ref, rewards, beta=1.0).exp().tolist() == pytest.approx([0.75, 0.25])


def test_beta_sets_how_far_the_optimum_goes_from_the_reference_to_the_best_response():
    _, ref, rewards = draw(6, seed=0)
    kl = [kl_divergence(optimal_policy(ref, rewards, beta=b), ref).item() for b in (100.0, 10.0, 1.0, 0.1, 0.01)]
    assert kl == sorted(kl) and kl[0] < 1e-3
    assert optimal_policy(ref, rewards, beta=1e-3).exp()[rewards.argmax()] == pytest.approx(1)


@few
@given(seeds)
def test_kl_divergence_equals_torch_and_is_zero_only_between_equals(seed):
    policy, ref, _ = draw(4, 6, seed=seed)
    same(kl_divergence(policy, ref), torch.nn.functional.kl_div(ref, policy, log_target=True, reduction="none").sum(-1))
    assert (kl_divergence(policy, ref) > 0).all() and (kl_divergence(ref, ref) == 0).all()


def test_kl_divergence_of_a_response_that_one_side_never_gives():
    certain = torch.tensor([0.0, -torch.inf])
    half = torch.tensor([0.5, 0.5]).log()
    assert kl_divergence(certain, half).item() == pytest.approx(math.log(2))
    assert kl_divergence(half, certain).item() == math.inf


def test_gradient_of_a_response_that_the_policy_never_gives_is_zero():
    certain, zero = torch.tensor([0.0, -torch.inf]), torch.zeros(2)
    assert rlhf_gradient(certain, torch.tensor([0.5, 0.5]).log(), zero, beta=1.0).tolist() == [0.0, 0.0]


@few
@given(seeds)
def test_bradley_terry_gives_two_responses_probabilities_that_sum_to_1(seed):
    preferences = bradley_terry(normal(3, 5, seed=seed))
    same(preferences + preferences.mT, torch.ones(3, 5, 5, dtype=torch.float64))
    # ln 3 of reward is odds of 3 to 1
    assert bradley_terry(torch.tensor([math.log(3), 0.0]))[0, 1].item() == pytest.approx(0.75)


def test_minimise_leaves_the_start_alone():
    start = normal(3, seed=0).log_softmax(-1)
    before = start.clone()
    same(minimise(lambda logps: kl_divergence(logps, UNIFORM), start), UNIFORM)
    assert torch.equal(start, before)


@pytest.mark.parametrize("beta", [0.0, -1.0, math.inf, math.nan])
@pytest.mark.parametrize("function", [log_partition, optimal_policy])
def test_beta_must_be_positive_and_finite(function, beta):
    with pytest.raises(ValueError, match="beta must be above 0"):
        function(UNIFORM, UNIFORM, beta=beta)


@pytest.mark.parametrize("function", [rlhf_objective, rlhf_gradient])
def test_beta_must_be_positive_in_the_objective_and_its_gradient(function):
    with pytest.raises(ValueError, match="beta must be above 0"):
        function(UNIFORM, UNIFORM, UNIFORM, beta=0.0)


@pytest.mark.parametrize("other", [UNIFORM[:1], UNIFORM[:2]], ids=["broadcastable", "different"])
@pytest.mark.parametrize(
    "call",
    [
        lambda other: log_partition(UNIFORM, other, beta=1.0),
        lambda other: optimal_policy(UNIFORM, other, beta=1.0),
        lambda other: optimal_policy(other, UNIFORM, beta=1.0),
        lambda other: kl_divergence(other, UNIFORM),
        lambda other: rlhf_objective(other, UNIFORM, UNIFORM, beta=1.0),
        lambda other: rlhf_objective(UNIFORM, UNIFORM, other, beta=1.0),
        lambda other: rlhf_gradient(other, UNIFORM, UNIFORM, beta=1.0),
        lambda other: rlhf_gradient(UNIFORM, other, UNIFORM, beta=1.0),
        lambda other: ipo_optimum(other, DECIDED, beta=1.0),
        lambda other: expected_pair_loss(dpo_loss, other, other, DECIDED),
    ],
    ids=["ln-z", "optimum", "optimum-ref", "kl", "objective", "rewards", "gradient", "ref", "ipo", "pairs"],
)
def test_tensors_of_different_shapes_are_a_value_error(call, other):
    with pytest.raises(ValueError, match="one shape|one reward|one preference"):
        call(other)


@pytest.mark.parametrize("function", [partial(expected_pair_loss, dpo_loss, UNIFORM), partial(ipo_optimum, beta=1.0)])
def test_preferences_that_do_not_sum_to_1_are_a_value_error(function):
    with pytest.raises(ValueError, match="must be 1"):
        function(UNIFORM, DECIDED - 0.5 * torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize(
    "objective",
    [
        lambda logps: (logps * math.nan).sum(),
        lambda logps: logps[0] - logps[1],
        lambda logps: (logps[0] - logps[1]) ** 3 + logps[0],
    ],
    ids=["nan", "linear", "cubic"],
)
def test_an_objective_without_minimum_is_a_value_error(objective):
    with pytest.raises(ValueError, match="minimum"):
        minimise(objective, UNIFORM)
