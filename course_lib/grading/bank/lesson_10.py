"""Tasks of lesson 10, Learning online."""

from itertools import permutations

import torch

from course_lib.grading.task import Draw, Mistake, Property, Task

# ---- 10.1


def token_pull(rewards, lengths, *, method, constant):
    """How hard a token of each reply is pulled: minus the loss's derivative by its log-probability.

    `rewards`, `lengths` (in tokens): of the n replies of one group, both (n,); (n,) out.
    `method`: "rloo", "grpo", "dapo" or "dr_grpo". `constant`: what Dr. GRPO divides by.
    """
    n = len(rewards)
    others = (rewards.sum() - rewards) / (n - 1)
    centred = rewards - rewards.mean()
    scaled = centred / (rewards.std() + 1e-4)
    if method == "rloo":
        return (rewards - others) / n
    if method == "grpo":
        return scaled / lengths / n
    if method == "dapo":
        return scaled / lengths.sum()
    return centred / constant / n


def token_pull_by_autograd(rewards, lengths, *, method, constant):
    n, inside = len(rewards), torch.arange(int(lengths.max())) < lengths[:, None]
    logps = torch.zeros(inside.shape, dtype=rewards.dtype, requires_grad=True)
    if method == "rloo":
        alone = torch.stack([r - torch.cat([rewards[:i], rewards[i + 1 :]]).mean() for i, r in enumerate(rewards)])
        loss = -((logps * inside).sum(dim=1).exp() * alone).mean()
    else:
        centred = rewards - rewards.mean()
        spread = (centred.square().sum() / (n - 1)).sqrt() + 1e-4
        advantages = centred if method == "dr_grpo" else centred / spread
        losses = -logps.exp() * advantages[:, None] * inside
        by = {"grpo": n * lengths[:, None], "dapo": inside.sum(), "dr_grpo": n * constant}[method]
        loss = (losses / by).sum()
    return -torch.autograd.grad(loss, logps)[0][:, 0]


METHODS = ("rloo", "grpo", "dapo", "dr_grpo")


def each_method(draw: Draw, rewards) -> list[dict]:
    lengths, constant = torch.tensor(draw.sample(range(2, 12), len(rewards))), draw.randint(13, 24)
    return [{"rewards": rewards, "lengths": lengths, "method": name, "constant": constant} for name in METHODS]


def quarters(draw: Draw, count: int, low: int = -12, high: int = 12):
    """Different multiples of 1/4, which add up without rounding."""
    return torch.tensor([quarter / 4 for quarter in draw.sample(range(low, high + 1), count)])


def all_equal(draw: Draw):
    return each_method(draw, quarters(draw, 1).repeat(4))


def unlike_lengths(draw: Draw):
    return [each for n in (3, 5) for each in each_method(draw, draw.distinct(n))]


def narrow(draw: Draw):
    return each_method(draw, 0.5 + torch.tensor(draw.sample(range(-3, 4), 4)) / 100)


def plus_a_hundred(draw: Draw):
    return each_method(draw, quarters(draw, 4) + 100)


PULL = Task(
    id="10.1",
    title="How hard a token is pulled",
    kind="predict, then run",
    points=3,
    difficulty="medium",
    minutes=15,
    reference=token_pull,
    also_correct=[token_pull_by_autograd],
    atol=1e-6,
    properties=[
        Property("where all replies earn the same, nothing is pulled", all_equal),
        Property("replies of unlike length", unlike_lengths),
        Property("rewards that differ by hundredths only", narrow),
        Property("a hundred more for every reply changes nothing", plus_a_hundred),
    ],
    mistakes=[
        Mistake(
            "RLOO's baseline holds the reply's own reward",
            "Leave one out: the baseline is the mean of the others. With its own reward in it, every advantage is too small by the factor (n - 1)/n.",
            "10, RLOO: the others are the baseline",
            edit=("(rewards - others)", "centred"),
        ),
        Mistake(
            "the mean of the others is divided by n",
            "There are n - 1 others. Divided by n the baseline is too near to 0, and adding a constant to all rewards changes the advantages.",
            "10, RLOO: the others are the baseline",
            edit=("/ (n - 1)", "/ n"),
        ),
        Mistake(
            "RLOO is averaged over tokens",
            "RLOO takes the whole reply for one action, with one ratio: its logarithm is the sum over tokens, so each token gets the full advantage.",
            "10, Both losses, whole",
            edit=("(rewards - others) / n", "(rewards - others) / lengths / n"),
        ),
        Mistake(
            "the deviation is taken over n, not over n - 1",
            "The lesson's s is over n - 1, what `std` does by default in torch. Over n, groups of four get advantages that are 15% larger.",
            "10, GRPO: in units of the group's own spread",
            edit=("rewards.std()", "rewards.std(correction=0)"),
        ),
        Mistake(
            "the variance, not the deviation",
            "An advantage in units of the group's spread has no unit. Divided by the variance it grows when all differences shrink.",
            "10, GRPO: in units of the group's own spread",
            edit=("rewards.std()", "rewards.var()"),
        ),
        Mistake(
            "the 1e-4 is forgotten",
            "In a group whose rewards are all equal, 0 is divided by 0: one such group turns the whole model into NaN.",
            "10, GRPO: in units of the group's own spread",
            edit=(" + 1e-4", ""),
        ),
        Mistake(
            "the 1e-4 is smaller than the lesson's",
            "A usual value is 1e-8. Where rewards differ by hundredths, 1e-4 lowers the pull by half a percent, and the task's table asks for it.",
            "10, GRPO: in units of the group's own spread",
            edit=("+ 1e-4", "+ 1e-8"),
        ),
        Mistake(
            "GRPO does not divide by the reply's length",
            "GRPO's paper takes each reply's mean over its tokens first, so a token's weight is one over that reply's length.",
            "10, How tokens are averaged",
            edit=("scaled / lengths / n", "scaled / n"),
        ),
        Mistake(
            "GRPO is averaged over all tokens together",
            "That is DAPO's way. In GRPO's paper each reply is averaged for itself, and then the replies.",
            "10, How tokens are averaged",
            edit=("scaled / lengths / n", "scaled / lengths.sum()"),
        ),
        Mistake(
            "DAPO is divided by the number of replies as well",
            "A mean over all tokens divides by the number of tokens, once.",
            "10, How tokens are averaged",
            edit=("scaled / lengths.sum()", "scaled / lengths.sum() / n"),
        ),
        Mistake(
            "Dr. GRPO still divides by the deviation",
            "Leaving that division out is half of what Dr. GRPO is about: else a difference of a hundredth counts as much as one of a whole point.",
            "10, GRPO: in units of the group's own spread",
            edit=("centred / constant / n", "scaled / constant / n"),
        ),
        Mistake(
            "Dr. GRPO divides by the reply's length",
            "The constant is there so that a token weighs the same in a long reply and in a short one.",
            "10, How tokens are averaged",
            edit=("centred / constant / n", "centred / lengths / n"),
        ),
        Mistake(
            "Dr. GRPO is summed over the replies, not averaged",
            "The constant takes the place of the length, not of the number of replies: their mean is still taken.",
            "10, How tokens are averaged",
            edit=("centred / constant / n", "centred / constant"),
        ),
        Mistake(
            "sums over the replies, not means",
            "The losses are means over the replies of a step. With sums the step grows with the size of the group.",
            "10, Both losses, whole",
            edit=[("(rewards - others) / n", "(rewards - others)"), ("scaled / lengths / n", "scaled / lengths"), ("centred / constant / n", "centred / constant")],
        ),
    ],
    hints=[
        "At the start every ratio is 1, and the derivative of a ratio by its log-probability is the ratio itself. What is left of the loss?",
        "Two factors: the advantage of the reply, and the weight that a token of this reply has in the average.",
        "The weights: RLOO 1/n, GRPO 1/(n times length), DAPO 1/(sum of all lengths), Dr. GRPO 1/(n times constant).",
    ],
)  # fmt: skip


# ---- 10.2


def group_advantages(scores, *, replies):
    """RLOO's advantages. `scores`: (P * replies,), each prompt's replies behind one another.

    Returns {"advantages": (P * replies,) in the same order, "all_equal": a share of the groups}.
    """
    groups = scores.view(-1, replies)
    others = (groups.sum(dim=1, keepdim=True) - groups) / (replies - 1)
    equal = groups.max(dim=1).values == groups.min(dim=1).values
    return {"advantages": (groups - others).flatten(), "all_equal": equal.float().mean()}


def group_advantages_one_by_one(scores, *, replies):
    advantages, equal = [], []
    for start in range(0, len(scores), replies):
        group = scores[start : start + replies].tolist()
        equal.append(len(set(group)) == 1)
        advantages += [r - (sum(group) - r) / (replies - 1) for r in group]
    return {"advantages": torch.tensor(advantages), "all_equal": sum(equal) / len(equal)}


def two_prompts(draw: Draw):
    for replies in (3, 4):
        yield {"scores": draw.distinct(2 * replies), "replies": replies}


def easy_and_hard(draw: Draw):
    for replies, prompts in ((2, 3), (4, 6)):
        solved = [1.0, 0.0] + [float(draw.randint(0, 1)) for _ in range(prompts - 2)]
        draw.shuffle(solved)
        yield {"scores": torch.tensor(solved).repeat_interleave(replies), "replies": replies}


def some_alike(draw: Draw):
    """Groups of three: all alike, or one in the middle of the others."""
    for prompts in (4, 5):
        groups = []
        for row in range(prompts):
            middle, away = draw.randint(-8, 8) / 4, draw.randint(1, 8) / 4
            groups.append([middle] * 3 if row % 3 == 0 else draw.sample([middle - away, middle, middle + away], 3))
        yield {"scores": torch.tensor(groups).flatten(), "replies": 3}


def other_levels(draw: Draw):
    for prompts, replies in ((3, 2), (5, 4)):
        level = torch.tensor(draw.sample(range(-40, 41, 10), prompts), dtype=torch.float32)
        yield {"scores": (level[:, None] + draw.distinct(prompts, replies)).flatten(), "replies": replies}


GROUPS = Task(
    id="10.2",
    title="Groups that are none",
    kind="fix the bug",
    points=2,
    difficulty="medium",
    minutes=10,
    reference=group_advantages,
    also_correct=[group_advantages_one_by_one],
    properties=[
        Property("a reply is compared with the others to the same prompt", two_prompts),
        Property("prompts that are always solved, or never, teach nothing", easy_and_hard),
        Property("a group counts as all equal only if every score in it is the same", some_alike),
        Property("a prompt's own level of scores does not matter", other_levels),
    ],
    mistakes=[
        Mistake(
            "the groups are cut across the prompts",
            "`view` keeps the order in memory: the first row takes the first P scores, of several prompts, and turning the table round does not mend that.",
            "10, Several replies to one prompt",
            edit=("scores.view(-1, replies)", "scores.view(replies, -1).T"),
        ),
        Mistake(
            "the groups are cut across the prompts, and put back the same way",
            "Now the advantages stand in the right order, but each reply is still compared with replies to other prompts.",
            "10, Several replies to one prompt",
            edit=[("scores.view(-1, replies)", "scores.view(replies, -1).T"), ("(groups - others).flatten()", "(groups - others).T.flatten()")],
        ),
        Mistake(
            "the table has a row for each place in the group",
            "`view(replies, -1)` makes rows of P scores. A row is to be one prompt's group: `replies` scores that stand behind one another.",
            "10, Several replies to one prompt",
            edit=("scores.view(-1, replies)", "scores.view(replies, -1)"),
        ),
        Mistake(
            "the advantages are put back in another order",
            "The groups are right, but flattened by columns: each reply gets another reply's advantage.",
            "10, Several replies to one prompt",
            edit=("(groups - others).flatten()", "(groups - others).T.flatten()"),
        ),
        Mistake(
            "the baseline is taken over the prompts",
            "Summed down a column, each reply is compared with replies to other prompts: that says which prompt was easy.",
            "10, Several replies to one prompt",
            edit=("(groups.sum(dim=1, keepdim=True) - groups) / (replies - 1)", "(groups.sum(dim=0, keepdim=True) - groups) / (len(groups) - 1)"),
        ),
        Mistake(
            "one baseline for all replies",
            "The mean of the whole batch does not know how hard each prompt is.",
            "10, Several replies to one prompt",
            edit=("(groups.sum(dim=1, keepdim=True) - groups) / (replies - 1)", "(groups.sum() - groups) / (groups.numel() - 1)"),
        ),
        Mistake(
            "the baseline holds the reply's own score",
            "RLOO leaves the reply's own score out of its baseline.",
            "10, RLOO: the others are the baseline",
            edit=("(groups.sum(dim=1, keepdim=True) - groups) / (replies - 1)", "groups.mean(dim=1, keepdim=True)"),
        ),
        Mistake(
            "replies without an advantage are counted, not groups",
            "A reply that lies at the mean of the others has no advantage either, though its group has much to teach.",
            "10, RLOO: the others are the baseline",
            edit=("groups.max(dim=1).values == groups.min(dim=1).values", "groups == others"),
        ),
        Mistake(
            "a number of groups, not their share",
            "The share can be compared between runs with more or fewer prompts.",
            "10, RLOO: the others are the baseline",
            edit=("equal.float().mean()", "equal.float().sum()"),
        ),
    ],
    hints=[
        "Write the scores 0, 1, 2, 3, 4, 5 of two prompts with three replies each into the table. Which scores stand in its first row?",
        "`view` fills row by row. With the replies to a prompt behind one another, a row must be `replies` long.",
    ],
)  # fmt: skip


# ---- 10.3


def best_and_worst(scores, *, least_gap):
    """Preference pairs from groups. Scores (P, n) of n replies to each of P prompts.

    Returns a list of [best, worst], in the order of the prompts: places among all P * n replies.
    """
    pairs = []
    for prompt, row in enumerate(scores):
        best, worst = row.argmax().item(), row.argmin().item()
        gap = row[best] - row[worst]
        if gap > 0 and gap >= least_gap:
            pairs.append([prompt * len(row) + best, prompt * len(row) + worst])
    return pairs


def best_and_worst_at_once(scores, *, least_gap):
    starts = torch.arange(len(scores)) * scores.shape[1]
    both = torch.stack([starts + scores.argmax(dim=1), starts + scores.argmin(dim=1)], dim=1)
    gap = scores.flatten()[both[:, 0]] - scores.flatten()[both[:, 1]]
    return both[(gap >= least_gap) & (both[:, 0] != both[:, 1])].tolist()


def every_pair(scores, *, least_gap):
    pairs = []
    for prompt, row in enumerate(scores):
        for i in range(len(row)):
            for j in range(len(row)):
                if row[i] > row[j] and row[i] - row[j] >= least_gap:
                    pairs.append([prompt * len(row) + i, prompt * len(row) + j])
    return pairs


def a_group(draw: Draw, gap: float, size: int = 4) -> list[float]:
    """A group whose best and worst are so far apart, with the others in between; multiples of 1/8."""
    low, eighths = draw.randint(-8, 8) / 8, round(gap * 8)
    inside = draw.sample(range(1, eighths), size - 2)
    return draw.sample([low + each / 8 for each in [0, eighths, *inside]], size)


def wide_groups(draw: Draw):
    for others in (1, 2):
        wide = [a_group(draw, draw.randint(9, 20) / 8) for _ in range(others)]
        low, eighths = draw.randint(-8, 8) / 8, draw.randint(12, 20)
        close_second = [low + each / 8 for each in draw.sample([0, 1, eighths - 1, eighths], 4)]
        three_good_ones = [low + each / 8 for each in draw.sample([0, 4, 5, 6], 4)]
        yield {"scores": torch.tensor([*wide, close_second, three_good_ones]), "least_gap": 0.5}


def too_narrow(draw: Draw):
    gaps = [0.75, draw.randint(9, 20) / 8, 0.875, draw.randint(9, 20) / 8, 0.75]
    for rows in (gaps[:2], gaps):
        yield {"scores": torch.tensor([a_group(draw, gap) for gap in rows]), "least_gap": 1.0}


def on_the_limit(draw: Draw):
    for gap in (0.5, 1.0):
        yield {"scores": torch.tensor([a_group(draw, gap), a_group(draw, gap + 1)]), "least_gap": gap}


def all_alike(draw: Draw):
    same = [draw.randint(-8, 8) / 8] * 4
    for rows in ([same], [a_group(draw, 0.5), same, a_group(draw, 1.5)]):
        yield {"scores": torch.tensor(rows), "least_gap": 0.0}


PAIRS = Task(
    id="10.3",
    title="Only pairs that say something",
    kind="implement",
    points=2,
    difficulty="easy",
    minutes=10,
    reference=best_and_worst,
    also_correct=[best_and_worst_at_once],
    properties=[
        Property("where scores lie far apart each group gives its best and its worst reply", wide_groups),
        Property("a group that differs by less than `least_gap` gives no pair", too_narrow),
        Property("a group that differs by just `least_gap` gives one", on_the_limit),
        Property("a group that is all equal never gives a pair, even at `least_gap` 0", all_alike),
    ],
    mistakes=[
        Mistake(
            "the gap must be larger than `least_gap`",
            "A pair is left out if its scores differ by less than that; one that lies just on it stays.",
            "10, Pairs of one's own",
            edit=("gap >= least_gap", "gap > least_gap"),
        ),
        Mistake(
            "all-equal groups give a pair at `least_gap` 0",
            "Best and worst are then one and the same reply: DPO's loss on such a pair is ln 2 for ever, and it teaches nothing.",
            "10, Pairs of one's own",
            edit=("gap > 0 and ", ""),
        ),
        Mistake(
            "`least_gap` is not looked at",
            "Where best and worst hardly differ the label is least certain: by Bradley-Terry, scores that are 0.1 apart mean a preference of 52 to 48.",
            "10, Pairs of one's own",
            edit=(" and gap >= least_gap", ""),
        ),
        Mistake(
            "only narrow groups are kept",
            "The condition is the wrong way round: what is left are the pairs whose label is least certain.",
            "10, Pairs of one's own",
            edit=("gap >= least_gap", "gap < least_gap"),
        ),
        Mistake(
            "best and worst are swapped",
            "The best reply is the chosen one and stands first.",
            "10, Pairs of one's own",
            edit=("[prompt * len(row) + best, prompt * len(row) + worst]", "[prompt * len(row) + worst, prompt * len(row) + best]"),
        ),
        Mistake(
            "places are counted within the group",
            "Place 2 of the third group is not place 2 of the rollout: every pair would be taken from the first prompt's replies.",
            "10, Pairs of one's own",
            edit=[("prompt * len(row) + best", "best"), ("prompt * len(row) + worst", "worst")],
        ),
        Mistake(
            "places are counted with the number of prompts",
            "A prompt's replies begin behind those of all earlier prompts, n of each.",
            "10, Pairs of one's own",
            edit=[("prompt * len(row) + best", "prompt * len(scores) + best"), ("prompt * len(row) + worst", "prompt * len(scores) + worst")],
        ),
        Mistake(
            "the gap is that between the best and the mean",
            "The pair holds the best and the worst reply, so the difference that counts is theirs.",
            "10, Pairs of one's own",
            edit=("row[best] - row[worst]", "row[best] - row.mean()"),
        ),
        Mistake(
            "the gap is that between the best two",
            "The pair holds the best and the worst reply. A close second does not make its label doubtful.",
            "10, Pairs of one's own",
            edit=("row[best] - row[worst]", "row.sort().values[-1] - row.sort().values[-2]"),
        ),
        Mistake(
            "every pair that is far enough apart",
            "One pair for each group is wanted: its best and its worst.",
            "10, Pairs of one's own",
            function=every_pair,
        ),
    ],
    hints=[
        "The lesson's `best_and_worst` is nearly all of it. Which condition leaves a group out there, and what is added here?",
        "Two conditions keep a pair: the gap is above 0, and it is at least `least_gap`.",
        "Reply k of prompt i stands at place i * n + k.",
    ],
)  # fmt: skip


# ---- 10.4


def both_orders(a_first, b_first):
    """What a judge thinks of two models' replies to the same prompts.

    `a_first`, `b_first`: (N,) its log-odds for "one", with A's and with B's reply as answer one.
    Returns {"bias", "place_decides", "wins", "wins_where_consistent"}, four floats.
    """
    bias = (a_first + b_first) / 2
    consistent = a_first.sign() != b_first.sign()
    a_wins = a_first - b_first > 0
    return {
        "bias": bias.mean(),
        "place_decides": (~consistent).float().mean(),
        "wins": a_wins.float().mean(),
        "wins_where_consistent": a_wins[consistent].float().mean(),
    }


def both_orders_pair_by_pair(a_first, b_first):
    pairs = list(zip(a_first.tolist(), b_first.tolist()))
    agreed = [one > 0 for one, other in pairs if one * other < 0]
    return {
        "bias": sum(one + other for one, other in pairs) / 2 / len(pairs),
        "place_decides": 1 - len(agreed) / len(pairs),
        "wins": sum((one - other) / 2 > 0 for one, other in pairs) / len(pairs),
        "wins_where_consistent": sum(agreed) / len(agreed),
    }


def judged(draw: Draw, better: int, worse: int, towards_a: int = 0, towards_b: int = 0) -> dict:
    """So many pairs that A wins in both orders, that B wins, and that the place decides, by a hair for A or for B.

    In the last two kinds the judge says "one" both times or "two" both times, in turn.
    """
    pairs = [(draw.number(0.2, 3.0), -draw.number(0.2, 3.0)) for _ in range(better)]
    pairs += [(-draw.number(0.2, 3.0), draw.number(0.2, 3.0)) for _ in range(worse)]
    for n, leaning in enumerate([1] * towards_a + [-1] * towards_b):
        place, hair = draw.number(1.5, 3.0) * (1 if n % 3 < 2 else -1), leaning * draw.number(0.1, 0.5)
        pairs.append((place + hair, place - hair))
    draw.shuffle(pairs)
    one, other = torch.tensor(pairs).T
    return {"a_first": one.clone(), "b_first": other.clone()}


def no_favourite(draw: Draw):
    for better, worse in ((2, 1), (1, 3)):
        odds = judged(draw, better, worse)["a_first"]
        yield {"a_first": odds, "b_first": -odds}


def always_consistent(draw: Draw):
    yield judged(draw, 1, 2)
    yield judged(draw, 4, 1)


def place_decides(draw: Draw):
    yield judged(draw, 1, 1, 2, 1)
    yield judged(draw, 2, 1, 1, 4)
    yield judged(draw, 1, 3, 5, 1)


BOTH_ORDERS = Task(
    id="10.4",
    title="Asked in both orders",
    kind="calculate",
    points=2,
    difficulty="medium",
    minutes=10,
    reference=both_orders,
    also_correct=[both_orders_pair_by_pair],
    properties=[
        Property("a judge without a favourite place has no bias, and no place decides", no_favourite),
        Property("where every pair is judged alike in both orders, both shares of wins are the same", always_consistent),
        Property("where the place decides some pairs, the shares part", place_decides),
    ],
    mistakes=[
        Mistake(
            "the second question is not turned round",
            "In the second question \"one\" means B: what speaks for A there is minus the log-odds.",
            "10, RLAIF: a model as the judge",
            edit=("a_first - b_first > 0", "a_first + b_first > 0"),
        ),
        Mistake(
            "the bias is taken from the difference",
            "The difference is what both orders agree on. What is left for the first place, whoever stands there, is the sum.",
            "10, RLAIF: a model as the judge",
            edit=("(a_first + b_first) / 2", "(a_first - b_first) / 2"),
        ),
        Mistake(
            "the bias is not halved",
            "Each pair is asked twice: the bias of one question is the mean of both.",
            "10, RLAIF: a model as the judge",
            edit=("(a_first + b_first) / 2", "(a_first + b_first)"),
        ),
        Mistake(
            "the bias is counted without its sign",
            "A judge that now favours the first place and now the second has a mean bias near 0. Without signs that cannot be seen.",
            "10, RLAIF: a model as the judge",
            edit=("bias.mean()", "bias.abs().mean()"),
        ),
        Mistake(
            "the same sign is taken for consistent",
            "\"One\" in both orders is first A and then B: the place decided. The same reply wins where the signs differ.",
            "10, RLAIF: a model as the judge",
            edit=("a_first.sign() != b_first.sign()", "a_first.sign() == b_first.sign()"),
        ),
        Mistake(
            "the wins are those of one order",
            "Asked once, with A first, A gets the favour of the place as well.",
            "10, RLAIF: a model as the judge",
            edit=("a_first - b_first > 0", "a_first > 0"),
        ),
        Mistake(
            "the consistent wins are divided by all pairs",
            "Among the pairs in which the same reply wins both times, how many go to A? The others belong neither above nor below the line.",
            "10, RLAIF: a model as the judge",
            edit=("a_wins[consistent].float().mean()", "(a_wins & consistent).float().mean()"),
        ),
        Mistake(
            "pairs in which the place decides count as half a win",
            "That is a common way to count ties. Here they are left out, so that the share does not move towards one half.",
            "10, RLAIF: a model as the judge",
            edit=("a_wins[consistent].float().mean()", "torch.where(consistent, a_wins.float(), 0.5).mean()"),
        ),
        Mistake(
            "the share of consistent pairs, not of the others",
            "Asked for is how often the place decides: the share of pairs in which the judge gives the same answer whichever reply stands first.",
            "10, RLAIF: a model as the judge",
            edit=("(~consistent).float().mean()", "consistent.float().mean()"),
        ),
    ],
    hints=[
        "Take one pair with the log-odds +2 (A first) and +1 (B first). Which answer did the judge give each time, and which reply was that?",
        "For A speaks half of (a_first - b_first), for the first place half of (a_first + b_first).",
        "The same reply wins both times where the two log-odds have different signs.",
    ],
    equivalent={"`a_first - b_first > 0` -> `a_first - b_first >= 0`": "the two log-odds of a pair are never equal"},
)  # fmt: skip


# ---- 10.5


def choose_method(wishes, *, billions, gigabytes, checker, labels, least_labels, replies):
    """Which method to take. `wishes`: names of methods, the most wanted first.

    Returns {"method": name or None, "gigabytes": {name: float}, "ruled_out": {name: reason}}.
    """
    enough = labels >= least_labels
    judge = 0 if checker else 4
    held = {
        "best of 8": 4 + judge,
        "dpo": 16 + 4,
        "grpo": 4 + 16 + judge,
        "ppo": 16 + 16 + 4 + judge,
    }
    needs = {name: held[name] * billions for name in wishes}
    ruled_out = {}
    for name in wishes:
        if name == "dpo" and not enough:
            ruled_out[name] = "labels"
        elif name != "dpo" and not (checker or enough):
            ruled_out[name] = "reward"
        elif name == "best of 8" and replies < 8:
            ruled_out[name] = "replies"
        elif needs[name] > gigabytes:
            ruled_out[name] = "memory"
    left = [name for name in wishes if name not in ruled_out]
    return {"method": left[0] if left else None, "gigabytes": needs, "ruled_out": ruled_out}


def choose_by_models(wishes, *, billions, gigabytes, checker, labels, least_labels, replies):
    trained = {"best of 8": [], "dpo": ["policy"], "grpo": ["policy"], "ppo": ["policy", "critic"]}
    found, needs, why = None, {}, {}
    for name in wishes:
        frozen = ["sft"] + ([] if checker or name == "dpo" else ["reward model"])
        needs[name] = (16 * len(trained[name]) + 4 * len(frozen)) * billions
        without = labels < least_labels and (name == "dpo" or not checker)
        faults = ["labels" if name == "dpo" else "reward"] * without
        faults += ["replies"] * (name == "best of 8" and replies < 8) + ["memory"] * (needs[name] > gigabytes)
        if faults:
            why[name] = faults[0]
        elif found is None:
            found = name
    return {"method": found, "gigabytes": needs, "ruled_out": why}


ALL = ["best of 8", "dpo", "grpo", "ppo"]


def situation(draw: Draw, wishes, bytes_held: int, *, checker=True, labels=0, replies=8) -> dict:
    """A GPU that holds just so many bytes for each weight of the policy."""
    billions = draw.choice([0.5, 1.5, 3.0, 7.0])
    return {
        "wishes": list(wishes),
        "billions": billions,
        "gigabytes": bytes_held * billions,
        "checker": checker,
        "labels": labels,
        "least_labels": 4000,
        "replies": replies,
    }


def one_wish(draw: Draw):
    for name in ("dpo", "grpo", "ppo", "best of 8"):
        for checker in (True, False):
            yield situation(draw, [name], 100, checker=checker, labels=draw.choice([5000, 12000]))


def a_checker(draw: Draw):
    orders = draw.sample(list(permutations(ALL)), 2) + [("dpo", "ppo", "grpo", "best of 8")]
    return [situation(draw, order, 50, labels=draw.choice([0, 900])) for order in orders]


def neither(draw: Draw):
    yield situation(draw, draw.sample(ALL, 4), 50, checker=False, labels=draw.choice([0, 900]))


def two_reasons(draw: Draw):
    """Wishes that nothing allows: too small a GPU, and each with another reason before that."""
    yield situation(draw, ["best of 8"], 50, checker=False, labels=draw.choice([0, 900]), replies=draw.randint(1, 7))
    yield situation(draw, ["best of 8"], 2, labels=draw.choice([0, 900]), replies=draw.randint(1, 7))
    yield situation(draw, draw.sample(ALL, 4), 2, checker=False, labels=draw.choice([0, 900]))


def enough_labels(draw: Draw):
    yield situation(draw, ["ppo", "grpo", "dpo", "best of 8"], 38, checker=False, labels=4000)
    yield situation(draw, ["best of 8", "dpo", "grpo"], 22, checker=False, labels=4000, replies=7)


def a_small_gpu(draw: Draw):
    for order, held in ((["ppo", "grpo", "dpo", "best of 8"], 20), (["grpo", "best of 8", "dpo"], 18)):
        yield situation(draw, order, held, labels=5000)
    yield situation(draw, draw.sample(ALL, 4), 2, labels=5000)


CHOOSE = Task(
    id="10.5",
    title="What you have, and what you can run",
    kind="choose the method",
    points=2,
    difficulty="medium",
    minutes=15,
    reference=choose_method,
    also_correct=[choose_by_models],
    properties=[
        Property("each method holds its own models", one_wish),
        Property("a program that checks answers is a reward, and no label", a_checker),
        Property("without program and labels nothing can be done", neither),
        Property("of several reasons the first is noted", two_reasons),
        Property("enough labels make a reward model, which has to be held", enough_labels),
        Property("what does not fit is ruled out, and what just fits is not", a_small_gpu),
    ],
    mistakes=[
        Mistake(
            "a reward model is held beside the program",
            "A program that checks answers takes the reward model's place: it has no weights.",
            "08, Doing without",
            edit=("0 if checker else 4", "4"),
        ),
        Mistake(
            "GRPO holds a critic",
            "The group is GRPO's baseline: what the critic was for, the other replies do.",
            "10, Several replies to one prompt",
            edit=("4 + 16 + judge", "4 + 16 + 16 + judge"),
        ),
        Mistake(
            "PPO's critic is forgotten",
            "PPO trains two models: the policy, and a critic that says what to expect.",
            "08, Who is in the loop",
            edit=("16 + 16 + 4 + judge", "16 + 4 + judge"),
        ),
        Mistake(
            "the critic is not trained",
            "The critic learns as the policy does, with gradients and moments: 16 bytes a weight.",
            "08, Doing without",
            edit=("16 + 16 + 4 + judge", "16 + 4 + 4 + judge"),
        ),
        Mistake(
            "the reference is forgotten",
            "DPO, GRPO and PPO all measure how far the policy has moved, and hold the model from which it is measured.",
            "08, Who is in the loop",
            edit=[("16 + 4,", "16,"), ("4 + 16 + judge", "16 + judge"), ("16 + 16 + 4 + judge", "16 + 16 + judge")],
        ),
        Mistake(
            "DPO holds a reward model",
            "DPO learns from the labels themselves: without critic and without reward model.",
            "08, Who is in the loop",
            edit=("16 + 4,", "16 + 4 + judge,"),
        ),
        Mistake(
            "gradients and moments are forgotten",
            "A trained weight takes 16 bytes: 4 for itself, 4 for its gradient, 8 for two moments.",
            "08, Doing without",
            edit=[("16 + 4,", "4 + 4,"), ("4 + 16 + judge", "4 + 4 + judge"), ("16 + 16 + 4 + judge", "4 + 4 + 4 + judge")],
        ),
        Mistake(
            "best of 8 is trained",
            "Choosing the best of several replies needs no training: SFT answers as it is.",
            "10, Pairs of one's own",
            edit=("4 + judge,\n        \"dpo\"", "16 + judge,\n        \"dpo\""),
        ),
        Mistake(
            "the program stands for labels",
            "In this task `dpo` learns from people's labelled pairs, and a program is none. (Pairs of one's own, by the program, would be another method.)",
            "10, Pairs of one's own",
            edit=("name == \"dpo\" and not enough", "name == \"dpo\" and not (checker or enough)"),
        ),
        Mistake(
            "a reward model without labels",
            "A reward model is learnt from people's choices. Where there are too few of them and no program, nothing says which reply is better.",
            "10, RLAIF: a model as the judge",
            edit=("not (checker or enough)", "False"),
        ),
        Mistake(
            "the labels must be more than the least",
            "Just enough is enough.",
            "10, RLAIF: a model as the judge",
            edit=("labels >= least_labels", "labels > least_labels"),
        ),
        Mistake(
            "how many replies may be drawn is not looked at",
            "Best of 8 pays eight replies for every answer, for ever.",
            "10, Pairs of one's own",
            edit=("replies < 8", "False"),
        ),
        Mistake(
            "memory is not looked at",
            "The method that you want most is of no use on a GPU that cannot hold its models.",
            "08, Doing without",
            edit=("needs[name] > gigabytes", "False"),
        ),
        Mistake(
            "memory is looked at before the other reasons",
            "The reasons are asked for in their order. A larger GPU would not help a method that has nothing to learn from.",
            "08, Doing without",
            edit=(
                "if name == \"dpo\" and not enough:",
                "if needs[name] > gigabytes:\n            ruled_out[name] = \"memory\"\n        elif name == \"dpo\" and not enough:",
            ),
        ),
        Mistake(
            "how many replies may be drawn is looked at before the reward",
            "The reasons are asked for in their order. Without a reward more replies would be of no use.",
            "10, Pairs of one's own",
            edit=(
                "elif name != \"dpo\"",
                "elif name == \"best of 8\" and replies < 8:\n            ruled_out[name] = \"replies\"\n        elif name != \"dpo\"",
            ),
        ),
        Mistake(
            "the last reason is noted, not the first",
            "Each reason overwrites the one before it. The first that applies is asked for: it would be left if all later ones were mended.",
            "08, Doing without",
            edit=[("elif name != \"dpo\"", "if name != \"dpo\""), ("elif name == \"best of 8\"", "if name == \"best of 8\""), ("elif needs", "if needs")],
        ),
        Mistake(
            "GiB where GB is meant",
            "A billion weights of one byte each is 1 GB: 1e9 bytes, as the task counts. A GiB is 7% more.",
            "08, Doing without",
            edit=("held[name] * billions", "held[name] * billions * 1e9 / 2**30"),
        ),
        Mistake(
            "the smallest is chosen",
            "Memory rules methods out. Among those that are left the order of the wishes decides.",
            "08, Doing without",
            edit=("left[0]", "min(left, key=needs.get)"),
        ),
    ],
    hints=[
        "For each method: what does it learn from, which models does it train, which does it only hold?",
        "Bytes a weight: best of 8 holds SFT; DPO and GRPO policy and reference; PPO a critic as well. Where is a reward model needed, and when does a program replace it?",
        "Go through the wishes. The first reason that applies is noted; the first method without a reason is taken.",
    ],
)  # fmt: skip


TASKS = [PULL, GROUPS, PAIRS, BOTH_ORDERS, CHOOSE]
