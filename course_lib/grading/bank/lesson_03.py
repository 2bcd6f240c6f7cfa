"""Tasks of lesson 03, the objective both families share."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from course_lib.grading.task import Draw, Mistake, Property, Task


def shares(draw: Draw, count: int, least: int = 5) -> torch.Tensor:
    """Probabilities of `count` replies, in whole hundredths; no two alike."""
    while True:
        cuts = sorted(draw.sample(range(1, 100 - least * count), count - 1))
        found = [least + b - a for a, b in zip([0, *cuts], [*cuts, 100 - least * count])]
        if len(set(found)) == count:
            return torch.tensor(found) / 100


# ---- 03.1


def objective(logps, ref_logps, rewards, *, beta):
    """J of a policy over K replies to one prompt. Three tensors (K,) in, one number out."""
    mean_reward = (logps.exp() * rewards).sum()
    kl = (logps.exp() * (logps - ref_logps)).sum()
    return mean_reward - beta * kl


def objective_as_one_mean(logps, ref_logps, rewards, *, beta):
    worth = rewards - beta * (logps - ref_logps)
    return torch.exp(logps) @ worth


def objective_by_torchs_kl(logps, ref_logps, rewards, *, beta):
    kl = F.kl_div(ref_logps, logps, reduction="sum", log_target=True)
    return torch.dot(logps.exp(), rewards) - beta * kl


def six(draw: Draw, count: int, **given) -> dict:
    inputs = {
        "logps": shares(draw, count).log(),
        "ref_logps": shares(draw, count).log(),
        "rewards": draw.distinct(count, low=-1.0, high=2.0),
        "beta": draw.number(0.2, 0.8),
    }
    return inputs | given


def unmoved(draw: Draw):
    logps = shares(draw, 2).log()
    yield six(draw, 2, logps=logps, ref_logps=logps.clone())


def moved(draw: Draw):
    return [six(draw, count) for count in (2, 3, 4)]


def given_up(draw: Draw):
    logps = torch.tensor([0.7, 0.3, 1.0]).log()
    logps[2] = -float(draw.randint(25, 35))
    yield six(draw, 3, logps=logps)


def dear(draw: Draw):
    return [six(draw, count, beta=draw.number(1.5, 4.0)) for count in (2, 3)]


OBJECTIVE = Task(
    id="03.1",
    title="The wrong way round",
    kind="fix the bug",
    points=2,
    difficulty="medium",
    minutes=10,
    reference=objective,
    also_correct=[objective_as_one_mean, objective_by_torchs_kl],
    gradient_of=("logps",),
    properties=[
        Property("a policy that is the reference pays nothing", unmoved),
        Property("a policy that has moved pays for what it says itself", moved),
        Property("a reply that the policy has given up costs next to nothing", given_up),
        Property("a higher price makes distance dearer", dear),
    ],
    mistakes=[
        Mistake(
            "the KL is taken the wrong way round",
            "This is KL(ref || policy), a mean over what the reference says. It forbids giving up any reply, and its optimum is not ref times exp(r / beta) over Z.",
            "03, Distance",
            edit=("kl = (logps.exp() * (logps - ref_logps)).sum()", "kl = (ref_logps.exp() * (ref_logps - logps)).sum()"),
        ),
        Mistake(
            "the reference's probabilities weigh the policy's log-ratios",
            "The log-ratios are right, but their mean is over what the policy says. Weighed by the reference they give minus the other KL, never above 0.",
            "03, Distance",
            edit=("kl = (logps.exp() * (logps - ref_logps)).sum()", "kl = (ref_logps.exp() * (logps - ref_logps)).sum()"),
        ),
        Mistake(
            "distance is paid out, not charged",
            "The KL is a cost: with the wrong sign the policy is paid for leaving the reference.",
            "03, What to optimise",
            edit=("mean_reward - beta * kl", "mean_reward + beta * kl"),
        ),
        Mistake(
            "the log-ratios are not weighed",
            "A KL is a mean over the policy's replies: each log-ratio counts as often as the policy gives that reply.",
            "03, Distance",
            edit=("kl = (logps.exp() * (logps - ref_logps)).sum()", "kl = (logps - ref_logps).sum()"),
        ),
        Mistake(
            "the weighed log-ratios are averaged",
            "The probabilities are the weights of the mean already. Dividing by the number of replies makes the price depend on how many are listed.",
            "03, Distance",
            edit=("kl = (logps.exp() * (logps - ref_logps)).sum()", "kl = (logps.exp() * (logps - ref_logps)).mean()"),
        ),
        Mistake(
            "the reference is forgotten",
            "Without it the price is minus the entropy: it pulls towards all replies alike, not towards the reference.",
            "03, Distance",
            edit=("(logps - ref_logps)", "logps"),
        ),
        Mistake(
            "the reward is that of the reference",
            "The mean reward is over what the policy says. Over the reference's replies it would not change whatever the policy learns.",
            "03, What to optimise",
            edit=("mean_reward = (logps.exp()", "mean_reward = (ref_logps.exp()"),
        ),
        Mistake(
            "beta is missing",
            "Beta is the price of a nat in reward units. Without it every nat costs 1.",
            "03, What to optimise",
            edit=("beta * kl", "kl"),
        ),
        Mistake(
            "beta weighs the reward",
            "Beta is the price of distance, so it stands before the KL. Before the reward a large beta sends the policy further away.",
            "03, What to optimise",
            edit=("mean_reward - beta * kl", "beta * mean_reward - kl"),
        ),
        Mistake(
            "the KL's weights are detached",
            "The value is right and the slope is not: how often the policy gives a reply changes the KL too, and that part of the gradient is lost.",
            "03, Way two: climb",
            edit=("kl = (logps.exp()", "kl = (logps.exp().detach()"),
        ),
    ],
    hints=[
        "Whose replies are averaged over in the KL of the lesson? And over whose are they here?",
        "KL(policy || ref) weighs each log-ratio, policy minus reference, by the policy's probability of that reply.",
    ],
)  # fmt: skip


# ---- 03.2


def optimal_policy(ref_logps, rewards, *, beta):
    """Log-probabilities of the best policy, prompt by prompt. Two tensors (B, K) in, (B, K) out."""
    scores = ref_logps + rewards / beta
    log_z = torch.logsumexp(scores, dim=-1, keepdim=True)
    return scores - log_z


def optimal_policy_by_softmax(ref_logps, rewards, *, beta):
    return torch.stack([F.log_softmax(row + reward / beta, dim=0) for row, reward in zip(ref_logps, rewards)])


def optimal_policy_by_hand(ref_logps, rewards, *, beta):
    scores = (ref_logps + rewards / beta).numpy().astype(np.float64)
    scores = scores - scores.max(axis=1, keepdims=True)
    return scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))


def worlds(draw: Draw, prompts: int, count: int, low=-1.0, high=2.0, **given) -> dict:
    inputs = {
        "ref_logps": torch.stack([shares(draw, count).log() for _ in range(prompts)]),
        "rewards": draw.distinct(prompts, count, low=low, high=high),
        "beta": draw.number(0.3, 0.8),
    }
    return inputs | given


def equal_rewards(draw: Draw):
    yield worlds(draw, 1, 2, rewards=torch.full((1, 2), draw.number(0.5, 1.5)))


def one_prompt(draw: Draw):
    return [worlds(draw, 1, count) for count in (2, 3)]


def several_prompts(draw: Draw):
    return [worlds(draw, 2, 3), worlds(draw, 3, 4, beta=draw.number(1.5, 3.0))]


def low_price(draw: Draw):
    """The best replies' exp(r / beta) overflow in fp32. Each prompt's worst probability underflows, and so do all of
    one prompt beside those of the other."""
    best = draw.number(3.0, 3.3)
    prompts = [
        [top, round(top - draw.number(2.4, 2.8), 2), round(top - draw.number(0.5, 0.9), 2)]
        for top in (best, round(best - draw.number(2.4, 2.8), 2))
    ]
    mixed = torch.tensor([draw.sample(each, 3) for each in draw.sample(prompts, 2)])
    for rewards in (torch.tensor(prompts[:1])[:, :2], mixed):
        yield worlds(draw, *rewards.shape, rewards=rewards, beta=draw.choice([0.015, 0.02]))


OPTIMAL_POLICY = Task(
    id="03.2",
    title="The best policy there is",
    kind="implement",
    points=2,
    difficulty="medium",
    minutes=10,
    reference=optimal_policy,
    also_correct=[optimal_policy_by_softmax, optimal_policy_by_hand],
    properties=[
        Property("where all replies earn the same the reference is best", equal_rewards),
        Property("one prompt gets its best policy", one_prompt),
        Property("each of several prompts gets its own", several_prompts),
        Property("a very low price does not break it", low_price),
    ],
    mistakes=[
        Mistake(
            "Z is forgotten",
            "ref times exp(r / beta) does not sum to one. Dividing by Z, which is subtracting ln Z, makes it a distribution.",
            "03, The best policy in three lines",
            edit=("scores - log_z", "scores"),
        ),
        Mistake(
            "one Z for all prompts",
            "Every prompt has its own Z: the probabilities of each prompt's replies sum to one.",
            "03, Way one: see Z cancel",
            edit=("torch.logsumexp(scores, dim=-1, keepdim=True)", "torch.logsumexp(scores.flatten(), dim=0)"),
        ),
        Mistake(
            "Z sums over the prompts, not over the replies",
            "The replies stand along the last dimension: Z is a sum over these.",
            "03, The best policy in three lines",
            edit=("dim=-1", "dim=0"),
        ),
        Mistake(
            "Z leaves the reference out",
            "Z is the sum of what it is to normalise: of ref times exp(r / beta), not of exp(r / beta) alone.",
            "03, The best policy in three lines",
            edit=("torch.logsumexp(scores,", "torch.logsumexp(rewards / beta,"),
        ),
        Mistake(
            "Z is subtracted, not its logarithm",
            "To divide a probability by Z is to subtract ln Z from its logarithm.",
            "03, The best policy in three lines",
            edit=("scores - log_z", "scores - log_z.exp()"),
        ),
        Mistake(
            "beta multiplies where it divides",
            "A high price keeps the policy near the reference, so it must make the rewards small: they are divided by beta.",
            "03, Beta's two ends",
            edit=("rewards / beta", "rewards * beta"),
        ),
        Mistake(
            "the reference is divided by beta too",
            "Only the reward is divided by its price. Dividing the reference as well sharpens or flattens it, as a sampling temperature would.",
            "03, Beta's two ends",
            edit=("ref_logps + rewards / beta", "(ref_logps + rewards) / beta"),
        ),
        Mistake(
            "the reference is forgotten",
            "Without it the best policy would be a softmax of the rewards, whatever the model said before.",
            "03, The best policy in three lines",
            edit=("ref_logps + rewards / beta", "rewards / beta"),
        ),
        Mistake(
            "the worst reply gains",
            "A reply with more reward becomes likelier: the reward is added to its log-probability.",
            "03, The best policy in three lines",
            edit=("ref_logps + rewards / beta", "ref_logps - rewards / beta"),
        ),
        Mistake(
            "probabilities are returned, not their logarithms",
            "Asked are log-probabilities, as `ref_logps` are. At a low price most probabilities are too small for fp32, and their logarithms are not.",
            "03, The best policy in three lines",
            edit=("scores - log_z", "(scores - log_z).exp()"),
        ),
        Mistake(
            "exp(r / beta) overflows",
            "In fp32 exp(89) is infinite, and a reward of 2 at beta 0.02 is an exponent of 100. `torch.logsumexp` takes the largest out first.",
            "03, Beta's two ends",
            edit=("torch.logsumexp(scores, dim=-1, keepdim=True)", "torch.log(torch.exp(scores).sum(dim=-1, keepdim=True))"),
        ),
        Mistake(
            "the lesson's three lines as they stand",
            "Weights, their sum, the logarithm of their quotient: right on paper, and at this price infinity over infinity in fp32. Put the logarithm into the lines: what is divided there is subtracted.",
            "03, The best policy in three lines",
            edit=("return scores - log_z", "weights = ref_logps.exp() * (rewards / beta).exp()\n    return (weights / weights.sum(dim=-1, keepdim=True)).log()"),
        ),
        Mistake(
            "the probabilities underflow",
            "Below about exp(-103) a probability is 0 in fp32, and its logarithm minus infinity, although the logarithm itself is a plain number. Never leave logarithms: subtract ln Z from the scores.",
            "03, Beta's two ends",
            edit=("return scores - log_z", "return (scores - log_z).exp().log()"),
        ),
        Mistake(
            "one maximum for the whole batch",
            "To take the largest exponent out keeps exp finite, but each prompt needs its own: beside a prompt with higher rewards all of another's exponentials are 0, and ln Z is minus infinity.",
            "03, Way one: see Z cancel",
            edit=("torch.logsumexp(scores, dim=-1, keepdim=True)", "scores.max() + (scores - scores.max()).exp().sum(dim=-1, keepdim=True).log()"),
        ),
        Mistake(
            "one maximum for the whole batch, and probabilities between",
            "Beside a prompt with higher rewards all weights of another are 0 in fp32, and so is their sum. Take out each prompt's own largest exponent, and stay with logarithms to the end.",
            "03, Way one: see Z cancel",
            edit=("return scores - log_z", "weights = (scores - scores.max()).exp()\n    return (weights / weights.sum(dim=-1, keepdim=True)).log()"),
        ),
    ],
    hints=[
        "Take the logarithm of ref times exp(r / beta) over Z: what is added, and what is subtracted?",
        "ln Z is the logarithm of a sum of exponentials, of one prompt's replies: torch.logsumexp over the last dimension, with keepdim=True.",
    ],
)  # fmt: skip


# ---- 03.3


def after_rescaling(beta, optimum, *, scale, shift):
    """Every reward r becomes scale * r + shift. Floats in.

    Returns {"beta": that brings the old best policy back, "optimum": the J of that policy then}.
    """
    new_beta = beta * scale
    new_optimum = optimum * scale + shift
    return {"beta": new_beta, "optimum": new_optimum}


def after_rescaling_by_enumeration(beta, optimum, *, scale, shift):
    """Any world with that optimum will do: one reply, which earns `optimum`, and one that the reference never gives."""
    ref, rewards = np.array([1 - 1e-12, 1e-12]), np.array([optimum, optimum])
    price = beta * scale
    z = (ref * np.exp((scale * rewards + shift) / price)).sum()
    return {"optimum": price * np.log(z), "beta": price}


def a_scale(draw: Draw) -> float:
    return draw.number(0.2, 0.7) if draw.random() < 0.5 else draw.number(1.5, 5.0)


def a_shift(draw: Draw) -> float:
    return draw.choice([-1, 1]) * draw.number(0.5, 3.0)


def old_prices(draw: Draw, **given) -> dict:
    drawn = {"beta": draw.number(0.2, 0.8), "optimum": draw.choice([-1, 1]) * draw.number(0.5, 2.0)}
    return drawn | {"scale": a_scale(draw), "shift": a_shift(draw)} | given


def doubled_rewards(draw: Draw):
    yield old_prices(draw, scale=2.0, shift=0.0)


def shifted_rewards(draw: Draw):
    yield old_prices(draw, scale=1.0)


def any_rescaling(draw: Draw):
    return [old_prices(draw) for _ in range(4)]


AFTER_RESCALING = Task(
    id="03.3",
    title="The same policy in other units",
    kind="predict, then run",
    points=1,
    difficulty="easy",
    minutes=10,
    reference=after_rescaling,
    also_correct=[after_rescaling_by_enumeration],
    properties=[
        Property("if all rewards are doubled, so is the price, and so is J", doubled_rewards),
        Property("a constant added to all rewards moves no policy", shifted_rewards),
        Property("scale and shift together", any_rescaling),
    ],
    mistakes=[
        Mistake(
            "beta stays as it was",
            "Only r / beta stands in the best policy. If the rewards grow and the price does not, the policy goes further for reward.",
            "03, Beta's two ends",
            edit=("beta * scale", "beta"),
        ),
        Mistake(
            "beta is divided by the scale",
            "Only r / beta stands in the best policy: to leave it as it was, beta must grow as the rewards do.",
            "03, Beta's two ends",
            edit=("beta * scale", "beta / scale"),
        ),
        Mistake(
            "the shift moves beta",
            "A constant on all rewards multiplies every exp(r / beta) by the same number, and Z with them: it cancels.",
            "03, The best policy in three lines",
            edit=("beta * scale", "beta * scale + shift"),
        ),
        Mistake(
            "J stays as it was",
            "J is counted in reward units: in other units it is another number, although the policy is the same.",
            "03, What to optimise",
            edit=("optimum * scale + shift", "optimum"),
        ),
        Mistake(
            "the shift does not reach J",
            "Whatever the policy says, it earns the constant too: the mean reward, and so J, grows by it.",
            "03, What to optimise",
            edit=("optimum * scale + shift", "optimum * scale"),
        ),
        Mistake(
            "the scale does not reach J",
            "The mean reward is scaled, and so is the price of each nat: both terms of J are.",
            "03, What to optimise",
            edit=("optimum * scale + shift", "optimum + shift"),
        ),
        Mistake(
            "the shift is scaled too",
            "The new reward is scale * r + shift: the shift is added after scaling.",
            "03, What to optimise",
            edit=("optimum * scale + shift", "(optimum + shift) * scale"),
        ),
        Mistake(
            "J is divided by the scale",
            "Rewards that are twice as large make J twice as large.",
            "03, What to optimise",
            edit=("optimum * scale + shift", "optimum / scale + shift"),
        ),
    ],
    hints=[
        "Write down ref times exp((scale * r + shift) / b), over its sum. For which b are scale and shift gone from it?",
        "The policy is as before, and so is its KL. Put scale * r + shift and the new beta into J, and take the scale out.",
    ],
)  # fmt: skip


# ---- 03.4


def relative_error(ref_logps, rewards, *, beta, samples):
    """Standard deviation of the estimate of Z, over Z. Two tensors (K,) in, one number out."""
    log_z = torch.logsumexp(ref_logps + rewards / beta, dim=0)
    ratios = (rewards / beta - log_z).exp()
    variance = (ref_logps.exp() * (ratios - 1) ** 2).sum()
    return (variance / samples).sqrt()


def relative_error_by_moments(ref_logps, rewards, *, beta, samples):
    p, w = np.exp(ref_logps.double().numpy()), np.exp(rewards.double().numpy() / beta)
    z = (p * w).sum()
    return math.sqrt((p * w**2).sum() - z**2) / z / math.sqrt(samples)


def relative_error_by_loops(ref_logps, rewards, *, beta, samples):
    weights = [(math.exp(p), math.exp(r / beta)) for p, r in zip(ref_logps.tolist(), rewards.tolist())]
    z = sum(p * w for p, w in weights)
    return (sum(p * (w - z) ** 2 for p, w in weights) / samples) ** 0.5 / z


def spread_rewards(draw: Draw, count: int) -> torch.Tensor:
    """Rewards that lie at least half a unit apart."""
    steps = [0.7 * place - 0.7 + draw.number(0.0, 0.2) for place in range(count)]
    return torch.tensor([round(step, 2) for step in draw.sample(steps, count)])


def sampled_world(draw: Draw, count: int, **given) -> dict:
    inputs = {
        "ref_logps": shares(draw, count).log(),
        "rewards": spread_rewards(draw, count),
        "beta": draw.number(0.3, 0.7),
        "samples": draw.randint(4, 20),
    }
    return inputs | given


def one_sample(draw: Draw):
    yield sampled_world(draw, 2, samples=1)


def four_times_the_samples(draw: Draw):
    world = sampled_world(draw, 2)
    return [world, world | {"samples": 4 * world["samples"]}]


def many_weighed(draw: Draw):
    return [sampled_world(draw, count) for count in (3, 4)]


def a_lower_price(draw: Draw):
    world = sampled_world(draw, 3)
    return [world | {"beta": draw.number(1.5, 2.0)}, world | {"beta": draw.number(0.15, 0.2)}]


def a_rare_best(draw: Draw):
    rare = torch.tensor([0.01, 0.59, 0.4]).log()
    best = torch.tensor([draw.number(1.5, 2.0), draw.number(0.5, 0.8), draw.number(-0.5, 0.0)])
    yield sampled_world(draw, 3, ref_logps=rare, rewards=best)


RELATIVE_ERROR = Task(
    id="03.4",
    title="What Z costs",
    kind="calculate",
    points=2,
    difficulty="hard",
    minutes=15,
    reference=relative_error,
    also_correct=[relative_error_by_moments, relative_error_by_loops],
    properties=[
        Property("a single sample errs by the standard deviation of exp(r / beta), divided by Z", one_sample),
        Property("four times the samples halve the error", four_times_the_samples),
        Property("each reply counts as often as the reference gives it", many_weighed),
        Property("the lower the price, the larger the error", a_lower_price),
        Property("a rare reply that earns much sets the error", a_rare_best),
    ],
    mistakes=[
        Mistake(
            "the number of samples is not looked at",
            "This is the error of a single sample. The mean of N independent ones errs less, by the root of N.",
            "03, Way two: climb",
            edit=("(variance / samples)", "variance"),
        ),
        Mistake(
            "divided by the number of samples, not by its root",
            "Variances add up, so the standard deviation of a mean falls with the root of N: four times the samples only halve it.",
            "03, Way two: climb",
            edit=("(variance / samples).sqrt()", "variance.sqrt() / samples"),
        ),
        Mistake(
            "it is the variance, not the standard deviation",
            "The variance is the mean square; the error is its root.",
            "03, Way two: climb",
            edit=("(variance / samples).sqrt()", "variance / samples"),
        ),
        Mistake(
            "divided by the number of samples minus 1",
            "N - 1 makes up for a mean that is estimated from the same samples. Here the variance is known: all replies are listed.",
            "03, Way two: climb",
            edit=("variance / samples", "variance / (samples - 1)"),
        ),
        Mistake(
            "the error is not divided by Z",
            "Asked is the error relative to Z. In absolute terms a large error of a large Z looks worse than it is.",
            "03, Then why train at all?",
            edit=[("(rewards / beta - log_z).exp()", "(rewards / beta).exp()"), ("(ratios - 1)", "(ratios - log_z.exp())")],
        ),
        Mistake(
            "the mean square is taken for the variance",
            "The variance is the mean square of the distance from the mean; without subtracting it even equal rewards would seem noisy.",
            "03, Way two: climb",
            edit=("(ratios - 1) ** 2", "ratios ** 2"),
        ),
        Mistake(
            "all replies count alike",
            "The samples come from the reference: each reply is drawn as often as the reference gives it.",
            "03, Then why train at all?",
            edit=("(ref_logps.exp() * (ratios - 1) ** 2).sum()", "((ratios - 1) ** 2).mean()"),
        ),
        Mistake(
            "the samples come from the best policy",
            "Nobody can draw from the best policy without knowing Z. The samples come from the reference.",
            "03, Then why train at all?",
            edit=("(ref_logps.exp() *", "((ref_logps + rewards / beta - log_z).exp() *"),
        ),
        Mistake(
            "the spread of the rewards, not of their exponentials",
            "What is averaged is exp(r / beta). At a low price a small difference of rewards is a large factor.",
            "03, Then why train at all?",
            edit=("(rewards / beta - log_z).exp()", "1 + (rewards - (ref_logps.exp() * rewards).sum()) / beta"),
        ),
        Mistake(
            "beta multiplies where it divides",
            "Z is a mean of exp(r / beta): a low price makes the exponents large.",
            "03, Beta's two ends",
            edit=[("ref_logps + rewards / beta", "ref_logps + rewards * beta"), ("(rewards / beta - log_z)", "(rewards * beta - log_z)")],
        ),
        Mistake(
            "all replies count alike, in Z too",
            "This is the spread of exp(r / beta) over the listed replies. Mean and variance are over what the reference says: a reply counts as often as it gives it.",
            "03, Then why train at all?",
            edit=[("torch.logsumexp(ref_logps + rewards / beta, dim=0)", "torch.logsumexp(rewards / beta, dim=0) - math.log(len(rewards))"), ("(ref_logps.exp() * (ratios - 1) ** 2).sum()", "((ratios - 1) ** 2).mean()")],
        ),
        Mistake(
            "the listed replies are taken for a sample",
            "torch's `std` and `mean` treat the K replies as K draws, all alike. They are all the replies there are, and each counts as often as the reference gives it.",
            "03, Then why train at all?",
            edit=[("torch.logsumexp(ref_logps + rewards / beta, dim=0)", "torch.logsumexp(rewards / beta, dim=0) - math.log(len(rewards))"), ("(ref_logps.exp() * (ratios - 1) ** 2).sum()", "((ratios - 1) ** 2).sum() / (len(ratios) - 1)")],
        ),
    ],
    hints=[
        "First one sample. It returns exp(r / beta) of a reply that is drawn with the reference's probability. What are the mean and the variance of that number?",
        "The mean is Z. The variance is the sum over the replies of ref times (exp(r / beta) - Z) squared.",
        "Take the root of variance / N, and divide by Z.",
    ],
)  # fmt: skip


# ---- 03.5


def choose_aim(p_ab, p_bc, p_ca, *, beta, tolerance):
    """Which optimum three replies get. Floats in: shares between 0 and 1, beta, tolerance (nats).

    Returns {"around": sum of the three log-odds, "method": "dpo" or "ipo", "h": [h_ab, h_bc]}.
    """
    d_ab, d_bc, d_ca = [math.log(p / (1 - p)) for p in (p_ab, p_bc, p_ca)]
    around = d_ab + d_bc + d_ca
    method, differences = "dpo", [d_ab, d_bc]
    if abs(around) > tolerance:
        wins_a, wins_b, wins_c = p_ab + (1 - p_ca), p_bc + (1 - p_ab), p_ca + (1 - p_bc)
        method, differences = "ipo", [(wins_a - wins_b) / 3, (wins_b - wins_c) / 3]
    return {"around": around, "method": method, "h": [each / beta for each in differences]}


def choose_aim_by_a_table(p_ab, p_bc, p_ca, *, beta, tolerance):
    shares = np.array([[0.5, p_ab, 1 - p_ca], [1 - p_ab, 0.5, p_bc], [p_ca, 1 - p_bc, 0.5]])
    odds = shares / (1 - shares)
    around = math.log(odds[0, 1]) + math.log(odds[1, 2]) - math.log(odds[0, 2])
    if -tolerance <= around <= tolerance:
        return {"around": around, "method": "dpo", "h": np.log([odds[0, 1], odds[1, 2]]) / beta}
    return {"around": around, "method": "ipo", "h": -np.diff(shares.mean(axis=1)) / beta}


TOLERANCE = 0.1


def three_shares(draw: Draw, ab, bc, ca, tolerance=TOLERANCE) -> dict:
    drawn = [draw.number(*each, digits=3) if isinstance(each, tuple) else each for each in (ab, bc, ca)]
    beta = draw.number(0.2, 0.7) if draw.random() < 0.5 else draw.number(1.5, 3.0)
    return dict(zip(("p_ab", "p_bc", "p_ca"), drawn)) | {"beta": beta, "tolerance": tolerance}


def coin_tosses(draw: Draw):
    yield three_shares(draw, 0.5, 0.5, 0.5, tolerance=0.0)


def explained(draw: Draw):
    for first, second in ((1, 1), (-1, -1), (1, -1)):
        d_ab, d_bc = first * draw.number(0.6, 1.2), second * draw.number(0.2, 0.4)
        yield three_shares(draw, *[round(1 / (1 + math.exp(-d)), 3) for d in (d_ab, d_bc, -d_ab - d_bc)])


def round_in_a_circle(draw: Draw):
    yield three_shares(draw, 0.9, 0.9, 0.9)
    yield three_shares(draw, *[(0.6, 0.9)] * 3)
    yield three_shares(draw, *[(0.1, 0.35)] * 3)


def an_order_that_does_not_add_up(draw: Draw):
    yield three_shares(draw, (0.75, 0.9), (0.6, 0.7), (0.35, 0.45))
    yield three_shares(draw, (0.1, 0.2), (0.3, 0.4), (0.55, 0.65))


CHOOSE_AIM = Task(
    id="03.5",
    title="Is there a reward at all?",
    kind="choose the method",
    points=3,
    difficulty="hard",
    minutes=15,
    reference=choose_aim,
    also_correct=[choose_aim_by_a_table],
    properties=[
        Property("three coin tosses are explained by equal rewards", coin_tosses),
        Property("shares that some reward explains lead to DPO's optimum", explained),
        Property("replies that beat one another in a circle have no reward, whichever way round", round_in_a_circle),
        Property("nor do shares that keep an order and yet do not add up", an_order_that_does_not_add_up),
    ],
    mistakes=[
        Mistake(
            "shares are added, not their log-odds",
            "A difference of rewards is the log-odds of a share, and differences of rewards add up. Shares do not: 73% and 73% make 88%.",
            "03, Preferences need only differences",
            edit=("math.log(p / (1 - p))", "p - 0.5"),
        ),
        Mistake(
            "the logarithm of the share, not of the odds",
            "The inverse of the sigmoid is ln(p / (1 - p)): one half gives 0.",
            "03, Preferences need only differences",
            edit=("math.log(p / (1 - p))", "math.log(p)"),
        ),
        Mistake(
            "the third share is taken the wrong way round",
            "p_ca is how often c is preferred to a: it closes the circle from a to b to c and back to a, so it is added.",
            "03, Preferences need only differences",
            edit=("d_ab + d_bc + d_ca", "d_ab + d_bc - d_ca"),
        ),
        Mistake(
            "a circle the other way round is not noticed",
            "Its log-odds add up to a negative number. What counts is how far from 0 the sum is, on either side.",
            "03, Preferences need only differences",
            edit=("abs(around) > tolerance", "around > tolerance"),
        ),
        Mistake(
            "only circles of majorities are noticed",
            "An order of the replies is not enough: if a beats b and b beats c by far, a must beat c by more.",
            "03, Preferences need only differences",
            edit=("abs(around) > tolerance", "min(p_ab, p_bc, p_ca) > 0.5 or max(p_ab, p_bc, p_ca) < 0.5"),
        ),
        Mistake(
            "DPO's optimum is read off where no reward explains the shares",
            "There no policy predicts all three shares: the h_ab and h_bc that predict two of them belie the third.",
            "03, Where is its minimum?",
            edit=[("    if abs(around) > tolerance:\n", "    if False:\n")],
        ),
        Mistake(
            "beta multiplies where it divides",
            "At DPO's minimum beta * h is the log-odds, and with IPO h is the difference of win rates over beta.",
            "03, Where is its minimum?",
            edit=("each / beta", "each * beta"),
        ),
        Mistake(
            "beta is forgotten",
            "h is in nats. The log-odds are the margin, beta * h.",
            "03, DPO's loss",
            edit=("each / beta", "each"),
        ),
        Mistake(
            "the win rate is taken against the two others only",
            "IPO's win rate is against a reply drawn at random from all three, itself included: each sum is divided by 3.",
            "03, One: annotators who never disagree",
            edit=("[(wins_a - wins_b) / 3, (wins_b - wins_c) / 3]", "[(wins_a - wins_b) / 2, (wins_b - wins_c) / 2]"),
        ),
        Mistake(
            "IPO looks at each pair by itself",
            "A pair alone would have its minimum at (p - 1/2) / beta. Three pairs share three replies: a win rate is over all of them.",
            "03, One: annotators who never disagree",
            edit=("[(wins_a - wins_b) / 3, (wins_b - wins_c) / 3]", "[p_ab - 0.5, p_bc - 0.5]"),
        ),
        Mistake(
            "beta is missing in DPO's h",
            "DPO predicts the share sigmoid(beta * h), so the log-odds of the share are beta * h. To get h divide them by beta.",
            "03, Where is its minimum?",
            edit=("[d_ab, d_bc]", "[d_ab * beta, d_bc * beta]"),
        ),
        Mistake(
            "a sum just at the tolerance counts as beyond it",
            "Three coin tosses have the sum 0, and with a tolerance of 0 they are explained by equal rewards. The limit itself belongs to DPO.",
            "03, Preferences need only differences",
            edit=("abs(around) > tolerance", "abs(around) >= tolerance"),
        ),
        Mistake(
            "the two methods are exchanged",
            "A sum of about 0 means that rewards explain the shares. Then both families aim at one policy, and DPO finds it.",
            "03, Where is its minimum?",
            edit=("abs(around) > tolerance", "abs(around) <= tolerance"),
        ),
        Mistake(
            "the one half of IPO's target comes in again",
            "1 / (2 beta) is the target of a single pair that one reply always wins. In the closed form it is in the win rates already.",
            "03, One: annotators who never disagree",
            edit=("[(wins_a - wins_b) / 3, (wins_b - wins_c) / 3]", "[(wins_a - wins_b) / 6, (wins_b - wins_c) / 6]"),
        ),
        Mistake(
            "p_ca is read as a's share in the win rates",
            "p_ca is how often c is preferred to a: it counts for c, and 1 - p_ca for a.",
            "03, One: annotators who never disagree",
            edit=("p_ab + (1 - p_ca), p_bc + (1 - p_ab), p_ca + (1 - p_bc)", "p_ab + p_ca, p_bc + (1 - p_ab), (1 - p_ca) + (1 - p_bc)"),
        ),
        Mistake(
            "the shares themselves are added up",
            "Three shares that a reward explains need not add up to 1.5. Their log-odds are differences of rewards, and these add up to 0 round the circle.",
            "03, Preferences need only differences",
            edit=[("around = d_ab + d_bc + d_ca", "around = p_ab + p_bc + p_ca"), ("abs(around) > tolerance", "abs(around - 1.5) > tolerance")],
        ),
    ],
    hints=[
        "Suppose that there are rewards r_a, r_b and r_c. What are the log-odds of p_ab, of p_bc and of p_ca, and what is their sum?",
        "If the sum is 0 up to the tolerance, DPO's minimum predicts each share: beta * h_ab is the log-odds of p_ab.",
        "Else h_ab = (q_a - q_b) / beta, with q_a = (1/2 + p_ab + p_ac) / 3 and p_ac = 1 - p_ca; q_b and q_c in the same way.",
    ],
)  # fmt: skip


TASKS = [OBJECTIVE, OPTIMAL_POLICY, AFTER_RESCALING, RELATIVE_ERROR, CHOOSE_AIM]
