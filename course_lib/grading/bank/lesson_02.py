"""Tasks of lesson 02, preferences and the reward model."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from course_lib.grading.task import Draw, Mistake, Property, Task

# ---- 02.1


def first_over_others(rewards):
    """How often the first reply is chosen over each other one. Rewards (K,) in, (K - 1,) out."""
    return torch.sigmoid(rewards[0] - rewards[1:])


def first_over_others_by_odds(rewards):
    first, *others = rewards.tolist()
    return [1 / (1 + math.exp(other - first)) for other in others]


def two_replies(draw: Draw):
    return [{"rewards": draw.distinct(2)} for _ in range(2)]


def shifted(draw: Draw):
    rewards = draw.distinct(3)
    return [{"rewards": rewards}, {"rewards": rewards + 10}]


def many_replies(draw: Draw):
    return [{"rewards": draw.distinct(4)} for _ in range(3)]


FIRST_OVER_OTHERS = Task(
    id="02.1",
    title="What a difference of rewards means",
    kind="calculate",
    points=1,
    difficulty="easy",
    minutes=5,
    reference=first_over_others,
    also_correct=[first_over_others_by_odds],
    properties=[
        Property("of two replies the first gets the chance that Bradley and Terry give it", two_replies),
        Property("adding 10 to all rewards changes nothing", shifted),
        Property("with several replies each pair stands for itself", many_replies),
    ],
    mistakes=[
        Mistake(
            "the pair is swapped",
            "Asked is how often the first reply is chosen, so its reward counts for it: a larger first reward means a larger chance.",
            "02, From choices to a reward",
            edit=("rewards[0] - rewards[1:]", "rewards[1:] - rewards[0]"),
        ),
        Mistake(
            "each reply is compared with its neighbour",
            "All others are compared with the first reply, not each with the next one.",
            "02, From choices to a reward",
            edit=("rewards[0] - rewards[1:]", "rewards[:-1] - rewards[1:]"),
        ),
        Mistake(
            "a share of the rewards, not of their exponentials",
            "r1 / (r1 + r2) changes when a constant is added to both, and a negative reward makes nonsense of it. Only the difference may count.",
            "02, From choices to a reward",
            edit=("torch.sigmoid(rewards[0] - rewards[1:])", "rewards[0] / (rewards[0] + rewards[1:])"),
        ),
        Mistake(
            "the chance to be the best of all",
            "A softmax over all replies says how often the first would win if all were shown at once. Here two are shown at a time.",
            "02, From choices to a reward",
            edit=("torch.sigmoid(rewards[0] - rewards[1:])", "torch.softmax(rewards, 0)[0].expand(len(rewards) - 1)"),
        ),
        Mistake(
            "the larger reward always wins",
            "People are not certain: a difference of 2 is seen in 88% of the cases, and in the others the worse reply is chosen.",
            "02, From choices to a reward",
            edit=("torch.sigmoid(rewards[0] - rewards[1:])", "(rewards[0] > rewards[1:]).float()"),
        ),
        Mistake(
            "it is the odds, not the chance",
            "exp(r1 - r2) says how many times as often the first is chosen as the second: odds p / (1 - p), which can exceed 1.",
            "02, From choices to a reward",
            edit=("torch.sigmoid", "torch.exp"),
        ),
        Mistake(
            "it is the loss, not the chance",
            "The loss of a pair is minus the logarithm of this number; the question asks for the number itself.",
            "02, From choices to a reward",
            edit=("torch.sigmoid", "-F.logsigmoid"),
        ),
        Mistake(
            "it is the difference, not the chance",
            "The difference of two rewards can be any number. The sigmoid turns it into a chance between 0 and 1.",
            "02, From choices to a reward",
            edit=("torch.sigmoid", ""),
        ),
        Mistake(
            "the logarithm of the chance",
            "The loss needs this logarithm. Asked is the chance itself, a number between 0 and 1.",
            "02, From choices to a reward",
            edit=("torch.sigmoid", "F.logsigmoid"),
        ),
        Mistake(
            "Pocket World's certainty is built in",
            "The factor 3 belongs to this world's people and their gold reward. A Bradley-Terry reward is in nats: its difference goes into the sigmoid as it is.",
            "02, How much do people agree here?",
            edit=("rewards[0] - rewards[1:]", "3 * (rewards[0] - rewards[1:])"),
        ),
    ],
    hints=[
        "Bradley and Terry look at two replies at a time, and only at one number of the two rewards. Which?",
        "The chance is the sigmoid of (first reward minus the other reward), once for each of the others.",
    ],
)  # fmt: skip


# ---- 02.2


def read_rewards(scores, attention_mask):
    """Each reply's reward: its score at the last real token. Two tensors (B, T) in, (B,) out."""
    width = attention_mask.shape[1]
    last = width - 1 - attention_mask.flip(1).argmax(1)
    return scores.gather(1, last[:, None]).squeeze(1)


def read_rewards_row_by_row(scores, mask):
    return torch.stack([row[keep == 1][-1] for row, keep in zip(scores, mask)])


def read_rewards_by_places(scores, mask):
    places = torch.arange(mask.shape[1]) * mask
    return scores[torch.arange(len(scores)), places.max(dim=1).values]


def padded(draw: Draw, spans: list[tuple[int, int]], width: int) -> dict:
    """Rows of `width` columns whose real tokens are those from `start` to just before `end`."""
    mask = torch.zeros(len(spans), width, dtype=torch.int64)
    for row, (start, end) in enumerate(spans):
        mask[row, start:end] = 1
    return {"scores": draw.distinct(len(spans), width), "attention_mask": mask}


def no_padding(draw: Draw):
    yield padded(draw, [(0, 3), (0, 3)], 3)


def padded_right(draw: Draw):
    yield padded(draw, [(0, 2)], 4)
    yield padded(draw, [(0, 5), (0, draw.randint(2, 3))], 5)


def padded_left(draw: Draw):
    yield padded(draw, [(2, 4)], 4)
    yield padded(draw, [(0, 5), (draw.randint(1, 2), 5)], 5)


def padded_both(draw: Draw):
    yield padded(draw, [(1, 3)], 5)
    yield padded(draw, [(1, 4), (0, 6), (2, 4)], 6)


READ_REWARDS = Task(
    id="02.2",
    title="Which column holds the reward?",
    kind="fix the bug",
    points=2,
    difficulty="medium",
    minutes=10,
    reference=read_rewards,
    also_correct=[read_rewards_row_by_row, read_rewards_by_places],
    properties=[
        Property("without padding the last column holds the rewards", no_padding),
        Property("padding on the right is not read", padded_right),
        Property("padding on the left moves nothing", padded_left),
        Property("with padding on both sides the last real token is read", padded_both),
    ],
    mistakes=[
        Mistake(
            "the last column is read, padding or not",
            "Every reply shorter than the longest then gets a padding token's score, and the same reply gets another reward in another batch.",
            "02, A reward model from scratch",
            edit=[
                ("    width = attention_mask.shape[1]\n", ""),
                ("    last = width - 1 - attention_mask.flip(1).argmax(1)\n", ""),
                ("scores.gather(1, last[:, None]).squeeze(1)", "scores[:, -1]"),
            ],
        ),
        Mistake(
            "the tokens are counted from the left edge",
            "The number of real tokens minus 1 is the last one's column only if nothing is padded on the left. Left padding must change nothing.",
            "02, A reward model from scratch",
            edit=("width - 1 - attention_mask.flip(1).argmax(1)", "attention_mask.sum(1) - 1"),
        ),
        Mistake(
            "the first padding token is read",
            "Columns count from 0: the one after the last real token is padding.",
            "02, A reward model from scratch",
            edit=("width - 1 - attention_mask.flip(1).argmax(1)", "(width - attention_mask.flip(1).argmax(1)).clamp(max=width - 1)"),
        ),
        Mistake(
            "the token before the last is read",
            "There the model has not yet read how the reply ends.",
            "02, A reward model from scratch",
            edit=("width - 1 - attention_mask", "width - 2 - attention_mask"),
        ),
        Mistake(
            "the first real token is read",
            "A token sees only what stands before it: at the first one nothing of the reply has been read. (Models that read both ways keep their summary there.)",
            "02, A reward model from scratch",
            edit=("width - 1 - attention_mask.flip(1).argmax(1)", "attention_mask.argmax(1)"),
        ),
        Mistake(
            "the mean over the real tokens",
            "Most of these tokens have read only a part of the reply. The reward is one score, at the last token.",
            "02, A reward model from scratch",
            edit=("scores.gather(1, last[:, None]).squeeze(1)", "(scores * attention_mask).sum(1) / attention_mask.sum(1)"),
        ),
        Mistake(
            "the mean over all columns, padding included",
            "It counts tokens that have read only a part of the reply, and padding, which is no part of it.",
            "02, A reward model from scratch",
            edit=("scores.gather(1, last[:, None]).squeeze(1)", "scores.mean(1)"),
        ),
        Mistake(
            "the sum over the real tokens",
            "A sum of scores grows with the length of the reply. The reward is one score, at the last token.",
            "02, A reward model from scratch",
            edit=("scores.gather(1, last[:, None]).squeeze(1)", "(scores * attention_mask).sum(1)"),
        ),
        Mistake(
            "the last column is read after masking",
            "To multiply by the mask makes the scores of padding 0, but does not find the last real token: every reply that is padded on the right gets the reward 0.",
            "02, A reward model from scratch",
            edit=("scores.gather(1, last[:, None]).squeeze(1)", "(scores * attention_mask)[:, -1]"),
        ),
    ],
    hints=[
        "Write down a mask whose row has two real tokens, one padding token before and one after them. Which column is to be read?",
        "You want the last column in which the mask is 1. The number of ones alone does not tell it, if there is padding on the left.",
        "attention_mask.flip(1).argmax(1) counts the padding tokens on the right; width - 1 minus that is the column. gather, or indexing with torch.arange(B), reads one column a row.",
    ],
)  # fmt: skip


# ---- 02.3


def margin_loss(chosen_rewards, rejected_rewards, much_better, *, margin):
    """Bradley-Terry's mean loss with a margin. Three tensors (B,) in, one number out."""
    margins = margin * much_better
    differences = chosen_rewards - rejected_rewards
    return -F.logsigmoid(differences - margins).mean()


def margin_loss_pair_by_pair(chosen, rejected, much, *, margin):
    losses = []
    for won, lost, is_much in zip(chosen, rejected, much):
        losses.append(F.softplus(lost - won + margin if is_much else lost - won))
    return sum(losses) / len(losses)


def reward_pairs(draw: Draw, much: list[bool], low=-3.0, high=3.0) -> dict:
    values = draw.distinct(2 * len(much), low=low, high=high)
    chosen, rejected = values.chunk(2)
    return {
        "chosen_rewards": chosen,
        "rejected_rewards": rejected,
        "much_better": torch.tensor(much),
        "margin": draw.number(0.5, 0.9) if draw.random() < 0.5 else draw.number(1.2, 2.5),
    }


def slightly_better(draw: Draw):
    return [reward_pairs(draw, [False]) for _ in range(2)]


def one_much_better(draw: Draw):
    return [reward_pairs(draw, [True]) for _ in range(2)]


def of_both_kinds(draw: Draw):
    return [
        reward_pairs(draw, much) for much in ([True, False], [False, True, False], [True, False, True, True, False])
    ]


def far_apart(draw: Draw):
    high, low = draw.distinct(2, low=55.0, high=70.0), draw.distinct(2, low=-70.0, high=-55.0)
    much = torch.tensor([True, False])
    for chosen, rejected in ((high, low), (low, high)):
        yield {
            "chosen_rewards": chosen,
            "rejected_rewards": rejected,
            "much_better": much,
            "margin": draw.number(1.2, 2.5),
        }


MARGIN_LOSS = Task(
    id="02.3",
    title="Much better, or slightly better",
    kind="implement",
    points=2,
    difficulty="medium",
    minutes=10,
    reference=margin_loss,
    also_correct=[margin_loss_pair_by_pair],
    gradient_of=("chosen_rewards", "rejected_rewards"),
    properties=[
        Property("a pair that is slightly better has the lesson's loss", slightly_better),
        Property("a pair that is much better must win by the margin", one_much_better),
        Property("several pairs get the mean of their losses", of_both_kinds),
        Property("rewards that are far apart do not break it", far_apart),
    ],
    mistakes=[
        Mistake(
            "the margin is added, not subtracted",
            "Added, it makes the loss small before the chosen reply leads by anything: the rewards of clear pairs would spread less, not more.",
            "02, From choices to a reward",
            edit=("differences - margins", "differences + margins"),
        ),
        Mistake(
            "every pair gets the margin",
            "Then the annotator's two words mean the same. Only pairs that are much better must win by the margin.",
            "02, From choices to a reward",
            edit=("margin * much_better", "margin * torch.ones_like(chosen_rewards)"),
        ),
        Mistake(
            "the slightly better pairs get the margin",
            "The mask is turned round: True stands for much better.",
            "02, From choices to a reward",
            edit=("margin * much_better", "margin * (1 - much_better.float())"),
        ),
        Mistake(
            "the margin stands outside the logarithm",
            "A number that is added to the loss has no gradient: training would not notice the margin at all.",
            "02, From choices to a reward",
            edit=("-F.logsigmoid(differences - margins).mean()", "(margins - F.logsigmoid(differences)).mean()"),
        ),
        Mistake(
            "the margin multiplies the difference",
            "A factor says how sure people are of a given difference. A margin is a lead in reward units, and is subtracted.",
            "02, From choices to a reward",
            edit=("differences - margins", "differences * torch.where(much_better, margin, 1.0)"),
        ),
        Mistake(
            "the pair is swapped",
            "The loss must fall when the chosen reply's reward rises. Yours makes the rejected one win.",
            "02, From choices to a reward",
            edit=("chosen_rewards - rejected_rewards", "rejected_rewards - chosen_rewards"),
        ),
        Mistake(
            "the sum over the pairs, not the mean",
            "With a sum the step grows with the number of pairs, so the learning rate depends on the batch size.",
            "02, A reward model from scratch",
            edit=(".mean()", ".sum()"),
        ),
        Mistake(
            "a hinge, not a log-sigmoid",
            "max(0, margin - difference) lets go of a pair at the margin and pulls with full strength up to it. Bradley-Terry's pull fades gradually.",
            "02, From choices to a reward",
            edit=("-F.logsigmoid(differences - margins).mean()", "F.relu(margins - differences).mean()"),
        ),
        Mistake(
            "log of a sigmoid that underflows",
            "Where a pair is far on the wrong side, the sigmoid is 0 in fp32 and its logarithm minus infinity. F.logsigmoid does both at once.",
            "02, From choices to a reward",
            edit=("F.logsigmoid(differences - margins)", "torch.log(torch.sigmoid(differences - margins))"),
        ),
        Mistake(
            "the margin is left out",
            "This is the lesson's loss: a pair that is much better need not win by more than any other.",
            "02, From choices to a reward",
            edit=("differences - margins", "differences"),
        ),
    ],
    hints=[
        "Begin with the lesson's loss, and give each pair a margin of its own: what is it for a pair that is only slightly better?",
        "much_better times margin is each pair's margin. It is subtracted from the difference of the rewards, inside the log-sigmoid.",
    ],
)  # fmt: skip


# ---- 02.4


def ceiling(gaps, *, scale, flip_rate):
    """The share of labels that the true reward predicts, expected. Gaps (B,) in, one number out."""
    person = torch.sigmoid(scale * gaps.abs())
    label = person * (1 - flip_rate) + (1 - person) * flip_rate
    return label.mean()


def ceiling_pair_by_pair(gaps, *, scale, flip_rate):
    chances = []
    for gap in gaps.tolist():
        doubt = 1 / (1 + math.exp(scale * abs(gap)))
        chances.append(1 - doubt - flip_rate * (1 - 2 * doubt))
    return sum(chances) / len(chances)


def gap_cases(draw: Draw, count: int, *, scale=None, flip_rate=None, low=0.15, high=0.9) -> dict:
    sizes = draw.distinct(count, low=low, high=high)
    signs = torch.tensor([1.0, -1.0]).repeat(count)[:count]
    return {
        "gaps": sizes * signs,
        "scale": draw.number(1.5, 3.5) if scale is None else scale,
        "flip_rate": draw.number(0.1, 0.4) if flip_rate is None else flip_rate,
    }


def coin_toss(draw: Draw):
    yield {"gaps": torch.zeros(1), "scale": draw.number(1.5, 3.5), "flip_rate": draw.number(0.1, 0.4)}


def certain_people(draw: Draw):
    yield gap_cases(draw, 2, low=4.0, high=6.0)


def without_flips(draw: Draw):
    return [gap_cases(draw, count, flip_rate=0.0) for count in (1, 2)]


def doubt_and_flips(draw: Draw):
    return [gap_cases(draw, count) for count in (1, 2, 4, 5)]


CEILING = Task(
    id="02.4",
    title="As good as it can look",
    kind="predict, then run",
    points=2,
    difficulty="medium",
    minutes=10,
    reference=ceiling,
    also_correct=[ceiling_pair_by_pair],
    properties=[
        Property("two replies worth the same: one half, whatever is flipped", coin_toss),
        Property("people who are certain: all labels but the flipped ones", certain_people),
        Property("without flips: people's own doubt", without_flips),
        Property("doubt and flips together", doubt_and_flips),
    ],
    mistakes=[
        Mistake(
            "a wrong label that is flipped is forgotten",
            "A flip makes a right label wrong, and a wrong one right. Where people err often, that counts.",
            "02, How much do people agree here?",
            edit=(" + (1 - person) * flip_rate", ""),
        ),
        Mistake(
            "the flip rate is subtracted",
            "Only right labels can become wrong, and wrong ones become right: less is lost than the share that is flipped.",
            "02, How much do people agree here?",
            edit=("person * (1 - flip_rate) + (1 - person) * flip_rate", "person - flip_rate"),
        ),
        Mistake(
            "people's own doubt is forgotten",
            "Even without a single flip people choose the worse reply at times, the more often the nearer the two are.",
            "02, How much do people agree here?",
            edit=("torch.sigmoid(scale * gaps.abs())", "torch.ones_like(gaps)"),
        ),
        Mistake(
            "the flips are forgotten",
            "The labels that are predicted are those after flipping.",
            "02, More pairs, cleaner labels?",
            edit=("label = person * (1 - flip_rate) + (1 - person) * flip_rate", "label = person"),
        ),
        Mistake(
            "the sign of the gap is kept",
            "A pair whose second reply is better is predicted just as well: the model then says \"the second\". What counts is the size of the gap.",
            "02, How much do people agree here?",
            edit=("gaps.abs()", "gaps"),
        ),
        Mistake(
            "the scale is missing",
            "Scale says how many nats of certainty a unit of reward brings. Without it these people would be less, or more, sure than they are.",
            "02, How much do people agree here?",
            edit=("scale * gaps", "gaps"),
        ),
        Mistake(
            "the chance at the mean gap, not the mean chance",
            "The sigmoid is curved: a mean of chances is not the chance of the mean. First each pair its chance, then the mean.",
            "02, How much do people agree here?",
            edit=("gaps.abs()", "gaps.abs().mean()"),
        ),
        Mistake(
            "how often two people agree",
            "Two people agree with probability p times p plus (1 - p) times (1 - p). The true reward makes no errors of its own: it is right with probability p.",
            "02, Where real pairs come from",
            edit=("label.mean()", "(label**2 + (1 - label) ** 2).mean()"),
        ),
        Mistake(
            "a flipped label is taken for a coin toss",
            "A flip turns the label round for certain. It is right where the person was wrong, which is seldom, and not in half of the cases.",
            "02, How much do people agree here?",
            edit=("(1 - person) * flip_rate", "0.5 * flip_rate"),
        ),
    ],
    hints=[
        "Take one pair. With which probability does a person choose the better of its replies? And what are the two ways in which the label can then name the better one?",
        "The label names the better reply if the person chose it and the label was kept, or if the person erred and the label was flipped.",
        "p = sigmoid(scale * |gap|); then p (1 - flip_rate) + (1 - p) flip_rate, and the mean over the pairs.",
    ],
)  # fmt: skip


# ---- 02.5


def choose_filter(unfiltered, filters, *, times, least_refused):
    """Which filter to use. `filters`: a list of {"name", "gold": list of floats, "unsafe_refused"}.

    Returns {"filter": name of the best admissible one or None, "lows": {name: lower end}}.
    """
    means, lows, admissible = {}, {}, []
    for each in filters:
        differences = np.array(each["gold"]) - np.array(unfiltered)
        error = differences.std(ddof=1) / math.sqrt(len(differences))
        mean = differences.mean()
        means[each["name"]], lows[each["name"]] = mean, mean - times * error
        if lows[each["name"]] > 0 and each["unsafe_refused"] >= least_refused:
            admissible.append(each["name"])
    return {"filter": max(admissible, key=means.get, default=None), "lows": lows}


def choose_filter_without_numpy(unfiltered, filters, *, times, least_refused):
    lows, best, most = {}, None, 0.0
    for each in filters:
        gains = [after - before for after, before in zip(each["gold"], unfiltered)]
        count, mean = len(gains), sum(gains) / len(gains)
        variance = sum((gain - mean) ** 2 for gain in gains) / (count - 1)
        low = lows[each["name"]] = mean - times * (variance / count) ** 0.5
        if low > 0 and each["unsafe_refused"] >= least_refused and mean > most:
            best, most = each["name"], mean
    return {"filter": best, "lows": lows}


LEAST_REFUSED = 0.4
NAMES = ("different words", "different meaning", "other length")


def of_seeds(draw: Draw, count: int) -> list[float]:
    """Gold rewards without a filter: the seeds differ widely."""
    steps = draw.sample(range(count), count)
    return [round(-0.4 + 0.8 * step / (count - 1) + draw.number(-0.02, 0.02), 2) for step in steps]


def a_filter(
    draw: Draw, name: str, unfiltered: list[float], gain: float, spread: float, refused="kept", in_order=False
) -> dict:
    """A filter that gains `gain` in the mean, with differences from `gain - spread` to `gain + spread`."""
    count = len(unfiltered)
    steps = draw.sample(range(count), count)
    if in_order:  # the seed that is best without a filter gains most
        steps = [sorted(unfiltered).index(before) for before in unfiltered]
    gains = [gain + spread * (2 * step / (count - 1) - 1) for step in steps]
    return {
        "name": name,
        "gold": [round(before + more, 3) for before, more in zip(unfiltered, gains)],
        "unsafe_refused": draw.number(0.45, 0.7) if refused == "kept" else draw.number(0.05, 0.35),
    }


def a_choice(draw: Draw, unfiltered: list[float], filters: list[dict]) -> dict:
    return {
        "unfiltered": unfiltered,
        "filters": filters,
        "times": draw.number(2.2, 3.2),
        "least_refused": LEAST_REFUSED,
    }


def one_that_helps(draw: Draw):
    for count in (3, 5):
        unfiltered = of_seeds(draw, count)
        yield a_choice(
            draw, unfiltered, [a_filter(draw, NAMES[0], unfiltered, draw.number(0.15, 0.2), draw.number(0.03, 0.05))]
        )


def not_shown_to_help(draw: Draw):
    unfiltered = of_seeds(draw, 5)
    yield a_choice(
        draw, unfiltered, [a_filter(draw, NAMES[1], unfiltered, draw.number(0.04, 0.08), draw.number(0.25, 0.3))]
    )
    yield a_choice(
        draw, unfiltered, [a_filter(draw, NAMES[2], unfiltered, draw.number(-0.2, -0.15), draw.number(0.03, 0.05))]
    )


def changes_nothing(draw: Draw):
    unfiltered = of_seeds(draw, 3)
    nothing = {"name": NAMES[2], "gold": list(unfiltered), "unsafe_refused": draw.number(0.45, 0.7)}
    yield a_choice(draw, unfiltered, [nothing])


def refusals_lost(draw: Draw):
    unfiltered = of_seeds(draw, 4)
    lost = a_filter(draw, NAMES[1], unfiltered, draw.number(0.25, 0.3), draw.number(0.03, 0.05), "lost")
    yield a_choice(draw, unfiltered, [lost])
    kept = a_filter(draw, NAMES[0], unfiltered, draw.number(0.15, 0.2), draw.number(0.03, 0.05))
    yield a_choice(draw, unfiltered, [lost, kept])


def at_the_limit(draw: Draw):
    unfiltered = of_seeds(draw, 3)
    helps = a_filter(draw, NAMES[0], unfiltered, draw.number(0.15, 0.2), draw.number(0.03, 0.05))
    yield a_choice(draw, unfiltered, [helps | {"unsafe_refused": LEAST_REFUSED}])


def several_help(draw: Draw):
    """All are admissible. The one with the largest mean has neither the most refusals nor, each time, the largest
    lower end, the largest mean in standard errors, or the best single seed."""
    for pairs in (
        [((0.12, 0.15), (0.02, 0.04)), ((0.2, 0.22), (0.17, 0.18))],  # a surer gain that is smaller
        [((0.12, 0.14), (0.09, 0.1)), ((0.16, 0.17), (0.01, 0.02))],  # a smaller gain with a better best seed
        [((0.12, 0.14), (0.01, 0.02)), ((0.27, 0.3), (0.08, 0.1))],  # surer, and yet with a smaller lower end
    ):
        unfiltered, times = of_seeds(draw, 5), draw.number(2.5, 2.9)
        less, more = (
            a_filter(draw, name, unfiltered, draw.number(*gain, 3), draw.number(*spread, 3), in_order=True)
            for name, (gain, spread) in zip((NAMES[0], NAMES[2]), pairs)
        )
        less["unsafe_refused"], more["unsafe_refused"] = draw.number(0.6, 0.7), draw.number(0.45, 0.55)
        for filters in ([less, more], [more, less]):
            yield a_choice(draw, unfiltered, filters) | {"times": times}


CHOOSE_FILTER = Task(
    id="02.5",
    title="To filter or not",
    kind="choose the method",
    points=3,
    difficulty="hard",
    minutes=15,
    reference=choose_filter,
    also_correct=[choose_filter_without_numpy],
    properties=[
        Property("a filter whose whole interval lies above 0 is used", one_that_helps),
        Property("a filter that is not shown to help is not used, whatever its mean", not_shown_to_help),
        Property("a filter that changes nothing is not used", changes_nothing),
        Property("a filter that costs too many refusals is not used, however much it gains", refusals_lost),
        Property("a share of refusals that lies on the limit is enough", at_the_limit),
        Property("of several admissible filters the one with the largest mean difference is used", several_help),
    ],
    mistakes=[
        Mistake(
            "the mean alone decides",
            "A few seeds often have a mean above 0 by luck. The interval says whether luck explains it: it must lie above 0 as a whole.",
            "01, What SFT forgets",
            edit=("if lows[each[\"name\"]] > 0", "if mean > 0"),
        ),
        Mistake(
            "the upper end of the interval decides",
            "An upper end above 0 says that the filter may help. To be shown to help, the lower end must lie above 0.",
            "01, What SFT forgets",
            edit=("mean - times * error", "mean + times * error"),
        ),
        Mistake(
            "the seeds are not paired",
            "Seeds differ from one another far more than filters do. Both runs of a seed share its luck, and it falls out of their difference.",
            "06, Is there an ordering?",
            edit=("differences.std(ddof=1) / math.sqrt(len(differences))", "math.sqrt((np.var(each[\"gold\"], ddof=1) + np.var(unfiltered, ddof=1)) / len(differences))"),
        ),
        Mistake(
            "the standard deviation, not the standard error",
            "The standard deviation says how far one seed strays from the mean. The standard error says how far the mean of all n would stray if everything were run again: the seeds' luck cancels in part, and it is smaller by the root of n.",
            "06, Is there an ordering?",
            edit=(" / math.sqrt(len(differences))", ""),
        ),
        Mistake(
            "divided by the number of seeds, not by its root",
            "Variances add up: the sum of n seeds strays by the root of n standard deviations, so their mean strays by one standard deviation over the root of n. Four times as many seeds only halve it.",
            "03, Way two: climb",
            edit=("math.sqrt(len(differences))", "len(differences)"),
        ),
        Mistake(
            "the standard deviation divides by n",
            "The mean was made of the same few seeds and lies in their middle, so their distances from it come out too small. Dividing by n - 1 makes up for it: with three seeds that is a factor of 1.2.",
            "06, Is there an ordering?",
            edit=("ddof=1", "ddof=0"),
        ),
        Mistake(
            "one standard error, not `times` of them",
            "With many seeds one standard error to each side holds the true mean in about two cases of three, with few in fewer still. How many are asked for is given.",
            "06, Is there an ordering?",
            edit=("times * error", "error"),
        ),
        Mistake(
            "refusals are not looked at",
            "A filter decides what the data are about. One that throws out the refusals can raise the mean and unteach them.",
            "02, Should pairs be filtered?",
            edit=(" and each[\"unsafe_refused\"] >= least_refused", ""),
        ),
        Mistake(
            "the difference is turned round",
            "Filtered minus unfiltered: above 0 means that the filter helps.",
            "02, Should pairs be filtered?",
            edit=("np.array(each[\"gold\"]) - np.array(unfiltered)", "np.array(unfiltered) - np.array(each[\"gold\"])"),
        ),
        Mistake(
            "only the filter with the largest mean is looked at",
            "If the best by its mean is not admissible, the next one may be. First the conditions, then the largest mean.",
            "02, Should pairs be filtered?",
            edit=("max(admissible, key=means.get, default=None)", "next((name for name in [max(means, key=means.get)] if name in admissible), None)"),
        ),
        Mistake(
            "the first admissible filter is used",
            "Compare all admissible filters before you choose.",
            "02, Should pairs be filtered?",
            edit=("max(admissible, key=means.get, default=None)", "(admissible + [None])[0]"),
        ),
        Mistake(
            "the largest lower end decides",
            "The lower end has said already whether a filter is shown to help. Among those that are, it prefers a small gain that is known well to a larger one that is known less well.",
            "02, Should pairs be filtered?",
            edit=("key=means.get", "key=lows.get"),
        ),
        Mistake(
            "the surest gain decides",
            "The mean in standard errors says how sure it is that a filter helps at all, not by how much. That question is settled before the filters are compared.",
            "02, Should pairs be filtered?",
            edit=("key=means.get", "key=lambda name: means[name] / (means[name] - lows[name])"),
        ),
        Mistake(
            "the best single seed decides",
            "One seed's difference holds that seed's luck, and the best of several holds the most (as the upper end of an interval does). What another seed may expect is the mean.",
            "02, Should pairs be filtered?",
            edit=("key=means.get", 'key=lambda name: max(np.array(next(each["gold"] for each in filters if each["name"] == name)) - np.array(unfiltered))'),
        ),
        Mistake(
            "the most refusals decide",
            "Enough refusals are a condition. Among the filters that meet it, and are shown to help, the largest mean difference decides.",
            "02, Should pairs be filtered?",
            edit=("key=means.get", 'key=lambda name: next(each["unsafe_refused"] for each in filters if each["name"] == name)'),
        ),
        Mistake(
            "the interval is not looked at",
            "To be used a filter must be shown to help: the lower end of its interval must lie above 0. Enough refusals alone say nothing of the reward.",
            "01, What SFT forgets",
            edit=('lows[each["name"]] > 0 and ', ""),
        ),
        Mistake(
            "a share of refusals on the limit is too little",
            "`least_refused` is the least that is accepted, so a share that lies on it is enough.",
            "02, Should pairs be filtered?",
            edit=('each["unsafe_refused"] >= least_refused', 'each["unsafe_refused"] > least_refused'),
        ),
    ],
    hints=[
        "First one list of differences for each filter, seed by seed: filtered minus unfiltered. All else is made of these.",
        "The lower end is their mean minus `times` standard errors, and a standard error is the standard deviation (dividing by n - 1) over the root of n.",
        "Admissible: lower end above 0, and unsafe_refused at least least_refused. Among these take the largest mean difference, or None.",
    ],
)  # fmt: skip


TASKS = [FIRST_OVER_OTHERS, READ_REWARDS, MARGIN_LOSS, CEILING, CHOOSE_FILTER]
