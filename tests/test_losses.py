"""What every public function of `course_lib.losses` promises: shapes, reductions, errors, no side effects."""

import inspect
import math

import pytest
import torch

from course_lib import (
    bradley_terry_loss,
    dpo_loss,
    generalized_advantage_estimate,
    grpo_advantages,
    grpo_loss,
    implicit_reward,
    ipo_loss,
    kl_estimate,
    kl_shaped_rewards,
    kto_kl_baseline,
    kto_loss,
    length_dpo_loss,
    losses,
    orpo_loss,
    ppo_policy_loss,
    ppo_value_loss,
    rloo_advantages,
    robust_dpo_loss,
    sft_loss,
    simpo_loss,
    whiten,
)

FOUR = torch.tensor([[-12.0, -7.5, -30.0], [-14.0, -7.0, -31.0], [-13.0, -8.0, -29.0], [-13.5, -7.5, -35.0]])
LENGTHS = torch.tensor([4, 2, 9]), torch.tensor([3, 5, 9])
MASK = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 1, 1]], dtype=torch.bool)

# Small valid inputs of everything public.
CALLS = {
    bradley_terry_loss: ((FOUR[0], FOUR[1]), {"margin": FOUR[2]}),
    dpo_loss: (tuple(FOUR), {}),
    generalized_advantage_estimate: ((FOUR, FOUR, MASK), {}),
    grpo_advantages: ((FOUR,), {}),
    grpo_loss: ((FOUR, FOUR, FOUR[:, 0], MASK), {"ref_logps": FOUR, "beta": 0.1}),
    implicit_reward: ((FOUR[0], FOUR[1]), {}),
    ipo_loss: (tuple(FOUR), {}),
    kl_estimate: ((FOUR[0], FOUR[1]), {}),
    kl_shaped_rewards: ((FOUR[:, 0], FOUR, FOUR, MASK), {}),
    kto_kl_baseline: ((FOUR[0], FOUR[1]), {}),
    kto_loss: ((FOUR[0], FOUR[1], torch.tensor([True, False, True])), {"kl_baseline": 0.0}),
    length_dpo_loss: ((*FOUR, *LENGTHS), {}),
    orpo_loss: ((FOUR[0], FOUR[1], *LENGTHS, -FOUR[2]), {}),
    ppo_policy_loss: ((FOUR, FOUR, FOUR, MASK), {}),
    ppo_value_loss: ((FOUR, FOUR, FOUR, MASK), {}),
    rloo_advantages: ((FOUR,), {}),
    robust_dpo_loss: (tuple(FOUR), {"label_smoothing": 0.2}),
    sft_loss: ((FOUR, MASK), {}),
    simpo_loss: ((FOUR[0], FOUR[1], *LENGTHS), {}),
    whiten: ((FOUR, MASK), {}),
}
REDUCING = [f for f in CALLS if "reduction" in inspect.signature(f).parameters]
TOKENWISE = {sft_loss, ppo_policy_loss, ppo_value_loss}


def each(argument, functions):
    return pytest.mark.parametrize(argument, functions, ids=lambda f: f.__name__)


every_loss = each("loss", REDUCING)
of_several_tensors = each("function", [f for f in CALLS if f not in (rloo_advantages, grpo_advantages)])


def with_each_tensor_changed(function, change):
    """The function's calls with one of its tensors changed, each in turn."""
    args, options = CALLS[function]
    for i, value in enumerate(args):
        yield lambda i=i, value=value: function(*args[:i], change(value), *args[i + 1 :], **options)
    for name, value in options.items():
        if isinstance(value, torch.Tensor):
            yield lambda name=name, value=value: function(*args, **{**options, name: change(value)})


def with_all_tensors_changed(function, change):
    args, options = CALLS[function]
    options = {name: change(v) if isinstance(v, torch.Tensor) else v for name, v in options.items()}
    return lambda **more: function(*map(change, args), **options, **more)


def test_the_tests_below_know_every_public_function():
    assert sorted(f.__name__ for f in CALLS) == losses.__all__


@pytest.mark.parametrize("change", [lambda t: t[:-1], lambda t: t[:1]], ids=["one-row-less", "one-row"])
@of_several_tensors
def test_a_tensor_of_another_shape_is_a_value_error_even_where_it_would_broadcast(function, change):
    for call in with_each_tensor_changed(function, change):
        with pytest.raises(ValueError, match="one shape"):
            call()


@of_several_tensors
def test_an_empty_batch_is_a_value_error(function):
    with pytest.raises(ValueError, match="empty"):
        with_all_tensors_changed(function, lambda t: t[:0])()


@each("function", CALLS)
def test_no_function_changes_its_inputs(function):
    args, options = CALLS[function]
    tensors = [t for t in (*args, *options.values()) if isinstance(t, torch.Tensor)]
    before = [t.clone() for t in tensors]
    function(*args, **options)
    assert all(map(torch.equal, tensors, before))


@every_loss
def test_mean_and_sum_are_those_of_the_unreduced_losses(loss):
    args, options = CALLS[loss]
    unreduced = loss(*args, **options, reduction="none")
    count = MASK.sum() if loss in TOKENWISE else len(args[0])
    torch.testing.assert_close(loss(*args, **options, reduction="sum"), unreduced.sum())
    torch.testing.assert_close(loss(*args, **options, reduction="mean"), unreduced.sum() / count)
    assert loss(*args, **options) == loss(*args, **options, reduction="mean")


@every_loss
def test_an_unknown_reduction_is_a_value_error(loss):
    args, options = CALLS[loss]
    with pytest.raises(ValueError, match="reduction is one of mean, sum, none; got 'avg'"):
        loss(*args, **options, reduction="avg")


@each("loss", [f for f in REDUCING if f is not kto_loss])
def test_a_batch_in_two_parts_gives_the_losses_of_the_whole(loss):
    whole = with_all_tensors_changed(loss, lambda t: t)(reduction="none")
    parts = [with_all_tensors_changed(loss, lambda t, s=s: t[s])(reduction="none") for s in (slice(1), slice(1, None))]
    torch.testing.assert_close(torch.cat(parts), whole)


@pytest.mark.parametrize("beta", [-0.1, 0.0, math.inf, math.nan])
@each("loss", [f for f in CALLS if "beta" in inspect.signature(f).parameters and f is not grpo_loss])
def test_beta_must_be_positive_and_finite(loss, beta):
    args, options = CALLS[loss]
    with pytest.raises(ValueError, match="beta is the strength"):
        loss(*args, **options, beta=beta)
