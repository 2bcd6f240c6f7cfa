"""Tasks of lesson 07, from policy gradients to PPO."""

import numpy as np
import torch
import torch.nn.functional as F

from course_lib.grading.task import Draw, Mistake, Property, Task


def replies(*rows: tuple[int, int, int]) -> torch.Tensor:
    """A mask with a row for each (prompt, reply, padding), True on the reply's columns."""
    return torch.tensor([[False] * before + [True] * own + [False] * behind for before, own, behind in rows])


# ---- 07.1


def reinforce_loss(logps, ref_logps, scores, mask, *, beta):
    """REINFORCE's loss with a price for distance and the batch's mean as the baseline.

    Tensors (B, T), (B, T), (B,) and (B, T) in, a tensor with one number out.
    """
    log_ratios = ((logps - ref_logps) * mask).sum(-1)
    rewards = scores - beta * log_ratios
    advantages = (rewards - rewards.mean()).detach()
    return -(advantages * (logps * mask).sum(-1)).mean()


def reinforce_reply_by_reply(logps, ref_logps, scores, mask, *, beta):
    own = [row[m.bool()].sum() for row, m in zip(logps, mask)]
    far = [row[m.bool()].sum() for row, m in zip(ref_logps, mask)]
    earned = [s.item() - beta * (o - f).item() for s, o, f in zip(scores, own, far)]
    usual = sum(earned) / len(earned)
    total = 0
    for reward, logp in zip(earned, own):
        total = total + (usual - reward) * logp
    return total / len(earned)


def drawn_replies(draw: Draw, mask: torch.Tensor, *, same=False) -> dict:
    logps = draw.numbers(*mask.shape, low=-3.0, high=-0.1)
    return {
        "logps": logps,
        "ref_logps": logps.clone() if same else draw.numbers(*mask.shape, low=-3.0, high=-0.1),
        "scores": draw.distinct(len(mask), low=0.5, high=4.0),
        "mask": mask,
        "beta": draw.number(0.15, 0.6),
    }


def two_replies(draw: Draw):
    return [drawn_replies(draw, replies((0, 2, 0), (0, 2, 0)), same=True) for _ in range(2)]


def equal_rewards(draw: Draw):
    inputs = drawn_replies(draw, replies((0, 2, 0), (0, 2, 0)), same=True)
    yield inputs | {"scores": torch.full((2,), draw.number(1.0, 3.0))}


def moved_replies(draw: Draw):
    return [drawn_replies(draw, replies(*[(0, 3, 0)] * count)) for count in (2, 3)]


def padded_replies(draw: Draw):
    yield drawn_replies(draw, replies((1, 2, 1), (2, 1, 1)))
    yield drawn_replies(draw, replies((1, 4, 0), (2, 1, 2), (1, 2, 2)))
    yield drawn_replies(draw, replies((2, 3, 0), (1, 1, 3), (1, 2, 2), (1, 4, 0)))


REINFORCE = Task(
    id="07.1",
    title="REINFORCE with a price",
    kind="implement",
    points=3,
    difficulty="medium",
    minutes=15,
    reference=reinforce_loss,
    also_correct=[reinforce_reply_by_reply],
    gradient_of=("logps",),
    properties=[
        Property("of two replies the better one is made likelier, the worse one less likely, by its advantage", two_replies),
        Property("replies that earn the same pull nowhere", equal_rewards),
        Property("a reply that has moved away from the reference pays for it, and is pulled by what is left", moved_replies),
        Property("each reply's own tokens are pulled by its advantage; prompt and padding are not", padded_replies),
    ],
    mistakes=[
        Mistake(
            "the reward is not detached",
            "The policy gradient takes a reward as a number. The price holds the policy's log-probability, and a gradient through it bends the update: it is no longer that of the mean reward.",
            "07, REINFORCE",
            edit=(".detach()", ""),
        ),
        Mistake(
            "the baseline is forgotten",
            "Without it the gradient is right on average, but noisier: where all rewards are positive, every reply that was drawn is made likelier, and only by how much tells good from bad.",
            "07, What a baseline is for",
            edit=("(rewards - rewards.mean())", "rewards"),
        ),
        Mistake(
            "the baseline leaves the price out",
            "The baseline is what a reply of this batch earns on average, and that is its score less its price. The mean of the scores alone leaves the same offset in every advantage.",
            "07, What a baseline is for",
            edit=("rewards - rewards.mean()", "rewards - scores.mean()"),
        ),
        Mistake(
            "the baseline leaves the reply itself out",
            "The mean of what the *other* replies earn is a good baseline too (RLOO, lesson 10), and makes each advantage B / (B - 1) times as large. Asked for is the mean over all replies of the batch.",
            "07, What a baseline is for",
            edit=("(rewards - rewards.mean())", "(rewards - (rewards.sum() - rewards) / (len(rewards) - 1))"),
        ),
        Mistake(
            "the minus in front is missing",
            "An optimiser makes a loss small, and good replies are to become likelier: the loss is minus advantage times log-probability.",
            "07, REINFORCE",
            edit=("return -(", "return ("),
        ),
        Mistake(
            "distance is paid for, not charged",
            "The log-ratio of a reply that the policy likes more than the reference does is positive, and it costs: it is subtracted from the score.",
            "07, A price for distance",
            edit=("scores - beta * log_ratios", "scores + beta * log_ratios"),
        ),
        Mistake(
            "the price is missing",
            "With the score alone a policy goes wherever the score is high, however far from the reference that is.",
            "07, A price for distance",
            edit=("scores - beta * log_ratios", "scores"),
        ),
        Mistake(
            "beta is missing",
            "Beta says how much reward a nat of distance costs. Without it a nat always costs 1.",
            "07, A price for distance",
            edit=("beta * log_ratios", "log_ratios"),
        ),
        Mistake(
            "the price is added to the loss, not taken off the reward",
            "Differentiated there, a sampled log-ratio pulls every reply that was drawn down alike, near or far, and over many draws that adds up to nothing. As part of the reward it tells replies that went far from those that did not.",
            "07, A price for distance",
            edit=[("scores - beta * log_ratios", "scores"), ("(logps * mask).sum(-1)).mean()", "(logps * mask).sum(-1)).mean() + beta * log_ratios.mean()")],
        ),
        Mistake(
            "the mask is forgotten",
            "Prompt and padding are then counted as if the policy had said them.",
            "01, Only the reply counts",
            edit=[("((logps - ref_logps) * mask)", "(logps - ref_logps)"), ("(logps * mask)", "logps")],
        ),
        Mistake(
            "the price counts prompt and padding",
            "The reply alone was drawn from the policy, so its distance alone is paid for. The log-ratio needs the mask as well.",
            "01, Only the reply counts",
            edit=("((logps - ref_logps) * mask)", "(logps - ref_logps)"),
        ),
        Mistake(
            "the log-probability is a mean over tokens",
            "The log-probability of a reply is the sum over its tokens. A mean weighs the tokens of long replies less than those of short ones.",
            "01, Sum or mean?",
            edit=("(logps * mask).sum(-1)", "(logps * mask).sum(-1) / mask.sum(-1)"),
        ),
        Mistake(
            "the sum over the batch, not the mean",
            "With a sum the step grows with the number of replies, so the learning rate depends on the batch size.",
            "07, REINFORCE",
            edit=(")).mean()", ")).sum()"),
        ),
        Mistake(
            "the advantages are divided by their spread",
            "That is another method's step (GRPO, lesson 10). Here the advantage is the reward less the mean, in units of reward.",
            "07, What a baseline is for",
            edit=("(rewards - rewards.mean())", "((rewards - rewards.mean()) / rewards.std())"),
        ),
    ],
    hints=[
        "Begin with what a reply earns: its score, less beta times the log-ratio of the whole reply, summed over the mask.",
        "The advantage is what it earns less the batch's mean. For the gradient it is a mere number.",
        "Minus the mean over replies of advantage times the reply's log-probability; detach the advantage, mask both sums.",
    ],
)  # fmt: skip


# ---- 07.2


def estimators(policy, reference):
    """Mean and spread of k1, k2 and k3, for a token that is drawn from the policy. Two tensors (V,) of probabilities in.

    Returns {"k1": [mean, spread], "k2": [mean, spread], "k3": [mean, spread]} in nats.
    """
    d = torch.log(policy) - torch.log(reference)
    found = {}
    for name, k in (("k1", d), ("k2", d**2 / 2), ("k3", torch.exp(-d) - 1 + d)):
        mean = (policy * k).sum()
        variance = (policy * (k - mean) ** 2).sum()
        found[name] = [mean.item(), variance.sqrt().item()]
    return found


def estimators_token_by_token(policy, reference):
    p, q = policy.double().numpy(), reference.double().numpy()
    of = {"k1": lambda r: -np.log(r), "k2": lambda r: np.log(r) ** 2 / 2, "k3": lambda r: r - 1 - np.log(r)}
    found = {}
    for name, k in of.items():
        first = sum(pi * k(qi / pi) for pi, qi in zip(p, q))
        second = sum(pi * k(qi / pi) ** 2 for pi, qi in zip(p, q))
        found[name] = [first, max(second - first**2, 0.0) ** 0.5]
    return found


def shares(draw: Draw, count: int, least: int = 5) -> torch.Tensor:
    """Probabilities in whole hundredths, no two alike."""
    while True:
        cuts = [0, *sorted(draw.sample(range(1, 100), count - 1)), 100]
        parts = [high - low for low, high in zip(cuts, cuts[1:], strict=False)]
        if min(parts) >= least and len(set(parts)) == count:
            return torch.tensor([part / 100 for part in parts])


def far_from(draw: Draw, policy: torch.Tensor) -> torch.Tensor:
    """Other probabilities, at least 0.25 nats away both ways, and with both ways not the same."""
    while True:
        other = shares(draw, len(policy))
        d = policy.log() - other.log()
        there, back = (policy * d).sum(), -(other * d).sum()
        if min(there, back) > 0.25 and (there - back).abs() > 0.03:
            return other


def the_same(draw: Draw):
    policy = shares(draw, 2)
    yield {"policy": policy, "reference": policy.clone()}


def two_tokens(draw: Draw):
    for _ in range(2):
        policy = shares(draw, 2)
        yield {"policy": policy, "reference": far_from(draw, policy)}


def some_tokens(draw: Draw):
    for count in (3, 4, 5):
        policy = shares(draw, count)
        yield {"policy": policy, "reference": far_from(draw, policy)}


ESTIMATORS = Task(
    id="07.2",
    title="Three estimates of one distance",
    kind="predict, then run",
    points=2,
    difficulty="medium",
    minutes=10,
    reference=estimators,
    also_correct=[estimators_token_by_token],
    properties=[
        Property("if the policy is the reference, every estimate is 0, and certain", the_same),
        Property("a vocabulary of two tokens gets the right means and spreads", two_tokens),
        Property("so does a larger one", some_tokens),
    ],
    mistakes=[
        Mistake(
            "the tokens are drawn from the reference",
            "A rollout comes from the policy, so each token counts as often as the policy says it. Drawn from the reference, k1 is minus the KL of the other direction.",
            "07, A price for distance",
            edit=[("(policy * k)", "(reference * k)"), ("(policy * (k - mean)", "(reference * (k - mean)")],
        ),
        Mistake(
            "the log-ratio is upside down",
            "The log-ratio is the policy's log-probability less the reference's. Turned round, k1 estimates minus the KL.",
            "07, A price for distance",
            edit=("torch.log(policy) - torch.log(reference)", "torch.log(reference) - torch.log(policy)"),
        ),
        Mistake(
            "k3 has exp(d) for exp(-d)",
            "On average over the policy, exp(-d) is 1, and so k3's mean is that of d. The mean of exp(d) is larger than 1: this k3 is not the KL.",
            "07, A price for distance",
            edit=("torch.exp(-d) - 1 + d", "torch.exp(d) - 1 - d"),
        ),
        Mistake(
            "k3 ends in minus d",
            "exp(-d) - 1 has the mean 0; what is added to it is k1. Subtracting it leaves minus the KL on average.",
            "07, A price for distance",
            edit=("- 1 + d", "- 1 - d"),
        ),
        Mistake(
            "k2 lacks its half",
            "Near the reference the KL is half of the mean squared log-ratio. The square alone is twice too large there.",
            "07, A price for distance",
            edit=("d**2 / 2", "d**2"),
        ),
        Mistake(
            "k1 is made positive",
            "k1 is right on average because its negative values count against the positive ones. Their sizes alone average to too much.",
            "07, A price for distance",
            edit=('("k1", d)', '("k1", d.abs())'),
        ),
        Mistake(
            "every token counts alike",
            "A mean over the vocabulary is that of tokens drawn evenly. The policy draws each with its own probability.",
            "07, A price for distance",
            edit=[("(policy * k).sum()", "k.mean()"), ("(policy * (k - mean) ** 2).sum()", "((k - mean) ** 2).mean()")],
        ),
        Mistake(
            "the variance, not the spread",
            "The spread is in nats, as the mean is. The variance is in squared nats: take its root.",
            "07, A price for distance",
            edit=("variance.sqrt()", "variance"),
        ),
        Mistake(
            "the spread is taken about 0",
            "The spread says how far values lie from their mean. The root of the mean square holds the mean as well.",
            "07, A price for distance",
            edit=("(k - mean) ** 2", "k ** 2"),
        ),
        Mistake(
            "bits, not nats",
            "Log-probabilities here are natural logarithms. With base 2 every log-ratio is 1.44 times as large.",
            "01, A model is a table of next-token probabilities",
            edit=("torch.log(policy) - torch.log(reference)", "torch.log2(policy) - torch.log2(reference)"),
        ),
    ],
    hints=[
        "Which values can d take, and how often does a token that the policy draws give each of them?",
        "The mean of k is the sum over the vocabulary of policy times k. The variance is the same with (k - mean) squared.",
        "d = ln policy - ln reference; k1 = d, k2 = d * d / 2, k3 = exp(-d) - 1 + d. The spread is the root of the variance.",
    ],
)  # fmt: skip


# ---- 07.3


def shaped_rewards(scores, logps, ref_logps, mask, *, beta):
    """The reward of every token. Tensors (B,), (B, T), (B, T) and (B, T) in, (B, T) out."""
    rewards = -beta * (logps - ref_logps) * mask
    rows, width = mask.shape
    last = (torch.arange(width) * mask).argmax(-1)
    rewards[torch.arange(rows), last] += scores
    return rewards


def shaped_rewards_row_by_row(scores, logps, ref_logps, mask, *, beta):
    rewards = torch.zeros_like(logps)
    for row in range(len(scores)):
        columns = [t for t in range(mask.shape[1]) if mask[row, t]]
        for t in columns:
            price = beta * (logps[row, t] - ref_logps[row, t])
            rewards[row, t] = scores[row] - price if t == columns[-1] else -price
    return rewards


def scored(draw: Draw, mask: torch.Tensor, *, same=False) -> dict:
    logps = draw.distinct(*mask.shape, low=-3.0, high=-1.6)
    return {
        "scores": draw.distinct(len(mask), low=0.8, high=3.0),
        "logps": logps,
        "ref_logps": logps.clone() if same else draw.distinct(*mask.shape, low=-1.4, high=-0.1),
        "mask": mask,
        "beta": draw.number(0.2, 0.7),
    }


def unmoved(draw: Draw):
    yield scored(draw, replies((1, 3, 2)), same=True)


def one_padded_row(draw: Draw):
    yield scored(draw, replies((1, 3, 2)))


def one_full_row(draw: Draw):
    yield scored(draw, replies((2, 3, 0)))


def some_rows(draw: Draw):
    yield scored(draw, replies((1, 3, 2), (2, 4, 0)))
    yield scored(draw, replies((2, 1, 3), (1, 4, 1), (1, 5, 0)))


SHAPED = Task(
    id="07.3",
    title="Deaf to short replies",
    kind="fix the bug",
    points=2,
    difficulty="medium",
    minutes=10,
    reference=shaped_rewards,
    also_correct=[shaped_rewards_row_by_row],
    properties=[
        Property("where the policy is the reference, the last token alone earns, and earns the score", unmoved),
        Property("the tokens of a padded row get the right rewards", one_padded_row),
        Property("so do those of a row without padding", one_full_row),
        Property("so do those of several rows", some_rows),
    ],
    mistakes=[
        Mistake(
            "the score stands one behind the last token",
            "Padding earns it there. With the mask the advantages never see the score of a padded reply; without it they mix it with what the critic says of padding.",
            "07, A price for distance",
            edit=("(torch.arange(width) * mask).argmax(-1)", "(torch.arange(1, width + 1) * mask).amax(-1).clamp(max=width - 1)"),
        ),
        Mistake(
            "the score stands in the last column",
            "The last column is padding in all rows but the longest. The score belongs to the last token that the mask shows.",
            "07, A price for distance",
            edit=("(torch.arange(width) * mask).argmax(-1)", "torch.full((rows,), width - 1)"),
        ),
        Mistake(
            "the reply is taken to begin at the first column",
            "The number of tokens in the mask is the reply's length. Its last token stands that far behind the prompt, not behind the row's start.",
            "01, A batch",
            edit=("(torch.arange(width) * mask).argmax(-1)", "mask.sum(-1) - 1"),
        ),
        Mistake(
            "the score stands on the first token",
            "The score judges the whole reply, and is known only when its last token has been said.",
            "07, A price for distance",
            edit=("(torch.arange(width) * mask).argmax(-1)", "mask.int().argmax(-1)"),
        ),
        Mistake(
            "every token gets the whole score",
            "The rewards of a reply add up to its score less its price. With the score on every token, long replies earn more.",
            "07, A price for distance",
            edit=("rewards[torch.arange(rows), last] += scores", "rewards += scores[:, None] * mask"),
        ),
        Mistake(
            "the score is shared out over the tokens",
            "The sum is right and the times are wrong: only the last token's reward holds the score, and it is the critic's task to say which tokens earned it.",
            "07, Which token earned it?",
            edit=("rewards[torch.arange(rows), last] += scores", "rewards += scores[:, None] * mask / mask.sum(-1, keepdim=True)"),
        ),
        Mistake(
            "the score replaces the last token's price",
            "The last token pays for its distance like every other one: the score comes on top.",
            "07, A price for distance",
            edit=("+= scores", "= scores"),
        ),
        Mistake(
            "distance is paid for, not charged",
            "A token that the policy likes more than the reference does costs beta times the log-ratio: the price has a minus.",
            "07, A price for distance",
            edit=("-beta *", "beta *"),
        ),
        Mistake(
            "beta is missing",
            "Beta says how much reward a nat of distance costs.",
            "07, A price for distance",
            edit=("-beta * (logps - ref_logps)", "-(logps - ref_logps)"),
        ),
        Mistake(
            "prompt and padding pay too",
            "Nobody drew prompt and padding from the policy: they earn nothing and pay nothing.",
            "01, Only the reply counts",
            edit=("(logps - ref_logps) * mask", "(logps - ref_logps)"),
        ),
    ],
    hints=[
        "Give it a single row whose logps and ref_logps are the same, with padding at its end. Where does the score land?",
        "Work out `last` by hand for a row with one prompt token, three reply tokens and two of padding: columns count from 0.",
    ],
)  # fmt: skip


# ---- 07.4


def gae(rewards, values, mask, *, lam):
    """Advantages of every token of a batch; three tensors (B, T) in, one (B, T) out, 0 outside the mask."""
    advantages = torch.zeros_like(values)
    next_value, following = 0.0, 0.0
    for t in reversed(range(values.shape[1])):
        surprise = rewards[:, t] + next_value - values[:, t]
        following = (surprise + lam * following) * mask[:, t]
        next_value = values[:, t] * mask[:, t]
        advantages[:, t] = following
    return advantages


def gae_by_powers(rewards, values, mask, *, lam):
    values = values * mask
    following = F.pad(values[:, 1:], (0, 1))
    surprises = (rewards + following - values) * mask
    steps = torch.arange(values.shape[1])
    apart = steps[None, :] - steps[:, None]
    weights = torch.where(apart >= 0, torch.tensor(float(lam)) ** apart.clamp(min=0), 0.0).to(values.dtype)
    return (surprises @ weights.T) * mask


def gae_token_by_token(rewards, values, mask, *, lam):
    out = torch.zeros_like(rewards)
    for row in range(len(rewards)):
        own = [t for t in range(mask.shape[1]) if mask[row, t]]
        v = [float(values[row, t]) for t in own] + [0.0]
        d = [float(rewards[row, t]) + v[i + 1] - v[i] for i, t in enumerate(own)]
        for i, t in enumerate(own):
            out[row, t] = sum(lam ** (j - i) * d[j] for j in range(i, len(own)))
    return out


def judged(draw: Draw, mask: torch.Tensor, lam: float) -> dict:
    return {
        "rewards": draw.distinct(*mask.shape, low=-3.0, high=3.0),
        "values": draw.distinct(*mask.shape, low=0.3, high=3.0),
        "mask": mask,
        "lam": lam,
    }


def own_surprise(draw: Draw):
    yield judged(draw, replies((0, 3, 0)), 0.0)


def all_that_comes(draw: Draw):
    yield judged(draw, replies((0, 3, 0)), 1.0)


def between(draw: Draw):
    return [judged(draw, replies((0, length, 0)), draw.number(0.3, 0.7)) for length in (3, 4)]


def padded_batch(draw: Draw):
    yield judged(draw, replies((1, 2, 1)), draw.number(0.3, 0.7))
    yield judged(draw, replies((2, 2, 2), (1, 5, 0), (3, 1, 2)), draw.number(0.3, 0.7))


GAE = Task(
    id="07.4",
    title="Advantages of a batch",
    kind="implement",
    points=3,
    difficulty="hard",
    minutes=20,
    reference=gae,
    also_correct=[gae_by_powers, gae_token_by_token],
    properties=[
        Property("with lambda 0 a token's advantage is its own surprise", own_surprise),
        Property("with lambda 1 it is the reward still to come less the value", all_that_comes),
        Property("in between, each later surprise counts lambda times as much as the one before", between),
        Property("what stands on prompt and padding changes nothing, and gets 0", padded_batch),
    ],
    mistakes=[
        Mistake(
            "the mask is forgotten",
            "Rewards and values on padding flow back into the reply, and advantages stand where nothing was said.",
            "07, Which token earned it?",
            edit=[("(surprise + lam * following) * mask[:, t]", "surprise + lam * following"), ("values[:, t] * mask[:, t]", "values[:, t]")],
        ),
        Mistake(
            "only the result is masked",
            "By then the padding's surprises have flowed back into the reply's last token, and from there into all before it. The mask belongs inside the loop.",
            "07, Which token earned it?",
            edit=[
                ("(surprise + lam * following) * mask[:, t]", "surprise + lam * following"),
                ("values[:, t] * mask[:, t]", "values[:, t]"),
                ("return advantages", "return advantages * mask"),
            ],
        ),
        Mistake(
            "the last token looks at the padding's value",
            "Nothing is to come behind the last token: the next value is 0 there, whatever the critic says of padding.",
            "07, Which token earned it?",
            edit=("values[:, t] * mask[:, t]", "values[:, t]"),
        ),
        Mistake(
            "no next value",
            "The surprise compares what the critic said here with what came *and* what it says now. Without the next value the critic's own expectation looks like a loss at each token.",
            "07, Which token earned it?",
            edit=("rewards[:, t] + next_value - values[:, t]", "rewards[:, t] - values[:, t]"),
        ),
        Mistake(
            "value and next value are swapped",
            "A surprise is what came and what is still to come, less what was expected: the next value counts for the token, the value before it against it.",
            "07, Which token earned it?",
            edit=("next_value - values[:, t]", "values[:, t] - next_value"),
        ),
        Mistake(
            "lambda discounts the next value as well",
            "Lambda weighs surprises. What discounts values and rewards is gamma, and it is 1 here.",
            "07, Which token earned it?",
            edit=("+ next_value", "+ lam * next_value"),
        ),
        Mistake(
            "lambda is missing",
            "That is lambda = 1: the critic is then a mere baseline, however good it is.",
            "07, Which token earned it?",
            edit=("lam * following", "following"),
        ),
        Mistake(
            "later surprises do not count",
            "That is lambda = 0: a word that decides everything gets credit only if the critic notices it at once.",
            "07, Which token earned it?",
            edit=(" + lam * following", ""),
        ),
        Mistake(
            "the loop runs forwards",
            "A token's advantage needs that of the token behind it, so the last one comes first.",
            "07, Which token earned it?",
            edit=("reversed(range(values.shape[1]))", "range(values.shape[1])"),
        ),
        Mistake(
            "returns, not advantages",
            "Returns are advantages plus values: what the critic should have said. The policy learns from the advantages.",
            "07, Which token earned it?",
            edit=("advantages[:, t] = following", "advantages[:, t] = following + next_value"),
        ),
    ],
    hints=[
        "Take the lesson's `gae` and let each number in it be a column: (B,) numbers, one for each row.",
        "Go from the last column to the first. Where the mask is False, both what is carried on and the next value must be 0.",
        "following = (surprise + lam * following) * mask[:, t], and the next value is values[:, t] * mask[:, t].",
    ],
)  # fmt: skip


# ---- 07.5


def ppo_loss(logps, old_logps, advantages, mask, *, clip_range):
    """PPO's clipped loss, the mean over all tokens of the mask. Four tensors (B, T) in, a tensor with one number out."""
    ratio = torch.exp(logps - old_logps.detach())
    gain = advantages.detach()
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    losses = -torch.minimum(ratio * gain, clipped * gain)
    return (losses * mask).sum() / mask.sum()


def ppo_loss_by_sides(logps, old_logps, advantages, mask, *, clip_range):
    with torch.no_grad():
        moved = (logps - old_logps).exp()
        far = torch.where(advantages > 0, moved > 1 + clip_range, moved < 1 - clip_range)
        edge = torch.where(advantages > 0, 1 + clip_range, 1 - clip_range)
    ratio = (logps - old_logps.detach()).exp()
    inside = mask.bool()
    return (-torch.where(far, edge, ratio) * advantages.detach())[inside].mean()


def ppo_loss_token_by_token(logps, old_logps, advantages, mask, *, clip_range):
    total, count = 0, 0
    for row, column in mask.bool().nonzero().tolist():
        a = advantages[row, column].item()
        rho = torch.exp(logps[row, column] - old_logps[row, column].item())
        edge = 1 + clip_range if a > 0 else 1 - clip_range
        over = rho.item() > edge if a > 0 else rho.item() < edge
        total, count = total - (edge if over else rho) * a, count + 1
    return total / count


def moved_tokens(draw: Draw, mask: torch.Tensor, moves: list[str]) -> dict:
    """`moves` names what each token of the mask does, in turn: "+up" is an advantage above 0 and a ratio far above 1."""
    old = draw.numbers(*mask.shape, low=-3.0, high=-1.0)
    by, gain = draw.numbers(*mask.shape, low=0.45, high=0.9), draw.distinct(*mask.shape, low=0.3, high=2.5)
    small = draw.distinct(*mask.shape, low=-0.07, high=0.07, digits=3)
    for place, move in zip(mask.nonzero().tolist(), moves, strict=True):
        row, column = place
        gain[row, column] *= 1 if move[0] == "+" else -1
        by[row, column] = {"up": 1, "down": -1, "near": 0}[move[1:]] * by[row, column] or small[row, column]
    logps = torch.round((old + by) * 1000) / 1000
    return {"logps": logps, "old_logps": old, "advantages": gain, "mask": mask, "clip_range": draw.number(0.12, 0.28)}


def first_step(draw: Draw):
    inputs = moved_tokens(draw, replies((0, 2, 0)), ["+near", "-near"])
    yield inputs | {"old_logps": inputs["logps"].clone()}


def a_good_token(draw: Draw):
    for move in ("+near", "+up", "+down"):
        yield moved_tokens(draw, replies((0, 1, 0)), [move])


def a_bad_token(draw: Draw):
    for move in ("-near", "-up", "-down"):
        yield moved_tokens(draw, replies((0, 1, 0)), [move])


def token_batches(draw: Draw):
    yield moved_tokens(draw, replies((1, 3, 1), (1, 1, 3)), ["+up", "-near", "-down", "+down"])
    yield moved_tokens(draw, replies((2, 4, 0), (1, 2, 3)), ["+down", "-up", "+near", "-near", "-down", "+up"])


PPO = Task(
    id="07.5",
    title="PPO's clip",
    kind="implement",
    points=3,
    difficulty="medium",
    minutes=15,
    reference=ppo_loss,
    also_correct=[ppo_loss_by_sides, ppo_loss_token_by_token],
    gradient_of=("logps", "old_logps", "advantages"),
    properties=[
        Property("before the first step every ratio is 1, and the gradient is REINFORCE's", first_step),
        Property("a token with a good advantage is let go beyond 1 + epsilon, and only there", a_good_token),
        Property("a token with a bad advantage is let go below 1 - epsilon, and only there", a_bad_token),
        Property("a batch gets the mean over all its replies' tokens", token_batches),
    ],
    mistakes=[
        Mistake(
            "max for min",
            "With max the clip acts on the other side: it lets go of tokens that have moved the wrong way, and goes on pulling those that have moved enough.",
            "07, Using a rollout more than once",
            edit=("torch.minimum", "torch.maximum"),
        ),
        Mistake(
            "the clipped term alone",
            "Without the min a token that has moved the wrong way has no slope either, so nothing pulls it back.",
            "07, Using a rollout more than once",
            edit=("torch.minimum(ratio * gain, clipped * gain)", "(clipped * gain)"),
        ),
        Mistake(
            "nothing is clipped",
            "Then the pull of a token never ends, and several steps on one rollout carry the policy far from the one that drew it.",
            "07, Using a rollout more than once",
            edit=("torch.minimum(ratio * gain, clipped * gain)", "(ratio * gain)"),
        ),
        Mistake(
            "only the upper side is clipped",
            "A token with a negative advantage moves down: it is the lower side that must let it go.",
            "07, Using a rollout more than once",
            edit=("ratio.clamp(1 - clip_range, 1 + clip_range)", "ratio.clamp(max=1 + clip_range)"),
        ),
        Mistake(
            "the log-ratio is clipped, not the ratio",
            "The range is that of the ratio, from 1 - epsilon to 1 + epsilon. Clipping its logarithm at epsilon ends the pull elsewhere.",
            "07, Using a rollout more than once",
            edit=("ratio.clamp(1 - clip_range, 1 + clip_range)", "torch.exp((logps - old_logps.detach()).clamp(-clip_range, clip_range))"),
        ),
        Mistake(
            "the ratio is upside down",
            "The ratio is the new probability over the old one. Turned round, its slope has the other sign, and good tokens become less likely.",
            "07, Using a rollout more than once",
            edit=("torch.exp(logps - old_logps.detach())", "torch.exp(old_logps.detach() - logps)"),
        ),
        Mistake(
            "the log-ratio stands where the ratio belongs",
            "The ratio is the exponential of the difference of log-probabilities: 1 before the first step, not 0.",
            "07, Using a rollout more than once",
            edit=("torch.exp(logps - old_logps.detach())", "(logps - old_logps.detach())"),
        ),
        Mistake(
            "old is not detached",
            "The old log-probabilities are numbers that the rollout kept. If they come from the same pass as the new ones, both gradients cancel and nothing is learnt.",
            "07, Using a rollout more than once",
            edit=("old_logps.detach()", "old_logps"),
        ),
        Mistake(
            "the advantages are not detached",
            "A gradient through the advantages pulls the critic towards whatever makes them large, and away from the returns that it should predict.",
            "07, PPO, whole",
            edit=("gain = advantages.detach()", "gain = advantages"),
        ),
        Mistake(
            "the ratio is detached",
            "The ratio is what the policy's gradient comes through. Without it the loss is a number that trains nothing.",
            "07, Using a rollout more than once",
            edit=("ratio = torch.exp(logps - old_logps.detach())", "ratio = torch.exp(logps - old_logps.detach()).detach()"),
        ),
        Mistake(
            "the minus in front is missing",
            "The gain is to grow, and an optimiser makes losses small.",
            "07, Using a rollout more than once",
            edit=("losses = -torch", "losses = torch"),
        ),
        Mistake(
            "the mask is forgotten",
            "Prompt and padding were not drawn from the policy. They carry no advantage, and their ratios say nothing.",
            "01, Only the reply counts",
            edit=("(losses * mask).sum() / mask.sum()", "losses.mean()"),
        ),
        Mistake(
            "the mean counts prompt and padding",
            "Dividing by all columns makes the step depend on how much padding the batch has.",
            "01, Sum or mean?",
            edit=("(losses * mask).sum() / mask.sum()", "(losses * mask).mean()"),
        ),
        Mistake(
            "first the mean of each reply, then that of the batch",
            "Then a token of a long reply weighs less than one of a short reply. PPO, as it is here, takes all tokens of the batch alike.",
            "10, How tokens are averaged",
            edit=("(losses * mask).sum() / mask.sum()", "((losses * mask).sum(-1) / mask.sum(-1)).mean()"),
        ),
        Mistake(
            "one ratio for the whole reply",
            "Each token has its own ratio. Their product over a reply soon leaves the clip's range, and then all its tokens are let go together.",
            "07, Using a rollout more than once",
            edit=("torch.exp(logps - old_logps.detach())", "torch.exp(((logps - old_logps.detach()) * mask).sum(-1, keepdim=True))"),
        ),
    ],
    hints=[
        "A token's ratio is exp(new minus old). Write the gain twice: with the ratio, and with the ratio clamped.",
        "The smaller of the two gains counts, and the loss is minus that. Why the smaller, and not always the clamped one?",
        "Detach old and advantages; add up the losses over the mask and divide by the number of its tokens.",
    ],
)  # fmt: skip


# ---- 07.6


def first_fault(largest_ratios, *, steps, tolerance):
    """The first rollout with a fault. `largest_ratios`: a list of floats, one for each step.

    Returns {"fault": "start" | "still" | None, "rollout": its number, from 0, or None}.
    """
    for rollout in range(len(largest_ratios) // steps):
        seen = largest_ratios[rollout * steps : (rollout + 1) * steps]
        moved = [ratio > 1 + tolerance for ratio in seen]
        if moved[0]:
            return {"fault": "start", "rollout": rollout}
        if not any(moved):
            return {"fault": "still", "rollout": rollout}
    return {"fault": None, "rollout": None}


def first_fault_by_array(largest_ratios, *, steps, tolerance):
    moved = np.array(largest_ratios).reshape(-1, steps) - 1 > tolerance
    start, still = moved[:, 0], ~moved.any(axis=1)
    if not (start | still).any():
        return {"fault": None, "rollout": None}
    number = int(np.argmax(start | still))
    return {"fault": "start" if start[number] else "still", "rollout": number}


TOLERANCE = 0.001


def a_rollout(draw: Draw, kind: str, steps: int) -> list[float]:
    """`kind`: a fault, or "fine", where all later steps move; else which of the later steps alone do."""
    rounding = [round(1 + draw.randint(1, 20) / 1e6, 6) for _ in range(steps)]
    if kind == "still":
        return rounding
    moving = {"second": [1], "last": [steps - 1], "between": range(2, steps - 1)}.get(kind)
    if moving:
        return [draw.number(1.02, 1.6) if step in moving else each for step, each in enumerate(rounding)]
    later = sorted(draw.number(1.02, 1.6) for _ in range(steps - 1))
    if kind == "fine":
        return [rounding[0], *later]
    off = draw.number(1.2, 9.0)
    if kind == "start, then still":
        return [off, *rounding[1:]]
    return [off, *(round(off * each, 2) for each in later)]


def noted(draw: Draw, *kinds: str, steps: int) -> dict:
    ratios = [ratio for kind in kinds for ratio in a_rollout(draw, kind, steps)]
    return {"largest_ratios": ratios, "steps": steps, "tolerance": TOLERANCE}


def fine_runs(draw: Draw):
    yield noted(draw, "fine", "fine", steps=2)
    yield noted(draw, *["fine"] * 3, steps=4)


def moving_in_one_step(draw: Draw):
    for kind in ("second", "last"):
        yield noted(draw, kind, "fine", steps=3)
    yield noted(draw, "fine", "between", steps=4)


def exactly_one(draw: Draw):
    fine = noted(draw, "fine", "fine", steps=2)
    fine["largest_ratios"][::2] = [1.0, 1.0]
    yield fine


def wrong_from_the_start(draw: Draw):
    yield noted(draw, "start", steps=3)
    yield noted(draw, *["start"] * 3, steps=3)
    yield noted(draw, "start, then still", steps=3)


def wrong_later(draw: Draw):
    fine = draw.randint(1, 3)
    yield noted(draw, *["fine"] * fine, "start", "start", steps=3)
    yield noted(draw, "fine", "fine", "start", steps=2)


def never_moving(draw: Draw):
    yield noted(draw, "still", "still", steps=2)
    yield noted(draw, *["fine"] * draw.randint(1, 2), "still", "still", steps=3)


def one_after_the_other(draw: Draw):
    yield noted(draw, "still", "fine", "start", steps=2)
    yield noted(draw, "fine", "start", "fine", "still", steps=3)


FIRST_FAULT = Task(
    id="07.6",
    title="Read the first step",
    kind="read the curve",
    points=2,
    difficulty="easy",
    minutes=10,
    reference=first_fault,
    also_correct=[first_fault_by_array],
    properties=[
        Property("a run that is as it should be has no fault", fine_runs),
        Property("neither has one whose ratios are exactly 1 at the start of each rollout", exactly_one),
        Property("a rollout in which a single step has moved something does not stand still", moving_in_one_step),
        Property("a first step whose ratio is not 1 is a fault", wrong_from_the_start),
        Property("it is one in later rollouts too", wrong_later),
        Property("a rollout whose steps move nothing is a fault", never_moving),
        Property("of several faults the first counts", one_after_the_other),
    ],
    mistakes=[
        Mistake(
            "every step is asked to be 1",
            "Only before the first step of a rollout is the policy still the one that drew it. After that the ratios are meant to move.",
            "07, Using a rollout more than once",
            edit=("if moved[0]:", "if any(moved):"),
        ),
        Mistake(
            "only the first rollout is looked at",
            "Every rollout has a first step. A run that begins well can go wrong later, where somebody switches dropout on after an evaluation, say.",
            "07, PPO, whole",
            edit=("range(len(largest_ratios) // steps)", "range(1)"),
        ),
        Mistake(
            "the last fault, not the first",
            "Look for the cause where the trouble begins: what follows may only be its consequence.",
            "07, PPO, whole",
            edit=("range(len(largest_ratios) // steps)", "reversed(range(len(largest_ratios) // steps))"),
        ),
        Mistake(
            "the tolerance is forgotten",
            "fp32 rounds, and two ways to compute the same log-probability differ in the last digits. That is no fault.",
            "07, PPO, whole",
            edit=("ratio > 1 + tolerance", "ratio > 1"),
        ),
        Mistake(
            "a ratio that stays at 1 passes for fine",
            "If nothing moves between the steps of a rollout, nothing is learnt, or old is computed anew at each step and the clip never acts.",
            "07, Using a rollout more than once",
            edit=("if not any(moved):", "if False:"),
        ),
        Mistake(
            "the first step is not looked at",
            "A ratio that is not 1 before the first step says that the old log-probabilities are not those of the policy that drew the tokens.",
            "07, PPO, whole",
            edit=("if moved[0]:", "if False:"),
        ),
        Mistake(
            "one still step is enough",
            "At a rate that rises from 0, or where no token of a minibatch has moved, single steps show a ratio of 1. A rollout stands still if *none* of its steps shows another one.",
            "07, Using a rollout more than once",
            edit=("if not any(moved):", "if not all(moved[1:]):"),
        ),
        Mistake(
            "the second step alone says whether it stands still",
            "The second step may still be at 1 where a later one is not: all entries of the rollout are to be 1.",
            "07, Using a rollout more than once",
            edit=("if not any(moved):", "if not moved[1]:"),
        ),
        Mistake(
            "the last step alone says whether it stands still",
            "Each entry is the largest ratio of one minibatch. The last one may be at 1 where an earlier one was not: all entries of the rollout are to be 1.",
            "07, Using a rollout more than once",
            edit=("if not any(moved):", "if not moved[-1]:"),
        ),
        Mistake(
            "a rollout that starts wrong is called still if nothing moves after that",
            "It stands still only if *all* its entries are 1, the first one too. If the first is not, that is the fault.",
            "07, Using a rollout more than once",
            edit=[("if moved[0]:", "if moved[0] and any(moved[1:]):"), ("if not any(moved):", "if not any(moved[1:]):")],
        ),
        Mistake(
            "standing still counts only if the whole run does",
            "A run can stop half-way: a rate that has reached 0, gradients that are skipped. Each rollout is judged by its own steps.",
            "07, Using a rollout more than once",
            edit=("if not any(moved):", "if not any(ratio > 1 + tolerance for ratio in largest_ratios):"),
        ),
        Mistake(
            "the step's number, not the rollout's",
            "The list holds `steps` entries for each rollout: entry 6 of a run with three steps a rollout belongs to rollout 2.",
            "07, PPO, whole",
            edit=[('"start", "rollout": rollout', '"start", "rollout": rollout * steps'), ('"still", "rollout": rollout', '"still", "rollout": rollout * steps')],
        ),
        Mistake(
            "rollouts are counted from 1",
            "The first rollout has the number 0.",
            "07, PPO, whole",
            edit=[('"start", "rollout": rollout', '"start", "rollout": rollout + 1'), ('"still", "rollout": rollout', '"still", "rollout": rollout + 1')],
        ),
        Mistake(
            "the two faults are swapped",
            "`start` is a first step that is not at 1; `still` is a rollout that never leaves 1.",
            "07, PPO, whole",
            edit=[('return {"fault": "start"', 'return {"fault": "s" "till"'), ('return {"fault": "still"', 'return {"fault": "start"')],
        ),
    ],
    hints=[
        "Cut the list into rollouts first: `steps` entries each. What must the first entry of each be, and what the others?",
        "For each rollout, in order: is its first entry above 1 + tolerance? Are all its entries at most 1 + tolerance?",
    ],
    equivalent={"`ratio > 1 + tolerance` -> `ratio >= 1 + tolerance`": "no ratio lies on the limit"},
)  # fmt: skip


TASKS = [REINFORCE, ESTIMATORS, SHAPED, GAE, PPO, FIRST_FAULT]
