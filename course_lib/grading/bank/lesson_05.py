"""Tasks of lesson 05, how DPO fails."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from course_lib.grading.task import Draw, Mistake, Property, Task

# ---- 05.1


def gold_lead(extra_tokens, chance, *, nats_per_token, scale):
    """How much more gold reward the shorter reply needs to be chosen with this chance."""
    wanted = math.log(chance / (1 - chance))
    for_length = nats_per_token * extra_tokens
    return (wanted + for_length) / scale


def gold_lead_by_bisection(extra, p, *, nats_per_token, scale):
    low, high = -100.0, 100.0
    for _ in range(80):
        lead = (low + high) / 2
        found = 1 / (1 + math.exp(-max(min(scale * lead - nats_per_token * extra, 500), -500)))
        low, high = (lead, high) if found < p else (low, lead)
    return lead


def even_chance(draw: Draw):
    for _ in range(2):
        yield {
            "extra_tokens": draw.randint(3, 12),
            "chance": 0.5,
            "nats_per_token": draw.number(0.1, 0.6),
            "scale": draw.number(2.0, 5.0),
        }


def no_liking(draw: Draw):
    for low in (0.1, 0.7):
        yield {
            "extra_tokens": draw.randint(3, 12),
            "chance": draw.number(low, low + 0.2),
            "nats_per_token": 0.0,
            "scale": draw.number(2.0, 5.0),
        }


def any_replies(draw: Draw):
    for low in (0.1, 0.6, 0.85):
        for scale in (0.4, 3.0):
            yield {
                "extra_tokens": draw.randint(2, 12),
                "chance": draw.number(low, low + 0.1),
                "nats_per_token": draw.number(0.1, 0.6),
                "scale": draw.number(scale, 1.5 * scale),
            }


LEAD = Task(
    id="05.1",
    title="What five tokens are worth",
    kind="calculate",
    points=1,
    difficulty="easy",
    minutes=5,
    reference=gold_lead,
    also_correct=[gold_lead_by_bisection],
    properties=[
        Property("for an even chance the lead just makes up for the length", even_chance),
        Property("if tokens count for nothing, quality alone makes the chance", no_liking),
        Property("any pair of replies gets the right lead", any_replies),
    ],
    mistakes=[
        Mistake(
            "the scale is forgotten",
            "What is needed has been counted in nats of log-odds. `scale` nats are one unit of gold reward, so divide by it.",
            "04, The data: one prompt, two replies, one preference",
            edit=(") / scale", ")"),
        ),
        Mistake(
            "the scale multiplies where it divides",
            "Annotators who look hard at quality (a large scale) need a smaller lead, not a larger one.",
            "04, The data: one prompt, two replies, one preference",
            edit=(") / scale", ") * scale"),
        ),
        Mistake(
            "the chance is not looked at",
            "Making up for the length leads to an even chance only. A chance above one half needs log-odds on top of that.",
            "05, Mistake 5: labels that lean long",
            edit=("(wanted + for_length)", "for_length"),
        ),
        Mistake(
            "the longer reply's chance",
            "Asked for is the chance that the *shorter* reply is chosen: chance / (1 - chance) are its odds.",
            "05, Mistake 5: labels that lean long",
            edit=("chance / (1 - chance)", "(1 - chance) / chance"),
        ),
        Mistake(
            "the odds without their logarithm",
            "A sigmoid is undone by the log-odds. Odds multiply, and only their logarithm can be added to nats.",
            "05, Mistake 5: labels that lean long",
            edit=("math.log(chance / (1 - chance))", "chance / (1 - chance)"),
        ),
        Mistake(
            "the logarithm of the chance, not of its odds",
            "sigmoid(z) = p means z = ln(p / (1 - p)). The logarithm of p alone is never above 0.",
            "05, Mistake 5: labels that lean long",
            edit=("math.log(chance / (1 - chance))", "math.log(chance)"),
        ),
        Mistake(
            "the shorter reply is given the bonus",
            "These annotators add nats for each token, so length speaks for the longer reply: the shorter one needs that much more.",
            "05, Mistake 5: labels that lean long",
            edit=("wanted + for_length", "wanted - for_length"),
        ),
        Mistake(
            "the length is counted once, whatever it is",
            "Every token adds its nats: five tokens more are worth five times as much as one.",
            "05, Mistake 5: labels that lean long",
            edit=("nats_per_token * extra_tokens", "nats_per_token"),
        ),
        Mistake(
            "only the log-odds are divided by the scale",
            "What has to be made up for is in nats too: both terms together are scale * lead, so both are divided.",
            "05, Mistake 5: labels that lean long",
            edit=("(wanted + for_length) / scale", "wanted / scale + for_length"),
        ),
        Mistake(
            "only what makes up for the length is divided by the scale",
            "The log-odds of the chance are nats as well: both terms together are scale * lead, so both are divided.",
            "05, Mistake 5: labels that lean long",
            edit=("(wanted + for_length) / scale", "wanted + for_length / scale"),
        ),
    ],
    hints=[
        "Write down the log-odds of the shorter reply: what does its lead in gold reward add, and what does its length take away?",
        "The log-odds are scale * lead - nats_per_token * extra_tokens. Which log-odds does the chance ask for?",
        "Set the log-odds equal to ln(chance / (1 - chance)) and solve for the lead.",
    ],
)  # fmt: skip


# ---- 05.2


def first_step(policy_logps, ref_table, rows, *, beta):
    """What the log says of one step: {"loss", "margin", "in_order"}, each a number.

    policy_logps (2B,): the chosen replies' log-probabilities, then the rejected ones'.
    ref_table (N, 2): the reference's, of the whole data set, chosen in column 0.
    rows (B,): which pairs the batch holds.
    """
    policy_chosen, policy_rejected = policy_logps.chunk(2)
    ref_chosen, ref_rejected = ref_table[rows].unbind(-1)
    margins = beta * ((policy_chosen - ref_chosen) - (policy_rejected - ref_rejected))
    losses = -F.logsigmoid(margins)
    in_order = (margins > 0).float()
    return {"loss": losses.mean(), "margin": margins.mean(), "in_order": in_order.mean()}


def first_step_pair_by_pair(policy, table, rows, *, beta):
    count, margins = len(rows), []
    for i, row in enumerate(rows.tolist()):
        chosen, rejected = policy[i] - table[row, 0], policy[count + i] - table[row, 1]
        margins.append(beta * float(chosen - rejected))
    losses = [math.log1p(math.exp(-m)) for m in margins]
    return {
        "loss": sum(losses) / count,
        "margin": sum(margins) / count,
        "in_order": sum(m > 0 for m in margins) / count,
    }


def quarters(draw: Draw, *shape: int, low: int, high: int) -> torch.Tensor:
    """Distinct multiples of a quarter: their sums are exact in whatever order they are taken, so that a margin of 0 is 0."""
    return torch.tensor(draw.sample(range(4 * low, 4 * high + 1), math.prod(shape))).reshape(shape) / 4


def shuffled_batch(draw: Draw, count: int, same: bool, tied: bool = False) -> dict:
    table = quarters(draw, count + 2, 2, low=-12, high=-3)
    table[:, 1] -= 4.0  # the models find most chosen replies likelier, as trained ones do
    rows = torch.tensor(draw.sample(range(2, count + 2), count))
    start = table[rows].T.reshape(-1)
    policy = start if same else start + quarters(draw, 2 * count, low=-2, high=2)
    if tied:
        policy = torch.where(torch.arange(2 * count) % count == 0, start, policy)
    return {"policy_logps": policy, "ref_table": table, "rows": rows, "beta": draw.number(0.1, 0.4)}


def before_training(draw: Draw):
    return [shuffled_batch(draw, count, same=True) for count in (1, 2, 3)]


def one_pair_moved(draw: Draw):
    return [shuffled_batch(draw, 1, same=False) for _ in range(3)]


def some_pairs_moved(draw: Draw):
    return [shuffled_batch(draw, count, same=False) for count in (2, 3, 4)]


def one_pair_unmoved(draw: Draw):
    return [shuffled_batch(draw, 3, same=False, tied=True)]


FIRST_STEP = Task(
    id="05.2",
    title="A first step that has learnt already",
    kind="fix the bug",
    points=2,
    difficulty="medium",
    minutes=10,
    reference=first_step,
    also_correct=[first_step_pair_by_pair],
    properties=[
        Property("before training the loss is ln 2, the margin 0, and no pair is in order", before_training),
        Property("one pair that has moved gets its loss and margin", one_pair_moved),
        Property("several pairs get means", some_pairs_moved),
        Property("a pair whose margin is 0 is not in order", one_pair_unmoved),
    ],
    mistakes=[
        Mistake(
            "the reference's replies are swapped",
            "Each reply is compared with itself under the reference. Swapped, the first margin is twice beta times what the two replies differ by, and the first loss is not ln 2.",
            "05, Mistake 4: a reference that is not the starting policy",
            edit=("ref_chosen, ref_rejected = ref_table", "ref_rejected, ref_chosen = ref_table"),
        ),
        Mistake(
            "the reference is not there, or cancels",
            "If both replies are compared with one and the same number, or with none, the policy's own difference of the two is left, and that is not 0 at the start.",
            "05, Mistake 4: a reference that is not the starting policy",
            edit=("ref_chosen, ref_rejected = ref_table[rows].unbind(-1)", "ref_chosen = ref_rejected = ref_table[rows][:, 1]"),
        ),
        Mistake(
            "the batch's rows are not looked up",
            "Batches are shuffled and the table is not: the first B rows of the table belong to other pairs.",
            "04, The trainer",
            edit=("ref_table[rows]", "ref_table[:len(rows)]"),
        ),
        Mistake(
            "the policy's halves are swapped",
            "The chosen replies stand first in the batch.",
            "04, The loop",
            edit=("policy_chosen, policy_rejected = policy_logps", "policy_rejected, policy_chosen = policy_logps"),
        ),
        Mistake(
            "neighbouring entries are taken for pairs",
            "All chosen replies come first, then all rejected ones: entry i and entry B + i are a pair.",
            "04, The loop",
            edit=("policy_logps.chunk(2)", "policy_logps.reshape(-1, 2).unbind(-1)"),
        ),
        Mistake(
            "beta is missing",
            "A margin is in units of reward: beta times the difference of log-ratios.",
            "04, From lesson 03 to a loss",
            edit=("beta * ((policy_chosen", "((policy_chosen"),
        ),
        Mistake(
            "the margin is logged in nats",
            "The loss has beta in its margin, and the log is to show that same margin. Without beta the two do not fit together.",
            "04, From lesson 03 to a loss",
            edit=('"margin": margins.mean()', '"margin": margins.mean() / beta'),
        ),
        Mistake(
            "a margin of 0 counts as in order",
            "Then a run that has not moved starts with every pair in order, and the log cannot tell it from one that has learnt them all.",
            "04, Log-ratios on held-out pairs",
            edit=("margins > 0", "margins >= 0"),
        ),
        Mistake(
            "the order is asked of the policy alone",
            "The log counts the pairs whose log-ratio favours the chosen reply: the reference belongs to it, as it does to the margin.",
            "04, Log-ratios on held-out pairs",
            edit=("(margins > 0)", "(policy_chosen > policy_rejected)"),
        ),
        Mistake(
            "the loss is a sum",
            "With a sum the first loss is B times ln 2, and the step grows with the batch.",
            "04, The loop",
            edit=("losses.mean()", "losses.sum()"),
        ),
    ],
    hints=[
        "Give it a policy that is the reference. Which of the four numbers of a pair must cancel which?",
        "Column 0 of the table belongs to the chosen replies. Which name does it get here?",
    ],
)  # fmt: skip


# ---- 05.3


def clipped_dpo_loss(h, *, beta, most):
    """DPO's loss with each margin clipped at `most`, the mean over the pairs. h: (B,), in nats."""
    margins = beta * h
    clipped = margins.clamp(max=most)
    return -F.logsigmoid(clipped).mean()


def clipped_by_floor(h, *, beta, most):
    floor = math.log1p(math.exp(-most))
    losses = F.softplus(-beta * h)
    return torch.stack([one if one > floor else one.detach() * 0 + floor for one in losses]).mean()


def left_out(h, *, beta, most):
    margins = beta * h
    return -F.logsigmoid(margins[margins < most]).mean()


def below_the_limit(draw: Draw):
    for _ in range(2):
        yield {"h": draw.numbers(2, low=-4.0, high=2.0), "beta": draw.number(0.2, 0.5), "most": draw.number(3.0, 5.0)}


def above_the_limit(draw: Draw):
    yield {"h": draw.numbers(1, low=15.0, high=30.0), "beta": draw.number(0.3, 0.6), "most": draw.number(1.0, 3.0)}
    yield {"h": draw.distinct(2, low=15.0, high=30.0), "beta": draw.number(0.3, 0.6), "most": draw.number(1.0, 3.0)}


def far_below(draw: Draw):
    yield {"h": draw.numbers(1, low=-40.0, high=-25.0), "beta": draw.number(0.3, 0.6), "most": draw.number(1.0, 3.0)}


def both_sides(draw: Draw):
    for _ in range(3):
        beta, most = draw.number(0.3, 0.6), draw.number(1.0, 3.0)
        near = most / beta
        sides = [
            draw.number(0.5, 0.8) * near,
            draw.number(1.3, 3.0) * near,
            -draw.number(2.0, 4.0) * near,
            draw.number(-2.0, 0.4),
        ]
        yield {"h": torch.tensor([round(x, 1) for x in draw.sample(sides, 4)]), "beta": beta, "most": most}


CLIPPED = Task(
    id="05.3",
    title="A margin that is allowed to be enough",
    kind="implement",
    points=2,
    difficulty="medium",
    minutes=10,
    reference=clipped_dpo_loss,
    also_correct=[clipped_by_floor],
    gradient_of=("h",),
    properties=[
        Property("below the limit it is DPO's loss", below_the_limit),
        Property("a pair above the limit has a loss, and no pull", above_the_limit),
        Property("a pair that is badly wrong pulls as under DPO", far_below),
        Property("pairs on both sides of the limit get the mean", both_sides),
    ],
    mistakes=[
        Mistake(
            "nothing is clipped",
            "That is DPO's loss: it goes on pulling, however large the margin is.",
            "05, Margin explosion",
            edit=(".clamp(max=most)", ""),
        ),
        Mistake(
            "the margin is clipped on both sides",
            "A pair that is badly wrong then has no gradient, and is never learnt. Only the upper end explodes.",
            "05, Margin explosion",
            edit=(".clamp(max=most)", ".clamp(-most, most)"),
        ),
        Mistake(
            "the margin is clipped from below",
            "That lifts small margins to the limit, so that pairs which are not learnt have no pull, and lets the large ones grow on.",
            "05, Margin explosion",
            edit=(".clamp(max=most)", ".clamp(min=most)"),
        ),
        Mistake(
            "h is clipped, before beta",
            "The limit is one of the margin, beta * h. If h is clipped at `most` nats, the margin ends at beta * most.",
            "05, Margin explosion",
            edit=[("margins = beta * h", "margins = h"), ("clipped = margins", "clipped = beta * margins")],
        ),
        Mistake(
            "beta is missing",
            "Without beta the loss is that of beta = 1, and the limit one of h.",
            "05, Margin explosion",
            edit=("beta * h", "h"),
        ),
        Mistake(
            "the loss is clipped, not the margin",
            "A limit on the loss silences the pairs that are badly wrong, whose losses are large, and leaves the large margins alone.",
            "05, Margin explosion",
            edit=("return -F.logsigmoid(clipped).mean()", "return (-F.logsigmoid(margins)).clamp(max=most).mean()"),
        ),
        Mistake(
            "pairs above the limit have no loss",
            "A clipped margin still has the loss -ln sigmoid(most). Setting it to 0 makes the loss jump at the limit, though its gradients stay right.",
            "05, Margin explosion",
            edit=("return -F.logsigmoid(clipped).mean()", "return -(F.logsigmoid(margins) * (margins < most)).mean()"),
        ),
        Mistake(
            "pairs above the limit are left out of the mean",
            "The mean is over all pairs. Over the others alone, each of these pulls the harder the fewer they are, and with none left it is NaN.",
            "05, Margin explosion",
            function=left_out,
        ),
        Mistake(
            "the mean margin is clipped",
            "A batch is no pair: one large margin would hide the pairs that are still wrong. Clip each margin, then take the mean of the losses.",
            "05, Margin explosion",
            edit=[("margins = beta * h", "margins = (beta * h).mean()"), ("F.logsigmoid(clipped).mean()", "F.logsigmoid(clipped)")],
        ),
        Mistake(
            "the sum over the batch, not the mean",
            "With a sum the step grows with the number of pairs.",
            "04, The loop",
            edit=(".mean()", ".sum()"),
        ),
    ],
    hints=[
        "Which pairs should stop pulling, and which must not? Only one end of the margin needs a limit.",
        "Clip beta * h from above, pair by pair, and hand what is left to DPO's loss. A tensor's `clamp` takes `max=` alone.",
    ],
)  # fmt: skip


# ---- 05.4


def diagnose(log, *, jump, learnt, grown, drift, fair_tokens, longer):
    """What went wrong with a run: {"cause", "evidence"}. `log`: a dict of lists, by column."""
    steps, margins, chosen = log["step"], log["margin"], log["chosen"]
    falls = [before - after for before, after in zip(chosen, chosen[1:])]
    in_order = [row for row, share in enumerate(log["in_order"]) if share >= learnt]
    found = {}
    if abs(log["loss"][0] - math.log(2)) > 0.05:
        found["reference"] = log["loss"][0]
    if max(falls) > jump:
        found["rate"] = steps[falls.index(max(falls)) + 1]
    if in_order and margins[-1] - margins[in_order[0]] > grown:
        found["explosion"] = steps[in_order[0]]
    lost = chosen[0] - chosen[-1]
    if lost > drift:
        found["displacement"] = lost
    too_long = log["tokens"][-1] - fair_tokens
    if too_long > longer:
        found["length"] = too_long
    for cause in ("reference", "rate", "explosion", "displacement", "length"):
        if cause in found:
            return {"cause": cause, "evidence": found[cause]}
    return {"cause": None, "evidence": None}


def diagnose_with_numpy(log, *, jump, learnt, grown, drift, fair_tokens, longer):
    column = {name: np.array(values, dtype=float) for name, values in log.items()}

    def say(cause, evidence):
        return {"cause": cause, "evidence": evidence}

    if not math.log(2) - 0.05 <= column["loss"][0] <= math.log(2) + 0.05:
        return say("reference", column["loss"][0])
    steepest = np.diff(column["chosen"]).argmin() + 1
    if column["chosen"][steepest] < column["chosen"][steepest - 1] - jump:
        return say("rate", column["step"][steepest])
    if (column["in_order"] >= learnt).any():
        first = (column["in_order"] >= learnt).argmax()
        if column["margin"][-1] > column["margin"][first] + grown:
            return say("explosion", column["step"][first])
    lost, excess = column["chosen"][0] - column["chosen"][-1], column["tokens"][-1] - fair_tokens
    if lost > drift:
        return say("displacement", lost)
    return say("length", excess) if excess > longer else say(None, None)


ROWS = 6


def limits(draw: Draw) -> dict:
    return {
        "jump": draw.randint(20, 24) / 2,
        "learnt": draw.choice([0.85, 0.9, 0.95]),
        "grown": draw.randint(2, 4) / 2,
        "drift": draw.randint(7, 9) / 2,
        "fair_tokens": draw.randint(13, 17) / 2,
        "longer": draw.randint(6, 8) / 2,
    }


def flat(draw: Draw, level: float, swing: float) -> list[float]:
    return [round(level + draw.uniform(-swing, swing), 1) for _ in range(ROWS)]


def line(draw: Draw, start: float, end: float, digits: int = 1) -> list[float]:
    """From one number to the other in nearly even steps."""
    inner = [start + (end - start) * (row + draw.uniform(-0.15, 0.15)) / (ROWS - 1) for row in range(1, ROWS - 1)]
    return [round(value, digits) for value in (start, *inner, end)]


def shares(draw: Draw, learnt: float, row: int = ROWS) -> list[float]:
    """Pairs in order: learnt from this row on."""
    before = [draw.number(0.6, learnt - 0.05) for _ in range(row - 1)]
    return [0.0, *before, *(draw.number(learnt + 0.02, 1.0) for _ in range(ROWS - row))]


def healthy(draw: Draw, given: dict, **changes) -> dict:
    every, start = draw.choice([5, 10, 20]), draw.number(13, 16, 1)
    log = {
        "step": [1, *range(every, ROWS * every, every)],
        "loss": line(draw, 0.69, draw.number(0.5, 0.6), 2),
        "margin": line(draw, 0.0, draw.number(0.2, 0.4), 2),
        "in_order": shares(draw, given["learnt"]),
        "chosen": flat(draw, draw.number(-12, -8, 1), 0.8),
        "tokens": line(draw, start, given["fair_tokens"] + draw.number(-0.8, 0.8, 1)),
    }
    return log | changes


def short_at_first(draw: Draw, given: dict) -> dict:
    return healthy(draw, given, tokens=line(draw, 2.0, given["fair_tokens"] + draw.number(0.1, 0.8, 1)))


def learnt_and_stopped(draw: Draw, given: dict) -> dict:
    level = given["grown"] * draw.number(1.6, 2.0)
    margins = [0.0, round(level / 2, 2), *(round(level + draw.uniform(-0.1, 0.1), 2) for _ in range(ROWS - 2))]
    return healthy(draw, given, in_order=shares(draw, given["learnt"], 2), margin=margins)


def learnt_with_small_margins(draw: Draw, given: dict) -> dict:
    margins = line(draw, 0.0, given["grown"] * 0.4, 2)
    return healthy(draw, given, in_order=shares(draw, given["learnt"], 2), margin=margins)


def foreign(draw: Draw, given: dict, first: float, then: float) -> dict:
    """What a reference that is not the starting policy changes in a log; the first margin fits the first loss."""
    margin = round(-math.log(math.expm1(first)), 2)
    in_order = [draw.number(0.3, 0.6), *shares(draw, given["learnt"])[1:]]
    return {"loss": line(draw, first, then, 2), "margin": line(draw, margin, margin + 0.3, 2), "in_order": in_order}


def first_loss_above(draw: Draw, given: dict) -> dict:
    return healthy(draw, given, **foreign(draw, given, draw.number(1.0, 1.6), 0.69))


def first_loss_below(draw: Draw, given: dict) -> dict:
    return displaced(draw, given) | foreign(draw, given, draw.number(0.4, 0.55), 0.3)


def rate_too_high(draw: Draw, given: dict) -> dict:
    fall, row = draw.number(1.5, 2.5, 1) * given["jump"], draw.randint(1, ROWS - 2)
    before = flat(draw, -9.0, 0.8)
    after = [round(before[0] - fall - draw.uniform(0, 4), 1) for _ in range(ROWS)]
    margins = [0.0, *(draw.number(0.6, 1.2) for _ in range(ROWS - 1))]
    tokens = line(draw, 14.0, draw.number(20, 30, 1))
    return healthy(draw, given, chosen=before[:row] + after[row:], margin=margins, tokens=tokens)


def falling_twice(*parts: float):
    """Two rows that fall by so many times the jump."""

    def make(draw: Draw, given: dict) -> dict:
        first, second = (round(part * given["jump"], 1) for part in parts)
        level = flat(draw, -9.0, 0.3)
        chosen = [round(each - first * (row > 0) - second * (row > 2), 1) for row, each in enumerate(level)]
        return rate_too_high(draw, given) | {"chosen": chosen}

    return make


def rising(draw: Draw, given: dict) -> dict:
    row, before = draw.randint(1, ROWS - 2), flat(draw, -9.0 - 1.6 * given["jump"], 0.8)
    return healthy(draw, given, chosen=before[:row] + flat(draw, -9.0, 0.8)[row:])


def learnt_then_wavering(draw: Draw, given: dict, *parts: float) -> dict:
    """Learnt from row 1 on; from there the margin is so many times its limit above that row's."""
    level = given["grown"] * draw.number(0.9, 1.1)
    margins = [0.0, *(round(level + part * given["grown"], 2) for part in parts)]
    return healthy(draw, given, in_order=shares(draw, given["learnt"], 1), margin=margins)


def dipping(draw: Draw, given: dict) -> dict:
    return learnt_then_wavering(draw, given, 0.0, -0.4, -0.8, 0.1, draw.number(0.5, 0.7))


def peaking(draw: Draw, given: dict) -> dict:
    return learnt_then_wavering(draw, given, 0.0, 0.8, draw.number(1.5, 1.8), 1.0, 0.4)


def recovering(draw: Draw, given: dict) -> dict:
    """Chosen replies and lengths that leave their limits on the way, and come back."""
    start, fair = draw.number(-12, -8, 1), given["fair_tokens"]
    chosen = [round(start - part * given["drift"], 1) for part in (0.0, 0.9, draw.number(1.4, 1.8), 1.1, 0.6, 0.4)]
    tokens = [round(fair + part * given["longer"], 1) for part in (0.3, 0.9, draw.number(1.4, 1.8), 1.0, 0.5, 0.2)]
    return healthy(draw, given, chosen=chosen, tokens=tokens)


def rising_first(draw: Draw, given: dict) -> dict:
    start = draw.number(-12, -8, 1)
    parts = (0.0, 0.6, draw.number(0.9, 1.2), 0.3, -0.2, -0.5)
    return healthy(draw, given, chosen=[round(start + part * given["drift"], 1) for part in parts])


def unlearnt_later(draw: Draw, given: dict) -> dict:
    """An explosion in which the share in order falls again."""
    log = exploding(draw, given)
    return log | {"in_order": [*log["in_order"][:-2], draw.number(0.6, given["learnt"] - 0.05), log["in_order"][-1]]}


def exploding(draw: Draw, given: dict, parts=(0.0, 0.4, 1.2, 1.3)) -> dict:
    """After the pairs are learnt the margin grows by so many times its limit, row by row, and by half more than it in the end."""
    row = draw.randint(2, 3)
    level, parts = draw.number(0.5, 0.9), [*parts[: ROWS - row - 1], draw.number(1.4, 1.6)]
    margins = [round(level * n / row, 2) for n in range(row)]
    margins += [round(level + part * given["grown"], 2) for part in parts]
    chosen, loss = line(draw, draw.number(-12, -8, 1), draw.number(-30, -27, 1)), line(draw, 0.69, 0.05, 2)
    return healthy(draw, given, in_order=shares(draw, given["learnt"], row), margin=margins, chosen=chosen, loss=loss)


def growing_late(draw: Draw, given: dict) -> dict:
    return exploding(draw, given, (0.0, 0.2, 0.4, 0.6))


def growing_early(draw: Draw, given: dict) -> dict:
    return exploding(draw, given, (0.0, 0.8, 0.9, 1.0))


def displaced(draw: Draw, given: dict, by: str = "drift") -> dict:
    start = draw.number(-12, -8, 1)
    return healthy(draw, given, chosen=line(draw, start, round(start - draw.number(1.6, 2.2) * given[by], 1)))


def displaced_far(draw: Draw, given: dict) -> dict:
    return displaced(draw, given, "jump")


def displaced_at_the_end(draw: Draw, given: dict) -> dict:
    return healthy(draw, given, chosen=at_the_very_end(draw, draw.number(-12, -8, 1), -given["drift"]))


def as_long_as_at_first(draw: Draw, given: dict) -> dict:
    return healthy(draw, given, tokens=flat(draw, given["fair_tokens"] + draw.number(1.7, 2.0) * given["longer"], 0.8))


def longer_at_the_end(draw: Draw, given: dict) -> dict:
    return healthy(draw, given, tokens=at_the_very_end(draw, given["fair_tokens"], given["longer"]))


def at_the_very_end(draw: Draw, start: float, change: float) -> list[float]:
    """A change that is beyond its limit in the last row alone, and only against the first."""
    return [round(start + part * change, 1) for part in (0.0, 0.5, 0.6, 0.5, 0.7, draw.number(1.3, 1.4))]


def logs(*makers):
    """Cases from functions of (draw, limits) to a log."""

    def cases(draw: Draw):
        for make in makers:
            given = limits(draw)
            yield {"log": make(draw, given)} | given

    return cases


def on_the_limits(draw: Draw):
    given = limits(draw)
    lost, learnt = given["drift"], given["learnt"]
    edge = {
        "chosen": [-10.0, -10.0 + given["jump"] - lost, -10.0 - lost, -9.5, -10.0, -10.0 - lost],
        "tokens": [14.0, 13.5, 12.0, 10.5, 9.0, given["fair_tokens"] + given["longer"]],
        "in_order": [0.0, 0.7, 0.8, learnt, 0.96, 0.96],
        "margin": [0.0, 0.25, 0.5, 0.5, 0.5, 0.5 + given["grown"]],
    }
    yield {"log": healthy(draw, given, **edge)} | given
    yield {"log": healthy(draw, given, **edge | {"margin": [0.0, 0.25, 0.5, 0.5, 0.5, 1.0 + given["grown"]]})} | given


CURVE = Task(
    id="05.4",
    title="Read the log",
    kind="read the curve",
    points=3,
    difficulty="hard",
    minutes=20,
    reference=diagnose,
    also_correct=[diagnose_with_numpy],
    properties=[
        Property("a healthy run has no cause, nor one whose pairs are learnt and whose margin rests",
                 logs(healthy, short_at_first, learnt_and_stopped, learnt_with_small_margins)),
        Property("what comes back within its limit is no cause, nor is a rise of the chosen replies",
                 logs(rising, rising_first, recovering, dipping, peaking)),
        Property("a first loss that is not ln 2, above or below, betrays the reference", logs(first_loss_above, first_loss_below)),
        Property("a rate that is much too high is dated by the deepest fall", logs(rate_too_high, rate_too_high, falling_twice(1.3, 1.9), falling_twice(1.9, 1.3))),
        Property("an explosion is dated by the step at which the pairs were learnt", logs(exploding, growing_late, growing_early, unlearnt_later)),
        Property("displacement is told by the nats that chosen replies lost", logs(displaced, displaced_far, displaced_at_the_end)),
        Property("a lean to length is told by the tokens beyond a run on fair labels", logs(as_long_as_at_first, longer_at_the_end)),
        Property("a number that lies on its limit is no symptom, but a share on its limit is learnt", on_the_limits),
    ],
    mistakes=[
        Mistake(
            "the last loss is compared with ln 2",
            "A loss leaves ln 2 because it learns. Only before the first step are policy and reference the same, so only there must it be ln 2.",
            "05, Mistake 4: a reference that is not the starting policy",
            edit=('abs(log["loss"][0]', 'abs(log["loss"][-1]'),
        ),
        Mistake(
            "only a first loss above ln 2 is suspected",
            "If the policy already ranks the pairs better than the foreign reference does, the first loss is below ln 2. That is wrong too.",
            "05, Mistake 4: a reference that is not the starting policy",
            edit=('abs(log["loss"][0] - math.log(2))', '(log["loss"][0] - math.log(2))'),
        ),
        Mistake(
            "the whole fall is taken for a jump",
            "A rate that is too high loses tens of nats at once. A slow fall of the same size is another illness.",
            "05, Mistake 3: the wrong learning rate",
            edit=("if max(falls) > jump", "if chosen[0] - chosen[-1] > jump"),
        ),
        Mistake(
            "the step before the fall",
            "A fall lies between two rows; asked for is the step of the later one, the first that shows the damage.",
            "05, Mistake 3: the wrong learning rate",
            edit=("falls.index(max(falls)) + 1", "falls.index(max(falls))"),
        ),
        Mistake(
            "the first fall of more than `jump`, not the deepest",
            "Asked for is where the damage was greatest: a later row may have fallen further.",
            "05, Mistake 3: the wrong learning rate",
            edit=("falls.index(max(falls)) + 1", "[fall > jump for fall in falls].index(True) + 1"),
        ),
        Mistake(
            "the last fall of more than `jump`, not the deepest",
            "Asked for is where the damage was greatest: an earlier row may have fallen further.",
            "05, Mistake 3: the wrong learning rate",
            edit=("falls.index(max(falls)) + 1", "max(row for row, fall in enumerate(falls) if fall > jump) + 1"),
        ),
        Mistake(
            "a rise counts as a fall",
            "Take the change with its sign: chosen replies that become likelier at once are no sign of a rate that is too high.",
            "05, Mistake 3: the wrong learning rate",
            edit=("[before - after for", "[abs(before - after) for"),
        ),
        Mistake(
            "the rate is dated by the number of the row, not by the step",
            "The trainer logs every few steps: row 3 is not step 3. The column \"step\" says which it is.",
            "05, Mistake 3: the wrong learning rate",
            edit=("steps[falls.index(max(falls)) + 1]", "falls.index(max(falls)) + 1"),
        ),
        Mistake(
            "the explosion is dated by the number of the row, not by the step",
            "The trainer logs every few steps: row 3 is not step 3. The column \"step\" says which it is.",
            "05, Margin explosion",
            edit=('found["explosion"] = steps[in_order[0]]', 'found["explosion"] = in_order[0]'),
        ),
        Mistake(
            "the number of the row, not the step",
            "The trainer logs every few steps: row 3 is not step 3. The column \"step\" says which it is.",
            "05, Mistake 3: the wrong learning rate",
            edit=("found = {}", "found, steps = {}, range(len(steps))"),
        ),
        Mistake(
            "learnt pairs alone are taken for an explosion",
            "That nearly all training pairs are in order is the aim. It explodes if the margin goes on growing after that.",
            "05, Margin explosion",
            edit=("in_order and margins[-1] - margins[in_order[0]] > grown", "in_order"),
        ),
        Mistake(
            "the margin's growth is counted from the first step",
            "Until the pairs are learnt a margin has to grow. What it gains afterwards is the explosion.",
            "05, Margin explosion",
            edit=("margins[-1] - margins[in_order[0]]", "margins[-1] - margins[0]"),
        ),
        Mistake(
            "the margin may grow from any learnt row",
            "A margin that dips and comes back has not grown. Count from the first row whose pairs are learnt.",
            "05, Margin explosion",
            edit=("if share >= learnt]", "if share >= learnt and margins[-1] - margins[row] > grown]"),
        ),
        Mistake(
            "the margin's growth is counted from its lowest point",
            "A margin that dips and comes back has not grown. Count from the first row whose pairs are learnt.",
            "05, Margin explosion",
            edit=("margins[-1] - margins[in_order[0]]", "margins[-1] - min(margins[row] for row in in_order)"),
        ),
        Mistake(
            "the margin's highest point, not its last",
            "An explosion is a margin that goes on growing. One that rose and came back has a peak, and ends low.",
            "05, Margin explosion",
            edit=("margins[-1] - margins[in_order[0]]", "max(margins) - margins[in_order[0]]"),
        ),
        Mistake(
            "the lowest chosen replies, not the last",
            "What counts is the model that you are left with: chosen replies that fell and came back are not displaced.",
            "05, Likelihood displacement",
            edit=("lost = chosen[0] - chosen[-1]", "lost = chosen[0] - min(chosen)"),
        ),
        Mistake(
            "chosen replies are compared with their best row, not with the first",
            "Displacement is a fall below where the run began. Rising first and falling back is none.",
            "05, Likelihood displacement",
            edit=("lost = chosen[0] - chosen[-1]", "lost = max(chosen) - chosen[-1]"),
        ),
        Mistake(
            "the longest replies of the run, not the last",
            "What counts is the model that you are left with, so take the length in the last row.",
            "05, Mistake 5: labels that lean long",
            edit=('log["tokens"][-1] - fair_tokens', 'max(log["tokens"]) - fair_tokens'),
        ),
        Mistake(
            "falling chosen replies are looked at first",
            "Chosen replies fall under a rate that is too high and in an explosion too. The rarer symptom is the more telling one, so it is asked for first.",
            "05, Likelihood displacement",
            edit=('"reference", "rate", "explosion", "displacement", "length"', '"displacement", "reference", "rate", "explosion", "length"'),
        ),
        Mistake(
            "the length is compared with the first row",
            "Compare with a run on fair labels: there replies get much shorter, so replies that are as long as at the start can be far too long.",
            "05, Mistake 5: labels that lean long",
            edit=('log["tokens"][-1] - fair_tokens', 'log["tokens"][-1] - log["tokens"][0]'),
        ),
    ],
    hints=[
        "Go through the causes in the order of the table, and return at the first that fits. Which column does each ask?",
        "For the rate, make a list of the falls from row to row. For the explosion, find the first row whose pairs are learnt, and compare the last margin with that row's.",
        "The fall number i lies between rows i and i + 1: its step is that of row i + 1.",
    ],
    equivalent={
        "`abs(log['loss'][0] - math.log(2)) > 0.05` -> `abs(log['loss'][0] - math.log(2)) >= 0.05`": "no loss of two digits lies exactly 0.05 from ln 2",
    },
)  # fmt: skip


# ---- 05.5


def length_term(extra_tokens):
    """Whether labels lean to length: {"loss", "alpha", "error"}. extra_tokens: (B,), integers."""
    extra = extra_tokens.double()
    alpha = torch.zeros(())
    for _ in range(50):
        surprise = torch.sigmoid(-alpha * extra)
        slope = (extra * surprise).sum()
        curvature = (extra**2 * surprise * (1 - surprise)).sum()
        alpha = alpha + slope / curvature
    error = 1 / curvature.sqrt()
    return {"loss": "length-dpo" if alpha > 2 * error else "dpo", "alpha": float(alpha), "error": float(error)}


def length_term_by_bisection(extra_tokens):
    extra = [float(x) for x in extra_tokens]
    low, high = -20.0, 20.0

    def chance(alpha, x):
        return 0.5 * (1 + math.tanh(alpha * x / 2))

    for _ in range(60):
        alpha = (low + high) / 2
        rising = sum(x * (1 - chance(alpha, x)) for x in extra) > 0
        low, high = (alpha, high) if rising else (low, alpha)
    error = sum(x * x * chance(alpha, x) * (1 - chance(alpha, x)) for x in extra) ** -0.5
    return {"loss": "length-dpo" if alpha / error > 2 else "dpo", "alpha": alpha, "error": error}


def by_share_of_longer(extra_tokens):
    extra = extra_tokens.double()
    longer, shorter = (extra > 0).sum(), (extra < 0).sum()
    alpha = torch.log(longer / shorter) / extra.abs().mean()
    chance = torch.sigmoid(alpha * extra)
    error = 1 / (extra**2 * chance * (1 - chance)).sum().sqrt()
    return {"loss": "length-dpo" if alpha > 2 * error else "dpo", "alpha": float(alpha), "error": float(error)}


def liking(extra: list[float]) -> tuple[float, float]:
    """Alpha and its error, quickly."""
    alpha = 0.0
    for _ in range(15):
        odds = [1 / (1 + math.exp(max(min(alpha * x, 50), -50))) for x in extra]
        curvature = sum(x * x * p * (1 - p) for x, p in zip(extra, odds, strict=True))
        alpha += sum(x * p for x, p in zip(extra, odds, strict=True)) / curvature
    return alpha, curvature**-0.5


def differences(draw: Draw, count: int, low: float, high: float) -> torch.Tensor:
    """Differences of lengths whose alpha lies between so many of its errors; both longer and shorter replies are chosen."""
    while True:
        sizes = [draw.randint(1, 9) for _ in range(count)]
        share = draw.uniform(0.2, 0.9)
        extra = [size if draw.random() < share else -size for size in sizes]
        if min(extra) < 0 < max(extra) and abs(sum(extra)) < 0.75 * sum(sizes):
            alpha, error = liking(extra)
            if low < alpha / error < high and abs(alpha) > 0.03:
                return torch.tensor(extra)


def as_often_shorter(draw: Draw):
    size = draw.randint(2, 5)
    yield {"extra_tokens": torch.tensor([size, -size])}


def all_alike(draw: Draw):
    size, shorter = draw.randint(2, 5), draw.randint(2, 3)
    yield {"extra_tokens": torch.tensor([size] * (2 * shorter + 1) + [-size] * shorter)}


def steep(draw: Draw):
    """Differences of one token, and labels so sure that alpha is far from 0, above 1 or below -1."""
    for sign in (1, -1):
        yield {"extra_tokens": torch.tensor([sign] * draw.randint(14, 20) + [-sign] * 2)}


def clearly_lean(draw: Draw):
    return [{"extra_tokens": differences(draw, count, 2.2, 2.8)} for count in (20, 20, 30)]


def not_clearly_lean(draw: Draw):
    return [{"extra_tokens": differences(draw, 12, *near)} for near in ((0.4, 0.9), (1.2, 1.8), (1.2, 1.8))]


def lean_to_short(draw: Draw):
    return [{"extra_tokens": differences(draw, 20, -2.9, -2.2)}]


def with_ties(draw: Draw):
    yield {"extra_tokens": torch.cat([differences(draw, 12, 1.2, 1.8), torch.zeros(8, dtype=torch.int64)])}


LENGTH_TERM = Task(
    id="05.5",
    title="Is a length term worth it?",
    kind="choose the method",
    points=3,
    difficulty="hard",
    minutes=20,
    reference=length_term,
    also_correct=[length_term_by_bisection],
    properties=[
        Property("if the longer reply wins as often as the shorter one, alpha is 0", as_often_shorter),
        Property("if all pairs differ by as many tokens, alpha is the log-odds of longer over that number", all_alike),
        Property("alpha may be above 1, or below -1", steep),
        Property("a liking of more than two standard errors calls for length-DPO", clearly_lean),
        Property("one within two standard errors does not", not_clearly_lean),
        Property("a liking for short replies does not either", lean_to_short),
        Property("pairs of equal length change nothing", with_ties),
    ],
    mistakes=[
        Mistake(
            "rejected minus chosen",
            "Alpha says how many nats a token adds to being *chosen*, so the difference is taken that way round. Yours has the wrong sign.",
            "05, Mistake 5: labels that lean long",
            edit=("extra = extra_tokens", "extra = -extra_tokens"),
        ),
        Mistake(
            "only who is longer counts, not by how much",
            "Alpha is a number of nats for each token: a reply that is nine tokens longer says less about it, if it wins, than one that is one token longer.",
            "05, Mistake 5: labels that lean long",
            edit=("extra_tokens.double()", "extra_tokens.double().sign()"),
        ),
        Mistake(
            "log-odds of the longer, divided by the mean difference",
            "That is right if all pairs differ by as many tokens. Else the likelihood weighs the pairs by their differences, and its maximum lies elsewhere.",
            "05, Mistake 5: labels that lean long",
            function=by_share_of_longer,
        ),
        Mistake(
            "the search stops at 1 and at -1",
            "Alpha is a number of nats for each token, and no share: if one token more nearly always decides, it lies well above 1.",
            "05, Mistake 5: labels that lean long",
            edit=("alpha = alpha + slope / curvature", "alpha = (alpha + slope / curvature).clamp(-1, 1)"),
        ),
        Mistake(
            "the search is stopped after one step",
            "One step of Newton's method from 0 is a linear regression of the labels. The likelihood is not a parabola: go on until alpha rests.",
            "05, Mistake 5: labels that lean long",
            edit=("range(50)", "range(1)"),
        ),
        Mistake(
            "the variance, not the standard error",
            "One over the curvature is the variance of alpha. The standard error is its square root.",
            "05, Mistake 5: labels that lean long",
            edit=("1 / curvature.sqrt()", "1 / curvature"),
        ),
        Mistake(
            "the error is divided by the root of the number of pairs once more",
            "The curvature is a sum over the pairs, so their number is in it already.",
            "05, Mistake 5: labels that lean long",
            edit=("1 / curvature.sqrt()", "1 / curvature.sqrt() / len(extra) ** 0.5"),
        ),
        Mistake(
            "any liking above 0 is believed",
            "Of few pairs alpha is never exactly 0, even if nobody likes length. Compare it with its error.",
            "05, Mistake 5: labels that lean long",
            edit=("alpha > 2 * error", "alpha > 0"),
        ),
        Mistake(
            "a liking for short replies calls for the term too",
            "The term is there for labels that lean long; its alpha is at least 0. Whoever finds a negative alpha keeps DPO here.",
            "05, Mistake 5: labels that lean long",
            edit=("alpha > 2 * error", "abs(alpha) > 2 * error"),
        ),
        Mistake(
            "the choice is turned round",
            "The term is needed where labels like length.",
            "05, Mistake 5: labels that lean long",
            edit=('"length-dpo" if alpha > 2 * error else "dpo"', '"dpo" if alpha > 2 * error else "length-dpo"'),
        ),
    ],
    hints=[
        "Every label says: chosen. Its probability is sigmoid(alpha * extra). For which alpha is the sum of the logarithms highest?",
        "There the slope, the sum of extra * sigmoid(-alpha * extra), is 0, and it only falls as alpha grows: halve an interval, or take Newton's steps, alpha + slope / curvature.",
        "The curvature is the sum of extra^2 * p * (1 - p) with p = sigmoid(alpha * extra); the standard error is 1 / sqrt(curvature).",
    ],
    equivalent={
        "`range(50)` -> `range(51)`": "the search has long come to rest",
        "`range(50)` -> `range(49)`": "the search has long come to rest",
        "`alpha > 2 * error` -> `alpha >= 2 * error`": "no alpha is exactly two of its errors",
    },
)  # fmt: skip


TASKS = [LEAD, FIRST_STEP, CLIPPED, CURVE, LENGTH_TERM]
