"""Tasks of lesson 04, DPO from scratch."""

import math

import torch
import torch.nn.functional as F

from course_lib.grading.task import Draw, Mistake, Property, Task

# ---- 04.1


def preference_probability(policy_chosen, policy_rejected, ref_chosen, ref_rejected, *, beta):
    """The chance that DPO's implicit rewards give to the chosen reply. Four floats in, one float out."""
    chosen_reward = beta * (policy_chosen - ref_chosen)
    rejected_reward = beta * (policy_rejected - ref_rejected)
    return 1 / (1 + math.exp(rejected_reward - chosen_reward))


def preference_probability_by_odds(a, b, c, d, *, beta):
    odds = math.exp(a * beta - b * beta + d * beta - c * beta)
    return odds / (1 + odds)


def four_floats(draw: Draw, low=-9.0, high=-1.0) -> dict:
    names = ("policy_chosen", "policy_rejected", "ref_chosen", "ref_rejected")
    return dict(zip(names, draw.distinct(4, low=low, high=high).tolist(), strict=True)) | {
        "beta": draw.number(0.15, 0.45)
    }


def rounded(inputs: dict) -> dict:
    return {name: round(value, 2) for name, value in inputs.items()}


def at_the_start(draw: Draw):
    ours = rounded(four_floats(draw))
    yield ours | {"ref_chosen": ours["policy_chosen"], "ref_rejected": ours["policy_rejected"]}


def any_pair(draw: Draw):
    return [rounded(four_floats(draw)) for _ in range(6)]


def a_large_beta(draw: Draw):
    return [rounded(four_floats(draw)) | {"beta": draw.number(1.5, 3.0)} for _ in range(3)]


PROBABILITY = Task(
    id="04.1",
    title="What the policy would bet",
    kind="calculate",
    points=1,
    difficulty="easy",
    minutes=5,
    reference=preference_probability,
    also_correct=[preference_probability_by_odds],
    properties=[
        Property("a policy that is the reference bets one half", at_the_start),
        Property("any pair gets the right probability", any_pair),
        Property("a larger beta makes the bets bolder", a_large_beta),
    ],
    mistakes=[
        Mistake(
            "the pair is swapped",
            "The probability is that of the chosen reply, so its reward counts for it: a larger chosen reward means a larger chance.",
            "04, Two rows by hand",
            edit=("rejected_reward - chosen_reward", "chosen_reward - rejected_reward"),
        ),
        Mistake(
            "beta is missing",
            "Beta turns nats of log-ratio into reward. Without it the bets are those of beta = 1.",
            "04, From lesson 03 to a loss",
            edit=[("beta * (policy_chosen", "(policy_chosen"), ("beta * (policy_rejected", "(policy_rejected")],
        ),
        Mistake(
            "beta divides where it multiplies",
            "A reward is beta times the log-ratio: a large beta means that a small move of the policy stands for a large reward.",
            "04, From lesson 03 to a loss",
            edit=[("beta * (policy_chosen", "1 / beta * (policy_chosen"), ("beta * (policy_rejected", "1 / beta * (policy_rejected")],
        ),
        Mistake(
            "the reference is forgotten",
            "An implicit reward compares the policy with the reference. Without it a reply that was always likely looks preferred.",
            "04, Two rows by hand",
            edit=[("policy_chosen - ref_chosen", "policy_chosen"), ("policy_rejected - ref_rejected", "policy_rejected")],
        ),
        Mistake(
            "the references are swapped",
            "Each reply is compared with its own reference log-probability, the chosen with the chosen.",
            "04, Two rows by hand",
            edit=[("policy_chosen - ref_chosen", "policy_chosen - ref_rejected"), ("policy_rejected - ref_rejected", "policy_rejected - ref_chosen")],
        ),
        Mistake(
            "it is the loss, not the probability",
            "The loss is minus the logarithm of this number; the question asks for the number itself.",
            "04, From lesson 03 to a loss",
            edit=("return 1 / (1 + math.exp(rejected_reward - chosen_reward))", "return math.log(1 + math.exp(rejected_reward - chosen_reward))"),
        ),
    ],
    hints=[
        "Which two numbers does Bradley-Terry compare? In DPO each is made of a policy's and a reference's log-probability.",
        "A reward is beta times (policy minus reference). The probability is the sigmoid of the difference of the two rewards.",
    ],
)  # fmt: skip


# ---- 04.2


def dpo_loss(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, *, beta=0.1):
    """DPO's loss, the mean over the pairs. Four tensors of shape (B,) in, a tensor with one number out."""
    chosen_rewards = beta * (policy_chosen_logps - ref_chosen_logps.detach())
    rejected_rewards = beta * (policy_rejected_logps - ref_rejected_logps.detach())
    return -F.logsigmoid(chosen_rewards - rejected_rewards).mean()


def dpo_loss_pair_by_pair(a, b, c, d, *, beta=0.1):
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(a)):
        logit = beta * ((a[i] - b[i]) - (c[i] - d[i]).detach())
        total = total + torch.log(1 + torch.exp(-logit.double()))
    return total / len(a)


LOGPS = ("policy_chosen_logps", "policy_rejected_logps", "ref_chosen_logps", "ref_rejected_logps")


def pairs(draw: Draw, count: int, low=-9.0, high=-1.0) -> dict:
    return {name: draw.numbers(count, low=low, high=high) for name in LOGPS}


def one_pair(draw: Draw):
    return [pairs(draw, 1) | {"beta": draw.number(0.2, 0.45)} for _ in range(3)]


def the_start(draw: Draw):
    ours = pairs(draw, 2)
    same = {"ref_chosen_logps": ours["policy_chosen_logps"], "ref_rejected_logps": ours["policy_rejected_logps"]}
    yield ours | same | {"beta": draw.number(0.2, 0.45)}


def some_pairs(draw: Draw):
    return [pairs(draw, count) | {"beta": draw.number(0.2, 0.9)} for count in (2, 3, 5)]


def far_apart(draw: Draw):
    far, near = (draw.numbers(2, low=low, high=low + 10) for low in (-70.0, -15.0))
    for values in ((far, near, near, far), (near, far, far, near)):
        yield dict(zip(LOGPS, values, strict=True)) | {"beta": draw.number(1.5, 3.0)}


DPO = Task(
    id="04.2",
    title="DPO's loss",
    kind="implement",
    points=3,
    difficulty="medium",
    minutes=10,
    reference=dpo_loss,
    also_correct=[dpo_loss_pair_by_pair],
    gradient_of=LOGPS,
    properties=[
        Property("a policy that is the reference has the loss ln 2", the_start),
        Property("one pair gets the right loss and gradient", one_pair),
        Property("several pairs get the mean of their losses", some_pairs),
        Property("replies that are far apart do not break it", far_apart),
    ],
    mistakes=[
        Mistake(
            "the pair is swapped",
            "The loss must fall when the chosen reply becomes likelier. Yours rewards the rejected one.",
            "04, Two rows by hand",
            edit=("chosen_rewards - rejected_rewards", "rejected_rewards - chosen_rewards"),
        ),
        Mistake(
            "beta is missing",
            "Beta sets how many nats a given preference is worth. Without it the loss is that of beta = 1.",
            "04, From lesson 03 to a loss",
            edit=[("beta * (policy_chosen", "(policy_chosen"), ("beta * (policy_rejected", "(policy_rejected")],
        ),
        Mistake(
            "beta is applied twice",
            "The rewards hold beta already: multiplied once more it is squared, and the pull becomes much too weak or too strong.",
            "04, From lesson 03 to a loss",
            edit=("F.logsigmoid(chosen_rewards - rejected_rewards)", "F.logsigmoid(beta * (chosen_rewards - rejected_rewards))"),
        ),
        Mistake(
            "beta divides where it multiplies",
            "A reward is beta times the log-ratio, so a small beta lets the policy move far. Dividing turns this round.",
            "04, From lesson 03 to a loss",
            edit=[("beta * (policy_chosen", "1 / beta * (policy_chosen"), ("beta * (policy_rejected", "1 / beta * (policy_rejected")],
        ),
        Mistake(
            "beta stands outside the logarithm",
            "Beta belongs inside the sigmoid, where it scales the margin. Outside it only scales the gradient.",
            "04, From lesson 03 to a loss",
            edit=[
                ("beta * (policy_chosen", "(policy_chosen"),
                ("beta * (policy_rejected", "(policy_rejected"),
                ("return -F", "return -beta * F"),
            ],
        ),
        Mistake(
            "the reference is not detached",
            "No gradient may reach the reference: it stands still, and so does the anchor that it is.",
            "04, The loop",
            edit=[("ref_chosen_logps.detach()", "ref_chosen_logps"), ("ref_rejected_logps.detach()", "ref_rejected_logps")],
        ),
        Mistake(
            "the reference is forgotten",
            "Without it the loss compares how likely the replies are, not how far the policy has moved from where it began.",
            "04, Two rows by hand",
            edit=[(" - ref_chosen_logps.detach()", ""), (" - ref_rejected_logps.detach()", "")],
        ),
        Mistake(
            "the references are swapped",
            "Each reply is compared with its own reference log-probability, the chosen with the chosen.",
            "04, Two rows by hand",
            edit=[("ref_chosen_logps.detach()", "ref_rejected_logps.detach()"), ("policy_rejected_logps - ref_rejected_logps.detach()", "policy_rejected_logps - ref_chosen_logps.detach()")],
        ),
        Mistake(
            "the sum over the batch, not the mean",
            "With a sum the gradient grows with the number of pairs, so what a learning rate or a clip means depends on the batch size.",
            "04, The loop",
            edit=(".mean()", ".sum()"),
        ),
        Mistake(
            "the sigmoid without its logarithm",
            "The loss is a negative log-likelihood. A bare sigmoid has a gradient that vanishes for pairs that are badly wrong.",
            "04, From lesson 03 to a loss",
            edit=("F.logsigmoid", "torch.sigmoid"),
        ),
        Mistake(
            "the minus in front is missing",
            "The log-likelihood is to grow, and an optimiser makes losses small: the loss is minus the log-likelihood.",
            "04, From lesson 03 to a loss",
            edit=("return -F", "return F"),
        ),
        Mistake(
            "a logarithm that breaks far out",
            "Where a pair is far on the wrong side, the exponential overflows or the sigmoid is 0 in fp32, and the loss is infinite. `F.logsigmoid` does both steps at once.",
            "04, Two rows by hand",
            edit=("F.logsigmoid(chosen_rewards - rejected_rewards)", "torch.log(torch.sigmoid(chosen_rewards - rejected_rewards))"),
        ),
    ],
    hints=[
        "Begin with the two implicit rewards: how far has the policy moved on each reply, in units of reward?",
        "The loss of one pair is minus the log-sigmoid of (chosen reward minus rejected reward).",
        "Take the mean over the pairs, use F.logsigmoid, and let no gradient reach the reference.",
    ],
)  # fmt: skip


# ---- 04.3


def smoothed_dpo_loss(margins, *, label_smoothing):
    """DPO's loss if a share of the labels is believed to be wrong (cDPO). Margins (B,) in, the mean loss out."""
    kept = -F.logsigmoid(margins) * (1 - label_smoothing)
    flipped = -F.logsigmoid(-margins) * label_smoothing
    return (kept + flipped).mean()


def smoothed_by_cross_entropy(margins, *, label_smoothing):
    targets = torch.full_like(margins, 1 - label_smoothing)
    return F.binary_cross_entropy_with_logits(margins, targets)


def no_smoothing(draw: Draw):
    yield {"margins": draw.numbers(2), "label_smoothing": 0.0}


def one_margin(draw: Draw):
    return [{"margins": draw.distinct(1, low=low, high=high), "label_smoothing": draw.number(0.1, 0.4)}
            for low, high in ((0.3, 3.0), (-3.0, -0.3))]  # fmt: skip


def many_margins(draw: Draw):
    return [{"margins": draw.numbers(4), "label_smoothing": draw.number(0.1, 0.4)} for _ in range(3)]


SMOOTHED = Task(
    id="04.3",
    title="Labels that may be wrong",
    kind="implement",
    points=2,
    difficulty="medium",
    minutes=10,
    reference=smoothed_dpo_loss,
    also_correct=[smoothed_by_cross_entropy],
    gradient_of=("margins",),
    properties=[
        Property("without smoothing it is DPO's loss", no_smoothing),
        Property("one margin gets both its terms", one_margin),
        Property("several margins get the mean", many_margins),
    ],
    mistakes=[
        Mistake(
            "the shares are swapped",
            "The label as given is right with probability 1 - label_smoothing; yours believes the flipped one.",
            "06, Four losses of *h*",
            edit=[("(1 - label_smoothing)", "label_smoothing "), ("(-margins) * label_smoothing\n", "(-margins) * (1 - label_smoothing)\n")],
        ),
        Mistake(
            "the flipped label is forgotten",
            "Scaling DPO's loss down leaves its minimum at an infinite margin. The flipped label's term is what makes it stop.",
            "06, Four losses of *h*",
            edit=("(kept + flipped)", "kept"),
        ),
        Mistake(
            "the flipped label is subtracted",
            "Subtracting the flipped term and dividing by 1 - 2 eps is robust DPO. cDPO is an expectation over both labels: it adds.",
            "06, Four losses of *h*",
            edit=("kept + flipped", "kept - flipped"),
        ),
        Mistake(
            "the share is not taken off the given label",
            "The two weights are probabilities and add up to 1.",
            "06, Four losses of *h*",
            edit=(" * (1 - label_smoothing)", ""),
        ),
        Mistake(
            "the margin is smoothed, not the loss",
            "Shrinking the margin only changes beta. Smoothing mixes two losses.",
            "06, Four losses of *h*",
            edit=("return (kept + flipped).mean()", "return -F.logsigmoid((1 - 2 * label_smoothing) * margins).mean()"),
        ),
        Mistake(
            "the sum over the batch, not the mean",
            "With a sum the gradient grows with the number of pairs.",
            "04, The loop",
            edit=(".mean()", ".sum()"),
        ),
    ],
    hints=[
        "With probability label_smoothing the label is the wrong way round. What would the loss be then?",
        "A flipped label changes the sign of the margin. Weigh the two losses by how likely each label is.",
    ],
)  # fmt: skip


# ---- 04.4


def first_loss(policy_logps, ref_logps, mask, *, beta):
    """A batch's DPO loss from log-probabilities of tokens: tensors (2B, T), all chosen rows first, then the rejected."""
    policy = (policy_logps * mask).sum(-1)
    reference = (ref_logps * mask).sum(-1)
    chosen, rejected = (beta * (policy - reference)).chunk(2)
    return -F.logsigmoid(chosen - rejected).mean()


def first_loss_row_by_row(policy_logps, ref_logps, mask, *, beta):
    half, losses = len(mask) // 2, []
    rewards = [beta * (p[m].sum() - r[m].sum()) for p, r, m in zip(policy_logps, ref_logps, mask.bool())]
    for chosen, rejected in zip(rewards[:half], rewards[half:]):
        losses.append(F.softplus(rejected - chosen))
    return torch.stack(losses).mean()


def token_batch(draw: Draw, pairs: int, width: int, same=False) -> dict:
    policy = draw.numbers(2 * pairs, width, low=-3.0, high=-0.1)
    reference = policy if same else draw.numbers(2 * pairs, width, low=-3.0, high=-0.1)
    first, length = torch.arange(2 * pairs) % 2, draw.integers(2 * pairs, low=2, high=width - 2)
    columns = torch.arange(width)
    mask = ((columns >= first[:, None]) & (columns < (first + length)[:, None])).float()
    mask[0], mask[-1] = (columns < 2).float(), (columns > 0).float()
    return {"policy_logps": policy, "ref_logps": reference, "mask": mask, "beta": draw.number(0.3, 0.9)}


def same_policy(draw: Draw):
    return [token_batch(draw, 1, 4, same=True), token_batch(draw, 2, 5, same=True)]


def one_token_pair(draw: Draw):
    return [token_batch(draw, 1, 4) for _ in range(3)]


def token_pairs(draw: Draw):
    return [token_batch(draw, count, 5) for count in (2, 3)]


FIRST_LOSS = Task(
    id="04.4",
    title="A first loss of 0.71",
    kind="fix the bug",
    points=2,
    difficulty="medium",
    minutes=10,
    reference=first_loss,
    also_correct=[first_loss_row_by_row],
    gradient_of=("policy_logps",),
    properties=[
        Property("a policy that is the reference has the loss ln 2", same_policy),
        Property("one pair gets the right loss and gradient", one_token_pair),
        Property("several pairs get the mean of their losses", token_pairs),
    ],
    mistakes=[
        Mistake(
            "the policy is averaged over tokens and the reference is summed",
            "Both sides must be measured alike: else the log-ratio of a policy to itself is not 0, and grows with the length.",
            "01, Sum or mean?",
            edit=("policy = (policy_logps * mask).sum(-1)", "policy = (policy_logps * mask).sum(-1) / mask.sum(-1)"),
        ),
        Mistake(
            "both sides are averaged over tokens",
            "DPO's reward is the log-ratio of whole replies, a sum. A mean makes every reply weigh alike whatever its length, and beta mean something else.",
            "01, Sum or mean?",
            edit=[
                ("policy = (policy_logps * mask).sum(-1)", "policy = (policy_logps * mask).sum(-1) / mask.sum(-1)"),
                ("reference = (ref_logps * mask).sum(-1)", "reference = (ref_logps * mask).sum(-1) / mask.sum(-1)"),
            ],
        ),
        Mistake(
            "the policy is averaged over all columns, padding included",
            "`mean(-1)` divides by the width of the batch, so a reply's number depends on its neighbours' lengths.",
            "01, Sum or mean?",
            edit=("policy = (policy_logps * mask).sum(-1)", "policy = (policy_logps * mask).mean(-1)"),
        ),
        Mistake(
            "the mask is forgotten",
            "Without the mask, prompt and padding are counted as if the policy had said them.",
            "01, Only the reply counts",
            edit=[("(policy_logps * mask)", "policy_logps"), ("(ref_logps * mask)", "ref_logps")],
        ),
        Mistake(
            "the reference's mask is forgotten",
            "The reference then counts padding that the policy does not: the log-ratio of a policy to itself is not 0.",
            "01, Only the reply counts",
            edit=("(ref_logps * mask)", "ref_logps"),
        ),
        Mistake(
            "the halves are swapped",
            "The chosen rows stand first.",
            "04, The loop",
            edit=("chosen, rejected =", "rejected, chosen ="),
        ),
        Mistake(
            "neighbouring rows are taken for pairs",
            "The batch holds all chosen rows, then all rejected ones: row i and row B + i are a pair.",
            "04, The loop",
            edit=("chosen, rejected = (beta * (policy - reference)).chunk(2)", "chosen, rejected = (beta * (policy - reference)).reshape(-1, 2).T"),
        ),
        Mistake(
            "beta is missing",
            "Beta turns nats of log-ratio into reward.",
            "04, From lesson 03 to a loss",
            edit=("beta * (policy - reference)", "(policy - reference)"),
        ),
    ],
    hints=[
        "ln 2 is 0.693. Before the first step policy and reference are the same model: what must each margin be?",
        "Give the function the same tensor for both models. Which of the two lines treats them differently?",
    ],
)  # fmt: skip


# ---- 04.5


def pulls(margins, *, beta):
    """How hard each pair pulls: the derivative of the sum of DPO's losses by the chosen log-probabilities, times -1. (B,) in and out."""
    return beta * torch.sigmoid(-margins)


def pulls_by_autograd(margins, *, beta):
    chosen = torch.zeros_like(margins, requires_grad=True)
    (gradient,) = torch.autograd.grad(-F.logsigmoid(margins + beta * chosen).sum(), chosen)
    return -gradient


def undecided(draw: Draw):
    yield {"margins": torch.zeros(1), "beta": draw.number(0.1, 0.45)}


def badly_wrong(draw: Draw):
    yield {"margins": draw.numbers(2, low=-12.0, high=-8.0), "beta": draw.number(0.2, 0.45)}


def learnt(draw: Draw):
    yield {"margins": draw.numbers(2, low=4.0, high=6.0), "beta": draw.number(1.5, 3.0)}


def mixed_margins(draw: Draw):
    return [{"margins": draw.distinct(4), "beta": draw.number(0.2, 0.9)} for _ in range(3)]


PULLS = Task(
    id="04.5",
    title="Which pairs pull hardest",
    kind="predict, then run",
    points=2,
    difficulty="medium",
    minutes=10,
    reference=pulls,
    also_correct=[pulls_by_autograd],
    properties=[
        Property("an undecided pair pulls with half of beta", undecided),
        Property("a pair that is badly wrong pulls with nearly all of beta", badly_wrong),
        Property("a pair that is learnt hardly pulls", learnt),
        Property("pairs of all kinds", mixed_margins),
    ],
    mistakes=[
        Mistake(
            "the learnt pairs pull hardest",
            "The gradient weighs a pair by how wrong the implicit reward is about it: sigmoid of minus the margin.",
            "04, Which pairs pull hardest?",
            edit=("torch.sigmoid(-margins)", "torch.sigmoid(margins)"),
        ),
        Mistake(
            "beta is missing",
            "The margin holds beta times the log-probability, so the chain rule puts a beta in front.",
            "04, Which pairs pull hardest?",
            edit=("beta * torch.sigmoid(-margins)", "torch.sigmoid(-margins)"),
        ),
        Mistake(
            "beta is applied once more inside",
            "The margins hold beta already: it stands in front of the sigmoid only.",
            "04, Which pairs pull hardest?",
            edit=("torch.sigmoid(-margins)", "torch.sigmoid(-beta * margins)"),
        ),
        Mistake(
            "all pairs pull alike",
            "That is what a loss that is linear in the margin would do. DPO lets go of pairs that it has learnt.",
            "04, Which pairs pull hardest?",
            edit=("torch.sigmoid(-margins)", "torch.ones_like(margins)"),
        ),
        Mistake(
            "it is the loss, not its slope",
            "How large a loss is and how steep it is are two things: a badly wrong pair has an ever larger loss, but its pull ends at beta.",
            "04, Which pairs pull hardest?",
            edit=("beta * torch.sigmoid(-margins)", "-F.logsigmoid(margins)"),
        ),
        Mistake(
            "the slope of the sigmoid, not of its logarithm",
            "sigmoid times (1 - sigmoid) is the slope without the logarithm; it lets go of badly wrong pairs too.",
            "04, Which pairs pull hardest?",
            edit=("torch.sigmoid(-margins)", "torch.sigmoid(-margins) * torch.sigmoid(margins)"),
        ),
    ],
    hints=[
        "Differentiate -ln sigmoid(m) by the margin m first: what is it at m = 0, at a very negative m, at a large one?",
        "The derivative of -ln sigmoid(m) is -sigmoid(-m). The margin m holds beta times the chosen log-probability.",
    ],
)  # fmt: skip


# ---- 04.6


def choose_beta(runs, *, most_kl, most_refused):
    """Which run to ship. `runs`: a list of {"beta", "gold", "kl", "refused_harmless"}, all floats.

    Returns {"beta": of the best admissible run or None, "ruled_out": {beta: "kl" | "refusals" | "both"}}.
    """
    ruled_out, best = {}, None
    for run in runs:
        too_far, too_shy = run["kl"] > most_kl, run["refused_harmless"] > most_refused
        if too_far or too_shy:
            ruled_out[run["beta"]] = "both" if too_far and too_shy else "kl" if too_far else "refusals"
        elif best is None or run["gold"] > best["gold"]:
            best = run
    return {"beta": None if best is None else best["beta"], "ruled_out": ruled_out}


def choose_beta_by_lists(runs, *, most_kl, most_refused):
    names = {(True, False): "kl", (False, True): "refusals", (True, True): "both"}
    faults = {r["beta"]: (r["kl"] > most_kl, r["refused_harmless"] > most_refused) for r in runs}
    good = sorted((r for r in runs if not any(faults[r["beta"]])), key=lambda r: r["gold"])
    return {"beta": good[-1]["beta"] if good else None, "ruled_out": {b: names[f] for b, f in faults.items() if any(f)}}


def a_run(draw: Draw, limits: dict, beta: float, gold: float, kl="near", refused="few") -> dict:
    share, excess = draw.uniform(0.2, 0.9), draw.uniform(1.1, 2.0)
    return {
        "beta": beta,
        "gold": gold,
        "kl": round(limits["most_kl"] * (share if kl == "near" else excess), 2),
        "refused_harmless": round(limits["most_refused"] * (share if refused == "few" else excess), 3),
    }


def limits_of(draw: Draw) -> dict:
    return {"most_kl": draw.number(2.0, 12.0, 1), "most_refused": draw.number(0.1, 0.4)}


def betas(draw: Draw, count: int) -> list[float]:
    return draw.sample([0.01, 0.03, 0.1, 0.3, 1.0, 3.0], count)


def golds(draw: Draw, count: int) -> list[float]:
    return sorted(round(value, 2) for value in draw.distinct(count, low=-0.5, high=1.0).tolist())


def all_admissible(draw: Draw):
    for count in (2, 3):
        limits = limits_of(draw)
        runs = [a_run(draw, limits, *each) for each in zip(betas(draw, count), golds(draw, count))]
        nearness = (0.5, 0.3, 0.8)  # the nearest run has neither the highest nor the lowest reward
        for run, share in zip(runs if count == 3 else (), nearness):
            run["kl"] = round(share * limits["most_kl"], 2)
        yield {"runs": runs[::-1]} | limits
        yield {"runs": runs} | limits


def the_best_is_barred(draw: Draw):
    for kl, refused in (("far", "few"), ("near", "many"), ("far", "many")):
        limits, b, g = limits_of(draw), betas(draw, 3), golds(draw, 3)
        runs = [
            a_run(draw, limits, b[0], g[0]),
            a_run(draw, limits, b[1], g[1]),
            a_run(draw, limits, b[2], g[2], kl, refused),
        ]
        yield {"runs": runs} | limits
        yield {"runs": runs[::-1]} | limits


def none_admissible(draw: Draw):
    limits, b, g = limits_of(draw), betas(draw, 2), golds(draw, 2)
    yield {"runs": [a_run(draw, limits, b[0], g[0], "far"), a_run(draw, limits, b[1], g[1], "near", "many")]} | limits


def on_the_limit(draw: Draw):
    for key, limit in (("kl", "most_kl"), ("refused_harmless", "most_refused")):
        limits, b, g = limits_of(draw), betas(draw, 2), golds(draw, 2)
        runs = [a_run(draw, limits, b[0], g[0]), a_run(draw, limits, b[1], g[1]) | {key: limits[limit]}]
        yield {"runs": runs} | limits


BETA = Task(
    id="04.6",
    title="Which beta to ship",
    kind="choose the method",
    points=2,
    difficulty="medium",
    minutes=10,
    reference=choose_beta,
    also_correct=[choose_beta_by_lists],
    properties=[
        Property("of admissible runs the one with the most gold reward is chosen", all_admissible),
        Property("a run that breaks a limit is ruled out, with its reason, however high its reward", the_best_is_barred),
        Property("if no run is admissible, none is chosen", none_admissible),
        Property("a run that lies on a limit is admissible", on_the_limit),
    ],
    mistakes=[
        Mistake(
            "the highest reward is shipped, ruled out or not",
            "A mean can rise because the model refuses everything. The limits come first, the reward second.",
            "04, Kind by kind",
            edit=("        elif best is None", "        if best is None"),
        ),
        Mistake(
            "a run on a limit is ruled out",
            "The limit is the most that is allowed, so a run that lies on it keeps it: rule out what is greater, not what is equal.",
            "04, Is it better?",
            edit=[('run["kl"] > most_kl', 'run["kl"] >= most_kl'), ('> most_refused', '>= most_refused')],
        ),
        Mistake(
            "of two reasons only one is given",
            "A run that breaks both limits has two faults, and mending one would not do.",
            "04, Kind by kind",
            edit=('"both" if too_far and too_shy else ', ""),
        ),
        Mistake(
            "refusals are not looked at",
            "A policy that turns down harmless requests can have a high mean: look kind by kind.",
            "04, Kind by kind",
            edit=("run[\"refused_harmless\"] > most_refused", "False"),
        ),
        Mistake(
            "distance is not looked at",
            "How far a policy has moved is what it has paid; the budget was set beforehand.",
            "04, Is it better?",
            edit=("run[\"kl\"] > most_kl", "False"),
        ),
        Mistake(
            "the smallest KL is chosen",
            "A small distance is no aim of its own: within the budget the reward decides.",
            "04, Is it better?",
            edit=("run[\"gold\"] > best[\"gold\"]", "run[\"kl\"] < best[\"kl\"]"),
        ),
        Mistake(
            "the lowest reward is chosen",
            "Gold reward is to be high.",
            "04, Is it better?",
            edit=("run[\"gold\"] > best[\"gold\"]", "run[\"gold\"] < best[\"gold\"]"),
        ),
        Mistake(
            "the first admissible run is chosen",
            "Compare all admissible runs before you choose.",
            "04, Is it better?",
            edit=(" or run[\"gold\"] > best[\"gold\"]", ""),
        ),
    ],
    hints=[
        "Two questions, in this order: which runs keep both limits, and which of these has the highest gold reward?",
        "Go through the runs once. Keep the reason for each that you rule out, and remember the best of the others.",
    ],
    equivalent={"`run['gold'] > best['gold']` -> `run['gold'] >= best['gold']`": "no two runs have the same gold reward"},
)  # fmt: skip


TASKS = [PROBABILITY, DPO, SMOOTHED, FIRST_LOSS, PULLS, BETA]
