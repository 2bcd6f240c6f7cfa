"""Tasks of lesson 06, IPO, KTO, SimPO and the rest of the family."""

import math

import torch
import torch.nn.functional as F

from course_lib.grading.task import Draw, Mistake, Property, Task

# ---- 06.1


def ipo_loss(policy_chosen_logps, policy_rejected_logps, ref_chosen_logps, ref_rejected_logps, *, beta):
    """IPO's loss, the mean over the pairs. Four tensors (B,) in, a tensor with one number out."""
    chosen = policy_chosen_logps - ref_chosen_logps
    rejected = policy_rejected_logps - ref_rejected_logps
    target = 1 / (2 * beta)
    return ((chosen - rejected - target) ** 2).mean()


def ipo_loss_pair_by_pair(a, b, c, d, *, beta):
    total = 0.0
    for i in range(len(a)):
        total = total + F.mse_loss(a[i] - b[i] - (c[i] - d[i]), torch.tensor(0.5 / beta, dtype=a.dtype))
    return total / len(a)


LOGPS = ("policy_chosen_logps", "policy_rejected_logps", "ref_chosen_logps", "ref_rejected_logps")


def four_logps(draw: Draw, count: int) -> dict:
    return dict(zip(LOGPS, draw.distinct(4, count, low=-9.0, high=-1.0), strict=True))


def ipo_at_the_start(draw: Draw):
    ours = four_logps(draw, 2)
    same = {"ref_chosen_logps": ours["policy_chosen_logps"], "ref_rejected_logps": ours["policy_rejected_logps"]}
    yield ours | same | {"beta": draw.number(0.05, 0.2)}


def on_the_target(draw: Draw):
    ours, beta = four_logps(draw, 1), draw.choice([0.05, 0.1, 0.125, 0.25])
    there = ours["ref_chosen_logps"] - ours["ref_rejected_logps"] + ours["policy_rejected_logps"] + 0.5 / beta
    yield ours | {"policy_chosen_logps": there, "beta": beta}


def one_ipo_pair(draw: Draw):
    return [four_logps(draw, 1) | {"beta": draw.number(0.05, 0.2)} for _ in range(2)]


def some_ipo_pairs(draw: Draw):
    return [
        four_logps(draw, count) | {"beta": beta}
        for count, beta in ((2, draw.number(0.05, 0.2)), (4, draw.number(0.6, 0.9)))
    ]


IPO = Task(
    id="06.1",
    title="A loss that knows where to stop",
    kind="implement",
    points=2,
    difficulty="easy",
    minutes=10,
    reference=ipo_loss,
    also_correct=[ipo_loss_pair_by_pair],
    gradient_of=("policy_chosen_logps", "policy_rejected_logps"),
    properties=[
        Property("a policy that is the reference has the target squared as its loss", ipo_at_the_start),
        Property("a pair on its target has neither loss nor pull", on_the_target),
        Property("one pair gets the right loss and gradient", one_ipo_pair),
        Property("several pairs get the mean of their losses", some_ipo_pairs),
    ],
    mistakes=[
        Mistake(
            "a minus stands before the square",
            "Minimised, that drives h away from its target, faster at every step. IPO's loss is a distance that is to become small.",
            "06, A misprint",
            edit=("return ((chosen", "return -((chosen"),
        ),
        Mistake(
            "the target is 1 / beta",
            "IPO's target is 1 / (2 beta). Twice as far out, it asks for twice the h.",
            "06, Four losses of *h*",
            edit=("1 / (2 * beta)", "1 / beta"),
        ),
        Mistake(
            "beta is multiplied in the target",
            "`1 / 2 * beta` is beta / 2: the larger beta, the further away. A large beta has to keep the policy near.",
            "06, Four losses of *h*",
            edit=("1 / (2 * beta)", "1 / 2 * beta"),
        ),
        Mistake(
            "beta is missing",
            "Without it the target is the same for every strength of the pull.",
            "06, Four losses of *h*",
            edit=("1 / (2 * beta)", "1 / 2"),
        ),
        Mistake(
            "h is multiplied by beta, as in DPO",
            "IPO compares h itself, in nats, with 1 / (2 beta). Of beta * h the target would be reached at 1 / (2 beta^2).",
            "06, Four losses of *h*",
            edit=("(chosen - rejected - target)", "(beta * (chosen - rejected) - target)"),
        ),
        Mistake(
            "beta * h is compared with 1/2",
            "That has its minimum at the right place, h = 1 / (2 beta), but the loss is beta^2 times IPO's. At beta 0.1 every gradient is a hundredth of what it should be.",
            "06, Four losses of *h*",
            edit=("(chosen - rejected - target)", "(beta * (chosen - rejected - target))"),
        ),
        Mistake(
            "the distance is not squared",
            "The absolute value pulls every pair alike, however far it is from the target. IPO's pull grows with the distance.",
            "06, One picture for all of them",
            edit=("(chosen - rejected - target) ** 2", "(chosen - rejected - target).abs()"),
        ),
        Mistake(
            "the mean is taken before the square",
            "Pairs too far below and too far above the target then cancel, and the loss is 0 with no pair in place.",
            "06, Four losses of *h*",
            edit=("((chosen - rejected - target) ** 2).mean()", "(chosen - rejected - target).mean() ** 2"),
        ),
        Mistake(
            "the pair is swapped",
            "h is the chosen reply's log-ratio less the rejected one's. Swapped, the loss teaches the opposite.",
            "06, One number for each pair",
            edit=("chosen - rejected - target", "rejected - chosen - target"),
        ),
        Mistake(
            "the reference is forgotten",
            "h compares log-ratios. Without the reference, the target would be a difference of two replies' own log-probabilities.",
            "06, One number for each pair",
            edit=[(" - ref_chosen_logps\n", "\n"), (" - ref_rejected_logps\n", "\n")],
        ),
        Mistake(
            "the sum over the batch, not the mean",
            "With a sum the step grows with the number of pairs.",
            "04, The loop",
            edit=(".mean()", ".sum()"),
        ),
    ],
    hints=[
        "Make h first: the chosen reply's log-ratio less the rejected one's.",
        "How far is h from 1 / (2 * beta)? Square that pair by pair, then take the mean.",
    ],
)  # fmt: skip


# ---- 06.2


def simpo_loss(chosen_logps, rejected_logps, chosen_lengths, rejected_lengths, *, beta, gamma):
    """SimPO's loss, the mean over the pairs. Four tensors (B,) in, one number out."""
    chosen = chosen_logps / chosen_lengths
    rejected = rejected_logps / rejected_lengths
    return -F.logsigmoid(beta * (chosen - rejected) - gamma).mean()


def simpo_loss_by_softplus(chosen, rejected, chosen_lengths, rejected_lengths, *, beta, gamma):
    difference = (chosen * rejected_lengths - rejected * chosen_lengths) / (chosen_lengths * rejected_lengths)
    return torch.stack([torch.log1p(torch.exp(gamma - beta * each)) for each in difference]).mean()


def replies(draw: Draw, count: int, short: int = 4, long: int = 12) -> dict:
    lengths = [
        [draw.randint(short, short + 2) for _ in range(count)],
        [draw.randint(long - 2, long) for _ in range(count)],
    ]
    swapped = [draw.random() < 0.5 for _ in range(count)]
    chosen, rejected = ([lengths[side ^ swap][i] for i, swap in enumerate(swapped)] for side in (0, 1))
    means = draw.distinct(2, count, low=-2.5, high=-0.5)
    return {
        "chosen_logps": (means[0] * torch.tensor(chosen)).round(decimals=2),
        "rejected_logps": (means[1] * torch.tensor(rejected)).round(decimals=2),
        "chosen_lengths": torch.tensor(chosen),
        "rejected_lengths": torch.tensor(rejected),
    }


def settings(draw: Draw) -> dict:
    return {"beta": draw.number(1.5, 2.5), "gamma": draw.number(0.4, 1.2)}


def equal_means(draw: Draw):
    mean = draw.number(-2.5, -0.5, 1)
    chosen, rejected = draw.randint(3, 6), draw.randint(8, 14)
    for one, other in ((chosen, rejected), (rejected, chosen)):
        logps = {"chosen_logps": torch.tensor([one * mean]), "rejected_logps": torch.tensor([other * mean])}
        yield (
            logps | {"chosen_lengths": torch.tensor([one]), "rejected_lengths": torch.tensor([other])} | settings(draw)
        )


def one_simpo_pair(draw: Draw):
    return [replies(draw, 1) | settings(draw) for _ in range(3)]


def some_simpo_pairs(draw: Draw):
    return [replies(draw, count) | settings(draw) for count in (2, 3, 5)]


SIMPO = Task(
    id="06.2",
    title="Two replies, two lengths",
    kind="fix the bug",
    points=2,
    difficulty="medium",
    minutes=10,
    reference=simpo_loss,
    also_correct=[simpo_loss_by_softplus],
    gradient_of=("chosen_logps", "rejected_logps"),
    properties=[
        Property("if both replies have the same mean, only gamma is left, whatever their lengths", equal_means),
        Property("one pair gets the right loss and gradient", one_simpo_pair),
        Property("several pairs get the mean of their losses", some_simpo_pairs),
    ],
    mistakes=[
        Mistake(
            "both replies are divided by their lengths together",
            "Each reply's mean is over its own tokens. Divided by one and the same number, sums are compared again, and the shorter reply, whose sum is nearer 0, looks better.",
            "06, Two without a reference",
            edit=[
                ("chosen_logps / chosen_lengths", "chosen_logps / (chosen_lengths + rejected_lengths)"),
                ("rejected_logps / rejected_lengths", "rejected_logps / (chosen_lengths + rejected_lengths)"),
            ],
        ),
        Mistake(
            "each reply is divided by the other's length",
            "A mean log-probability is a reply's own sum over its own number of tokens.",
            "06, Two without a reference",
            edit=[("chosen_logps / chosen_lengths", "chosen_logps / rejected_lengths"), ("rejected_logps / rejected_lengths", "rejected_logps / chosen_lengths")],
        ),
        Mistake(
            "both replies are divided by the chosen one's length",
            "The rejected reply has a length of its own.",
            "06, Two without a reference",
            edit=("rejected_logps / rejected_lengths", "rejected_logps / chosen_lengths"),
        ),
        Mistake(
            "sums, not means",
            "SimPO's reward is a mean over tokens: sums favour short replies.",
            "06, Two without a reference",
            edit=[("chosen_logps / chosen_lengths", "chosen_logps"), ("rejected_logps / rejected_lengths", "rejected_logps")],
        ),
        Mistake(
            "gamma is added",
            "The chosen reply has to lead *by* gamma: a lead of just gamma counts as none. Added, gamma forgives a lag.",
            "06, Two without a reference",
            edit=("- gamma", "+ gamma"),
        ),
        Mistake(
            "gamma is multiplied by beta",
            "Here gamma is in units of reward, so it is subtracted after beta. (Some programs give the ratio gamma / beta instead: read which one.)",
            "06, Two without a reference",
            edit=("beta * (chosen - rejected) - gamma", "beta * (chosen - rejected - gamma)"),
        ),
        Mistake(
            "gamma is forgotten",
            "Without it any lead counts as one.",
            "06, Two without a reference",
            edit=(" - gamma", ""),
        ),
        Mistake(
            "beta is missing",
            "Means over tokens are small numbers. Beta, 2 to 10 in the paper, makes rewards of them.",
            "06, Two without a reference",
            edit=("beta * (chosen", "(chosen"),
        ),
        Mistake(
            "the pair is swapped",
            "The loss must fall when the chosen reply's mean rises.",
            "06, Two without a reference",
            edit=("chosen - rejected", "rejected - chosen"),
        ),
        Mistake(
            "the sum over the batch, not the mean",
            "With a sum the step grows with the number of pairs.",
            "04, The loop",
            edit=(".mean()", ".sum()"),
        ),
    ],
    hints=[
        "Take two replies of 5 and 10 tokens, -1 nat each token. What should their difference be, and what is it here?",
        "Divide each sum by its own number of tokens before you subtract.",
    ],
)  # fmt: skip


# ---- 06.3


def kto_loss(policy_logps, ref_logps, thumb_up, policy_mismatched, ref_mismatched, *, beta, up_weight, down_weight):
    """KTO's loss, the mean over the replies. Tensors (B,) in, thumb_up boolean; one number out."""
    log_ratio = policy_logps - ref_logps
    z0 = (policy_mismatched - ref_mismatched).mean().clamp(min=0).detach()
    up = up_weight * torch.sigmoid(beta * (z0 - log_ratio))
    down = down_weight * torch.sigmoid(beta * (log_ratio - z0))
    return torch.where(thumb_up, up, down).mean()


def kto_loss_by_sign(policy, ref, thumb_up, policy_mismatched, ref_mismatched, *, beta, up_weight, down_weight):
    with torch.no_grad():
        baseline = max(0.0, float((policy_mismatched - ref_mismatched).sum()) / len(policy_mismatched))
    sign = thumb_up.to(policy.dtype) * 2 - 1
    weight = (up_weight + down_weight) / 2 + sign * (up_weight - down_weight) / 2
    value = 1 / (1 + torch.exp(-beta * sign * (policy - ref - baseline)))
    return (weight - weight * value).sum() / len(policy)


def thumbs(draw: Draw, up: list[bool], mismatched: float, same: bool = False, apart_by: float = 0.0) -> dict:
    """Replies with these thumbs; the mismatched ones have moved by about so many nats, in turn by more and by less."""
    count = len(up)
    policy, apart = draw.distinct(count, low=-12.0, high=-6.0), draw.distinct(count, low=-12.0, high=-6.0)
    moved = torch.tensor([mismatched + apart_by * (-1) ** n + draw.number(-0.8, 0.8) for n in range(count)])
    return {
        "policy_logps": policy,
        "ref_logps": policy if same else (policy - draw.distinct(count, low=0.5, high=4.0)).round(decimals=2),
        "thumb_up": torch.tensor(up),
        "policy_mismatched": apart,
        "ref_mismatched": apart if same else (apart - moved).round(decimals=2),
    }


def kto_settings(draw: Draw) -> dict:
    return {"beta": draw.number(0.2, 0.45), "up_weight": draw.number(0.5, 0.9), "down_weight": draw.number(1.3, 2.5)}


def kto_at_the_start(draw: Draw):
    yield thumbs(draw, [True, False], 0, same=True) | kto_settings(draw)
    yield thumbs(draw, [True, False, True], 0, same=True) | kto_settings(draw)


def baseline_above_zero(draw: Draw):
    yield thumbs(draw, [True, False], 2.5) | kto_settings(draw)
    yield thumbs(draw, [False, True, True], 2.5, apart_by=4.0) | kto_settings(draw)


def baseline_at_zero(draw: Draw):
    yield thumbs(draw, [False, True], -2.5) | kto_settings(draw)
    yield thumbs(draw, [True, True, False, False], -2.5, apart_by=4.0) | kto_settings(draw)


def some_thumbs(draw: Draw):
    yield thumbs(draw, [True, True, False, True, False], 1.5, apart_by=4.0) | kto_settings(draw)


KTO = Task(
    id="06.3",
    title="Thumbs and their baseline",
    kind="implement",
    points=3,
    difficulty="medium",
    minutes=15,
    reference=kto_loss,
    also_correct=[kto_loss_by_sign],
    gradient_of=("policy_logps", "policy_mismatched"),
    properties=[
        Property("at the start each reply's loss is half its weight", kto_at_the_start),
        Property("replies are judged against the baseline, which gets no gradient", baseline_above_zero),
        Property("a baseline below 0 is set to 0", baseline_at_zero),
        Property("several thumbs get the mean of their losses", some_thumbs),
    ],
    mistakes=[
        Mistake(
            "the baseline is not detached",
            "With a gradient through z0 the loss can be lowered by moving mismatched replies, which nobody has judged. The baseline only says where the policy stands.",
            "06, KTO: thumbs instead of pairs",
            edit=(".clamp(min=0).detach()", ".clamp(min=0)"),
        ),
        Mistake(
            "the baseline may be negative",
            "z0 stands for a KL, which is never below 0: where the mean is negative it rests at 0.",
            "06, KTO: thumbs instead of pairs",
            edit=(".clamp(min=0)", ""),
        ),
        Mistake(
            "each log-ratio is cut off at 0 before the mean",
            "z0 is one number for the batch: the mean first, then the cut. Cut one by one, those below 0 no longer count against the others, and z0 is too high.",
            "06, KTO: thumbs instead of pairs",
            edit=(".mean().clamp(min=0)", ".clamp(min=0).mean()"),
        ),
        Mistake(
            "the baseline is left out",
            "Without it raising all replies alike lowers the loss of every thumb up.",
            "06, KTO: thumbs instead of pairs",
            edit=[("(z0 - log_ratio)", "(-log_ratio)"), ("(log_ratio - z0)", "log_ratio")],
        ),
        Mistake(
            "the baseline comes from the thumbs' own replies",
            "Those are what the loss is to judge. How far replies have risen in general is asked of mismatched ones.",
            "06, KTO: thumbs instead of pairs",
            edit=("(policy_mismatched - ref_mismatched)", "log_ratio"),
        ),
        Mistake(
            "each row has its own baseline",
            "One row's mismatched reply says little. z0 is the mean over the batch, and cut off at 0 after that.",
            "06, One without pairs",
            edit=("(policy_mismatched - ref_mismatched).mean()", "(policy_mismatched - ref_mismatched)"),
        ),
        Mistake(
            "a thumb down is treated like a thumb up",
            "A thumb down asks the reply to fall below the baseline: its sign is the other one.",
            "06, One without pairs",
            edit=("(log_ratio - z0)", "(z0 - log_ratio) "),
        ),
        Mistake(
            "the thumbs are turned round",
            "The loss of a thumb up falls as the reply becomes likelier.",
            "06, One without pairs",
            edit=("torch.where(thumb_up, up, down)", "torch.where(thumb_up, down / down_weight * up_weight, up / up_weight * down_weight)"),
        ),
        Mistake(
            "the weights are swapped",
            "up_weight belongs to thumbs up.",
            "06, KTO: thumbs instead of pairs",
            edit=[("up = up_weight", "up = down_weight"), ("down = down_weight", "down = up_weight")],
        ),
        Mistake(
            "the weights are forgotten",
            "Without them the commoner thumb counts for nearly everything where thumbs are out of balance.",
            "06, KTO: thumbs instead of pairs",
            edit=[("up_weight * torch", "torch"), ("down_weight * torch", "torch")],
        ),
        Mistake(
            "beta is missing",
            "Beta sets how many nats from the baseline a reply is felt to be far away.",
            "06, One without pairs",
            edit=[("beta * (z0", "(z0"), ("beta * (log_ratio", "(log_ratio")],
        ),
        Mistake(
            "the logarithm of the sigmoid, as in DPO",
            "KTO's feeling is the sigmoid itself: it lets go of replies that are far on the wrong side too, and DPO's logarithm does not.",
            "06, One picture for all of them",
            edit=[("torch.sigmoid(beta * (z0 - log_ratio))", "-F.logsigmoid(beta * (log_ratio - z0))"), ("torch.sigmoid(beta * (log_ratio - z0))", "-F.logsigmoid(beta * (z0 - log_ratio))")],
        ),
        Mistake(
            "the sum over the batch, not the mean",
            "With a sum the step grows with the number of replies.",
            "04, The loop",
            edit=("down).mean()", "down).sum()"),
        ),
    ],
    hints=[
        "Two numbers first: each reply's log-ratio, and one z0 for the batch from the mismatched replies.",
        "z0 is a mean, cut off at 0 from below, without gradient. A thumb up costs sigmoid(beta * (z0 - log_ratio)); what does a thumb down cost?",
        "torch.where(thumb_up, ..., ...) picks each reply's loss; weigh both before the mean.",
    ],
)  # fmt: skip


# ---- 06.4


def stop_of(method, *, beta, smoothing, flipped):
    """Where h comes to rest, in nats, if a share of the labels is flipped; None if never."""
    if method == "ipo":
        return (1 - 2 * flipped) / (2 * beta)
    if method == "hinge":
        return 1 / beta
    doubt = flipped
    if method == "cdpo":
        doubt = flipped * (1 - smoothing) + smoothing * (1 - flipped)
    if doubt == 0:
        return None
    return math.log((1 - doubt) / doubt) / beta


def stop_by_descent(method, *, beta, smoothing, flipped):
    def up(z):
        return 1 / (1 + math.exp(min(-z, 500)))

    def slope(h):
        dpo = lambda h: -beta * up(-beta * h)  # noqa: E731
        one = {
            "dpo": dpo,
            "cdpo": lambda h: (1 - smoothing) * dpo(h) - smoothing * dpo(-h),
            "ipo": lambda h: 2 * (h - 1 / (2 * beta)),
            "hinge": lambda h: -beta if beta * h < 1 else 0.0,
        }[method]
        return (1 - flipped) * one(h) - flipped * one(-h)

    low, high = 0.0, 500.0
    if slope(high) < 0:
        return None
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return low


def labels_agree(draw: Draw):
    for method in ("dpo", "ipo", "hinge", "cdpo"):
        yield {"method": method, "beta": draw.number(0.05, 0.4), "smoothing": draw.number(0.1, 0.4), "flipped": 0.0}


def some_flipped(*methods):
    def cases(draw: Draw):
        for method in methods:
            for _ in range(2):
                yield {
                    "method": method,
                    "beta": draw.number(0.05, 0.4),
                    "smoothing": draw.number(0.1, 0.4),
                    "flipped": draw.number(0.1, 0.4),
                }

    return cases


STOPS = Task(
    id="06.4",
    title="Where doubt brings a loss to rest",
    kind="predict, then run",
    points=3,
    difficulty="hard",
    minutes=20,
    reference=stop_of,
    also_correct=[stop_by_descent],
    properties=[
        Property("with labels that agree, DPO never rests and the others do", labels_agree),
        Property("doubt brings DPO to rest", some_flipped("dpo")),
        Property("flips move IPO's and cDPO's place", some_flipped("ipo", "cdpo")),
        Property("the hinge listens to the majority", some_flipped("hinge")),
    ],
    mistakes=[
        Mistake(
            "IPO rests at its target whatever the flips",
            "A flipped pair pulls h to minus the target. Between the two the mean of the squares is least at their weighted mean.",
            "06, One picture for all of them",
            edit=("(1 - 2 * flipped) / (2 * beta)", "1 / (2 * beta)"),
        ),
        Mistake(
            "IPO's target is shrunk by the flipped share once",
            "A flipped pair does not pull to 0, it pulls to minus the target: (1 - flipped) - flipped = 1 - 2 flipped.",
            "06, One picture for all of them",
            edit=("(1 - 2 * flipped)", "(1 - flipped)"),
        ),
        Mistake(
            "IPO's target is 1 / beta",
            "The target is 1 / (2 beta).",
            "06, Four losses of *h*",
            edit=("(1 - 2 * flipped) / (2 * beta)", "(1 - 2 * flipped) / beta"),
        ),
        Mistake(
            "the hinge's place moves with the flips",
            "The hinge pulls with the same strength wherever it pulls. Below 1 / beta the majority outweighs the rest, however small it is; above, only the flipped labels pull, back.",
            "06, One picture for all of them",
            edit=("return 1 / beta", "return (1 - 2 * flipped) / beta"),
        ),
        Mistake(
            "smoothing and flips are added up",
            "A label that is flipped and then doubted is right again: the two shares combine as eps (1 - s) + s (1 - eps).",
            "06, One picture for all of them",
            edit=("flipped * (1 - smoothing) + smoothing * (1 - flipped)", "flipped + smoothing"),
        ),
        Mistake(
            "cDPO rests where its smoothing says, whatever the flips",
            "The smoothing is a doubt put into the loss, the flips are one found in the data; h feels both.",
            "06, One picture for all of them",
            edit=("doubt = flipped * (1 - smoothing) + smoothing * (1 - flipped)", "doubt = smoothing"),
        ),
        Mistake(
            "DPO never rests, whatever the flips",
            "Without flips that is so. A flipped pair pulls back, the harder the larger h is, and at sigmoid(beta h) = 1 - flipped both pulls are equal.",
            "06, One picture for all of them",
            edit=("if doubt == 0:", 'if doubt == 0 or method == "dpo":'),
        ),
        Mistake(
            "smoothing is believed of DPO too",
            "Plain DPO has no smoothing: its doubt comes from the flips alone.",
            "06, Four losses of *h*",
            edit=('if method == "cdpo":', 'if method in ("dpo", "cdpo"):'),
        ),
        Mistake(
            "the odds are turned round",
            "The stop lies at sigmoid(beta h) = 1 - doubt, above 0 as long as most labels are right.",
            "06, One picture for all of them",
            edit=("math.log((1 - doubt) / doubt)", "math.log(doubt / (1 - doubt))"),
        ),
        Mistake(
            "the margin, not h",
            "The log-odds are beta * h. Asked for is h, in nats.",
            "06, One picture for all of them",
            edit=("math.log((1 - doubt) / doubt) / beta", "math.log((1 - doubt) / doubt)"),
        ),
        Mistake(
            "never is returned as infinity",
            "Asked for is None where h never rests, as `fixed_point` of the lesson has it.",
            "06, One picture for all of them",
            edit=("return None", "return math.inf"),
        ),
    ],
    hints=[
        "A flipped label swaps the replies: h becomes -h. The mean loss is (1 - flipped) * loss(h) + flipped * loss(-h). Where is its slope 0?",
        "DPO: the two slopes balance where sigmoid(beta h) = 1 - flipped. cDPO does so with the chance that a label is flipped or doubted, and not both. IPO: a weighted mean of two targets.",
        "The hinge's slope is -beta on one side of its corner and 0 on the other. Draw it for both labels and add them up: which side wins between -1 / beta and 1 / beta?",
    ],
)  # fmt: skip


# ---- 06.5


def memory(parameters, *, trained_share, optimizer_bytes, reference):
    """{"gb": what training holds, "saved": the share of it that goes without a reference}."""
    frozen = 2 if trained_share < 1 else 0
    trained = trained_share * (2 + 2 + optimizer_bytes)
    copy = 2 if reference == "copied" else 0
    total = frozen + trained + copy
    return {"gb": total * parameters / 10**9, "saved": copy / total}


def memory_by_parameter(parameters, *, trained_share, optimizer_bytes, reference):
    each = (4 + optimizer_bytes) * trained_share
    if trained_share != 1:
        each += 2
    without = each
    if reference not in ("none", "computed before", "adapters off"):
        each += 2
    return {"gb": each * parameters / 10**9, "saved": 1 - without / each}


def models(draw: Draw, shares, references):
    for share in shares:
        for reference in references:
            yield {
                "parameters": draw.randint(5, 90) * 10**8,
                "trained_share": share(draw),
                "optimizer_bytes": draw.choice([1, 3, 8]),
                "reference": reference,
            }


def everything(draw: Draw) -> float:
    return 1.0


def adapters(draw: Draw) -> float:
    return draw.choice([0.005, 0.01, 0.02])


MEMORY = Task(
    id="06.5",
    title="What dropping the reference saves",
    kind="calculate",
    points=2,
    difficulty="medium",
    minutes=10,
    reference=memory,
    also_correct=[memory_by_parameter],
    properties=[
        Property("without a reference in memory nothing is saved", lambda draw: models(draw, [everything], ["none", "computed before"])),
        Property("with all weights trained a copied reference is a small part", lambda draw: models(draw, [everything] * 3, ["copied"])),
        Property("with LoRA the frozen weights count, and little is trained", lambda draw: models(draw, [adapters] * 2, ["none", "copied"])),
        Property("adapters that are switched off are a reference for free", lambda draw: models(draw, [adapters] * 2, ["adapters off"])),
        Property("any share may be trained", lambda draw: models(draw, [lambda d: d.number(0.2, 0.6)] * 2, ["copied"])),
    ],
    mistakes=[
        Mistake(
            "GiB, not GB",
            "A GB is 1e9 bytes, a GiB 2^30: 7% more.",
            "06, What must be in memory",
            edit=("10**9", "2**30"),
        ),
        Mistake(
            "the optimiser's state is forgotten",
            "Adam's two moments take more than weights and gradients together. Leaving them out makes the reference look large.",
            "06, What must be in memory",
            edit=("2 + 2 + optimizer_bytes", "2 + 2"),
        ),
        Mistake(
            "the gradients are forgotten",
            "Every trained parameter has a gradient, of 2 bytes here.",
            "06, What must be in memory",
            edit=("2 + 2 + optimizer_bytes", "2 + optimizer_bytes"),
        ),
        Mistake(
            "the optimiser keeps a state for frozen weights",
            "What is not trained has neither gradient nor moments: this is why LoRA is small.",
            "06, What must be in memory",
            edit=("trained_share * (2 + 2 + optimizer_bytes)", "trained_share * (2 + 2) + optimizer_bytes"),
        ),
        Mistake(
            "LoRA's frozen weights are forgotten",
            "The adapters are added to weights that stay in memory, though nobody trains them.",
            "06, What must be in memory",
            edit=("2 if trained_share < 1 else 0", "0"),
        ),
        Mistake(
            "the adapters are counted as a part of the model's weights",
            "LoRA's adapters lie beside the model: all of its weights are frozen, not 1 - trained_share of them.",
            "06, What must be in memory",
            edit=("2 if trained_share < 1 else 0", "2 * (1 - trained_share)"),
        ),
        Mistake(
            "frozen weights are counted where all are trained",
            "In full fine-tuning there is one copy of the policy's weights, and it is trained.",
            "06, What must be in memory",
            edit=("2 if trained_share < 1 else 0", "2"),
        ),
        Mistake(
            "every reference takes memory",
            "Numbers computed beforehand need no second model in training, and adapters that are switched off leave the model that was there before.",
            "06, What must be in memory",
            edit=('if reference == "copied" else 0', 'if reference != "none" else 0'),
        ),
        Mistake(
            "the reference is counted like the policy",
            "A frozen reference has neither gradients nor moments: it takes its weights and no more. Counting models gives one half, counting bytes less.",
            "06, What must be in memory",
            edit=("copy = 2 if", "copy = frozen + trained if"),
        ),
        Mistake(
            "the saving is a share of what is left",
            "\"SimPO needs x% less than DPO\" is a share of what DPO needs, reference included.",
            "06, What must be in memory",
            edit=("copy / total", "copy / (total - copy)"),
        ),
        Mistake(
            "the total leaves out the reference",
            "Asked for is all that is held, a copied reference too.",
            "06, What must be in memory",
            edit=("total * parameters", "(total - copy) * parameters"),
        ),
    ],
    hints=[
        "Count bytes for each parameter first: what holds a trained one, what a frozen one, what one of the reference?",
        "A trained parameter holds 2 + 2 + optimizer_bytes, a frozen one 2. With LoRA all of the model's weights are frozen, and the trained ones come on top.",
        "Only a copied reference takes memory: 2 bytes for each parameter. The saving is that, over everything.",
    ],
)  # fmt: skip


# ---- 06.6


def kto_plan(up, down, *, batch, most):
    """How to train KTO on so many thumbs: {"up_weight", "down_weight", "one_sided", "draw"}."""
    up_weight = max(1, down / up)
    down_weight = max(1, up / down)
    share = up / (up + down)
    one_sided = share**batch + (1 - share) ** batch
    draw = "at random" if one_sided <= most else "by class"
    return {"up_weight": up_weight, "down_weight": down_weight, "one_sided": one_sided, "draw": draw}


def kto_plan_by_cases(up, down, *, batch, most):
    total = up + down
    chance = sum(math.exp(batch * math.log(count / total)) for count in (up, down))
    weights = (1, up / down) if up >= down else (down / up, 1)
    plan = dict(zip(("up_weight", "down_weight"), weights, strict=True))
    return plan | {"one_sided": chance, "draw": "by class" if chance > most else "at random"}


def a_shop(draw: Draw, share: float, batch: int, limit: float) -> dict:
    """Thumbs of about this share up; the limit on one-sided batches as a multiple of their chance."""
    total = draw.randint(200, 900) * 10
    up = round(total * (share + draw.uniform(-0.01, 0.01)))
    chance = (up / total) ** batch + (1 - up / total) ** batch
    return {"up": up, "down": total - up, "batch": batch, "most": float(f"{chance * limit:.2g}")}


def balanced_thumbs(draw: Draw):
    count = draw.randint(200, 900)
    yield {"up": count, "down": count, "batch": 2, "most": 0.6}
    yield {"up": count, "down": count, "batch": 2, "most": 0.5}
    yield {"up": count, "down": count, "batch": 2, "most": 0.4}


def mostly_up(draw: Draw):
    yield a_shop(draw, 0.95, 16, draw.uniform(0.1, 0.6))
    yield a_shop(draw, 0.9, 32, draw.uniform(1.5, 4))


def mostly_down(draw: Draw):
    yield a_shop(draw, 0.08, 8, draw.uniform(0.1, 0.6))
    yield a_shop(draw, 0.15, 16, draw.uniform(1.5, 4))


def small_batches(draw: Draw):
    yield a_shop(draw, 0.65, 3, draw.uniform(0.4, 0.6))
    yield a_shop(draw, 0.35, 2, draw.uniform(1.3, 1.6))


KTO_PLAN = Task(
    id="06.6",
    title="Fifty thousand thumbs, most of them up",
    kind="choose the method",
    points=2,
    difficulty="medium",
    minutes=15,
    reference=kto_plan,
    also_correct=[kto_plan_by_cases],
    properties=[
        Property("as many thumbs up as down need no weights", balanced_thumbs),
        Property("with few thumbs down these weigh more, and batches are drawn as their chance says", mostly_up),
        Property("with few thumbs up those weigh more", mostly_down),
        Property("in a small batch both one-sided cases count", small_batches),
    ],
    mistakes=[
        Mistake(
            "all thumbs weigh alike",
            "Then the rare thumb is hardly heard: the mean over a batch is one of the common thumb.",
            "06, KTO: thumbs instead of pairs",
            edit=[("max(1, down / up)", "1"), ("max(1, up / down)", "1")],
        ),
        Mistake(
            "the common thumb gets the weight",
            "That makes the imbalance worse. The rare thumb gets the larger weight, so that both classes weigh the same in all.",
            "06, KTO: thumbs instead of pairs",
            edit=[("max(1, down / up)", "max(1, up / down) "), ("max(1, up / down)\n", "max(1, down / up)\n")],
        ),
        Mistake(
            "thumbs down are weighed by down / up",
            "Weight times number is what a class weighs in all. With down / up the rare class weighs even less: turn the fraction round. And the commoner thumb has the weight 1.",
            "06, KTO: thumbs instead of pairs",
            edit=[("max(1, down / up)", "1"), ("max(1, up / down)", "down / up")],
        ),
        Mistake(
            "thumbs up are weighed by up / down",
            "Weight times number is what a class weighs in all. With up / down the rare class weighs even less: turn the fraction round. And the commoner thumb has the weight 1.",
            "06, KTO: thumbs instead of pairs",
            edit=[("max(1, down / up)", "up / down"), ("max(1, up / down)", "1")],
        ),
        Mistake(
            "each class is weighed by its own share",
            "That gives the common thumb the larger weight, and makes the imbalance worse. The rare thumb needs the larger one.",
            "06, KTO: thumbs instead of pairs",
            edit=[("max(1, down / up)", "up / (up + down)"), ("max(1, up / down)", "down / (up + down)")],
        ),
        Mistake(
            "each class is weighed by the other's share",
            "The balance is right, but here the commoner thumb has the weight 1: divide both weights by its.",
            "06, KTO: thumbs instead of pairs",
            edit=[("max(1, down / up)", "down / (up + down)"), ("max(1, up / down)", "up / (up + down)")],
        ),
        Mistake(
            "each class is weighed by one over its number",
            "The balance is right, but here the commoner thumb has the weight 1: divide both weights by its. So small a loss would hardly train at all under a plain gradient step.",
            "06, KTO: thumbs instead of pairs",
            edit=[("max(1, down / up)", "1 / up"), ("max(1, up / down)", "1 / down")],
        ),
        Mistake(
            "thumbs up have the weight 1, even where they are rare",
            "The balance is right, but here the *commoner* thumb has the weight 1. Else the imbalance makes the whole loss smaller.",
            "06, KTO: thumbs instead of pairs",
            edit=[("max(1, down / up)", "1"), ("max(1, up / down)", "up / down")],
        ),
        Mistake(
            "the weights are balanced, but the commoner thumb's is not 1",
            "All thumbs over twice one's own class is a usual way to balance classes. Here the commoner thumb has the weight 1: divide both by its weight.",
            "06, KTO: thumbs instead of pairs",
            edit=[("max(1, down / up)", "(up + down) / (2 * up)"), ("max(1, up / down)", "(up + down) / (2 * down)")],
        ),
        Mistake(
            "only thumbs down are taken for the rare ones",
            "In many shops they are. In this one it may be the other way round, and then thumbs up need the weight.",
            "06, KTO: thumbs instead of pairs",
            edit=("max(1, down / up)", "1"),
        ),
        Mistake(
            "only the batch of thumbs up is thought of",
            "A batch of thumbs down alone is one-sided too.",
            "06, KTO: thumbs instead of pairs",
            edit=(" + (1 - share) ** batch", ""),
        ),
        Mistake(
            "only the batch of the commoner thumb is thought of",
            "A batch of the rare thumb alone is one-sided too. In a large batch that hardly happens, in a small one it does.",
            "06, KTO: thumbs instead of pairs",
            edit=[("share = up / (up + down)", "share = max(up, down) / (up + down)"), (" + (1 - share) ** batch", "")],
        ),
        Mistake(
            "the chance that both classes are there",
            "That is one minus what was asked for.",
            "06, KTO: thumbs instead of pairs",
            edit=("one_sided = share**batch + (1 - share) ** batch", "one_sided = 1 - share**batch - (1 - share) ** batch"),
        ),
        Mistake(
            "the share is multiplied by the batch, not raised to it",
            "That all of `batch` independent thumbs are up has the chance share times share times share ...",
            "06, KTO: thumbs instead of pairs",
            edit=("share**batch + (1 - share) ** batch", "share * batch + (1 - share) * batch"),
        ),
        Mistake(
            "weights are trusted to mend a one-sided batch",
            "A weight cannot weigh what is not there: in a batch of thumbs up alone raising every reply lowers the loss. Draw such batches class by class.",
            "06, KTO: thumbs instead of pairs",
            edit=('"at random" if one_sided <= most else "by class"', '"at random"'),
        ),
        Mistake(
            "the limit is read the wrong way round",
            "Drawing at random is fine as long as one-sided batches are rare enough.",
            "06, KTO: thumbs instead of pairs",
            edit=("one_sided <= most", "one_sided > most"),
        ),
    ],
    hints=[
        "Weight times number is what a class weighs in all. Which weight lets the rare class weigh as much as the common one?",
        "With weights 1 for the common thumb and (common / rare) for the rare one, the two products are equal. For one-sided batches: what is the chance that `batch` independent thumbs are all up? All down?",
        "one_sided = share ** batch + (1 - share) ** batch; compare it with `most`.",
    ],
)  # fmt: skip


TASKS = [IPO, SIMPO, KTO, STOPS, MEMORY, KTO_PLAN]
