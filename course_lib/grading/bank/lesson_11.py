"""Tasks of lesson 11, Several objectives."""

import math

import torch

from course_lib.grading.task import Draw, Mistake, Property, Task

# ---- 11.1


def where_it_settles(first, labels, *, beta):
    """Where DPO's loss settles on a pair with `labels` labels, of which `first` chose the first reply. Three floats."""
    share = first / labels
    margin = math.log(share / (1 - share))
    difference = margin / beta
    loss = -share * math.log(share) - (1 - share) * math.log(1 - share)
    return {"margin": margin, "difference": difference, "loss": loss}


def where_it_settles_by_bisection(first, labels, *, beta):
    low, high, share = -20.0, 20.0, first / labels
    for _ in range(80):
        margin = (low + high) / 2
        slope = -share / (1 + math.exp(margin)) + (1 - share) / (1 + math.exp(-margin))
        low, high = (margin, high) if slope < 0 else (low, margin)
    loss = share * math.log1p(math.exp(-margin)) + (1 - share) * math.log1p(math.exp(margin))
    return {"margin": margin, "difference": margin / beta, "loss": loss}


def even_labels(draw: Draw):
    half = draw.randint(1, 9)
    yield {"first": half, "labels": 2 * half, "beta": draw.number(0.05, 0.45)}


def most_for_the_first(draw: Draw):
    for _ in range(3):
        labels = draw.randint(8, 20)
        yield {"first": labels - draw.randint(1, labels // 3), "labels": labels, "beta": draw.number(0.05, 0.45)}


def most_for_the_second(draw: Draw):
    for _ in range(3):
        labels = draw.randint(8, 20)
        yield {"first": draw.randint(1, labels // 3), "labels": labels, "beta": draw.number(0.05, 0.45)}


SETTLES = Task(
    id="11.1",
    title="Nine in ten",
    kind="calculate",
    points=1,
    difficulty="easy",
    minutes=5,
    reference=where_it_settles,
    also_correct=[where_it_settles_by_bisection],
    properties=[
        Property("labels that are split evenly pull to no margin at all", even_labels),
        Property("where most chose the first reply, it is pulled ahead by the log-odds of their share", most_for_the_first),
        Property("where most chose the second reply, the margin is negative", most_for_the_second),
    ],
    mistakes=[
        Mistake(
            "the logarithm of the share, not of its odds",
            "The loss stops where the sigmoid of the margin is the share. The inverse of the sigmoid is ln(share / (1 - share)), which is 0 for an even split.",
            "11, Two kinds of labels",
            edit=("math.log(share / (1 - share))", "math.log(share)"),
        ),
        Mistake(
            "the odds are upside down",
            "The margin is the first reply's lead: the more labels choose it, the larger it is.",
            "11, Two kinds of labels",
            edit=("math.log(share / (1 - share))", "math.log((1 - share) / share)"),
        ),
        Mistake(
            "the share itself is taken for the margin",
            "A margin is a log-odds, in nats, and has no upper end; its sigmoid is the share.",
            "11, Two kinds of labels",
            edit=("math.log(share / (1 - share))", "share"),
        ),
        Mistake(
            "beta multiplies where it divides",
            "The margin is beta times the difference of log-ratios, so the difference is the margin over beta: a small beta means that the policy moves far.",
            "11, Two kinds of labels",
            edit=("margin / beta", "margin * beta"),
        ),
        Mistake(
            "beta is forgotten",
            "The margin holds beta. In log-ratios, which is what the policy's probabilities move by, it is the margin over beta.",
            "11, Two kinds of labels",
            edit=("margin / beta", "margin"),
        ),
        Mistake(
            "beta moves the margin too",
            "The labels alone fix the margin. Beta only says how many nats of log-ratio make it up.",
            "11, Two kinds of labels",
            edit=("(1 - share))\n    difference", "(1 - share)) / beta\n    difference"),
        ),
        Mistake(
            "only the labels for the first reply are in the loss",
            "The other labels cost something as well: they are the share 1 - share, each with the loss -ln(1 - share).",
            "11, Live: does it break?",
            edit=(" - (1 - share) * math.log(1 - share)", ""),
        ),
        Mistake(
            "the loss is counted in bits",
            "The losses of this course are in nats, with the natural logarithm. A bit is 0.69 nats.",
            "11, Live: does it break?",
            edit=("-share * math.log(share) - (1 - share) * math.log(1 - share)", "-share * math.log2(share) - (1 - share) * math.log2(1 - share)"),
        ),
    ],
    hints=[
        "Set the slope of L(m) to zero. Which margin has a sigmoid that is the share of the labels?",
        "The margin is ln(share / (1 - share)). The difference of log-ratios is what beta multiplies to give it.",
        "At that margin the sigmoid is the share: put it into L, and you get the doubt of the labels, -P ln P - (1 - P) ln(1 - P).",
    ],
)  # fmt: skip


# ---- 11.2


def pareto_front(points):
    """Which points lie on the Pareto front. (N, 2), more is better in both columns; in return N booleans."""
    one, other = points[:, None], points[None]
    nowhere_worse = (one >= other).all(-1)
    somewhere_better = (one > other).any(-1)
    dominated = (nowhere_worse & somewhere_better).any(0)
    return ~dominated


def pareto_front_by_loops(points):
    rows, found = [[float(value) for value in row] for row in points], []
    for x, y in rows:
        found.append(not any(a >= x and b >= y and (a, b) != (x, y) for a, b in rows))
    return found


def pareto_front_by_sorting(points):
    order = sorted(range(len(points)), key=lambda i: (-float(points[i, 0]), -float(points[i, 1])))
    front, best, last = torch.zeros(len(points), dtype=torch.bool), -math.inf, None
    for i in order:
        x, y = float(points[i, 0]), float(points[i, 1])
        front[i] = y > best or (x, y) == last
        if y > best:
            best, last = y, (x, y)
    return front


def without_twins(points):
    best = [
        all(not (q[0] >= p[0] and q[1] >= p[1]) for j, q in enumerate(points) if j != i) for i, p in enumerate(points)
    ]
    return torch.tensor(best)


def best_of_each(points):
    return (points == points.max(0).values).any(-1)


def found_by_a_weight(points):
    weights = torch.linspace(0.001, 0.999, 999)[:, None]
    sums = weights * points[:, 0] + (1 - weights) * points[:, 1]
    return (sums >= sums.max(1, keepdim=True).values - 1e-6).any(0)


def best_sum(points):
    sums = points.sum(-1)
    return sums >= sums.max() - 1e-6


def front_points(draw: Draw, *rows) -> dict:
    """The rows times a factor, moved, in random order: dominance does not change."""
    moved = torch.tensor([[draw.number(-2, 2, 1), draw.number(-2, 2, 1)]])
    table = torch.tensor(rows) * torch.tensor([[draw.choice([0.5, 1.0, 2.0]), draw.choice([0.5, 1.0, 2.0])]]) + moved
    return {"points": table[draw.sample(range(len(rows)), len(rows))].round(decimals=2)}


def one_above_the_other(draw: Draw):
    yield front_points(draw, (0.0, 0.0), (0.4, 0.8))
    yield front_points(draw, (0.0, 0.0), (0.4, 0.8), (0.8, 0.4), (-0.4, 0.6))


def each_better_somewhere(draw: Draw):
    yield front_points(draw, (0.0, 1.0), (1.0, 0.0))
    yield front_points(draw, (0.0, 1.0), (0.4, 0.9), (0.8, 0.6), (1.0, 0.0))


def equal_in_one(draw: Draw):
    yield front_points(draw, (0.0, 1.0), (0.0, 0.4))
    yield front_points(draw, (0.2, 1.0), (1.0, 1.0), (1.4, 0.2), (1.4, 0.0))


def twins(draw: Draw):
    yield front_points(draw, (0.0, 1.0), (0.0, 1.0), (1.0, 0.0))
    yield front_points(draw, (0.2, 0.6), (0.2, 0.6), (0.4, 0.8))


def in_a_hollow(draw: Draw):
    yield front_points(draw, (0.0, 1.0), (0.2, 0.4), (1.0, 0.0))
    yield front_points(draw, (0.0, 1.0), (0.2, 0.4), (0.4, 0.2), (1.0, 0.0), (0.0, 0.2))


def any_points(draw: Draw):
    return [{"points": draw.distinct(count, 2, low=-1, high=1)} for count in (5, 8)]


FRONT = Task(
    id="11.2",
    title="The Pareto front",
    kind="implement",
    points=2,
    difficulty="medium",
    minutes=10,
    reference=pareto_front,
    also_correct=[pareto_front_by_loops, pareto_front_by_sorting],
    properties=[
        Property("a point that another one beats in both objectives is not on the front", one_above_the_other),
        Property("points of which each is better somewhere are all on it", each_better_somewhere),
        Property("equal in one objective and worse in the other: not on the front", equal_in_one),
        Property("two equal points do not push each other off", twins),
        Property("a point in a hollow, which no weighted sum would choose, is on the front", in_a_hollow),
        Property("any points", any_points),
    ],
    mistakes=[
        Mistake(
            "less is taken for better",
            "These are rewards: a point beats another by being larger. Yours is the front of two losses.",
            "11, One number out of two",
            edit=("points[:, None], points[None]", "points[None], points[:, None]"),
        ),
        Mistake(
            "the dominated points are returned",
            "The front is what remains when every dominated point is gone.",
            "11, One number out of two",
            edit=("return ~dominated", "return dominated"),
        ),
        Mistake(
            "a point must be beaten in both objectives to fall",
            "Equal in one and worse in the other is enough to fall: such a point can be made better for one kind of people at no cost for the other.",
            "11, One number out of two",
            edit=("(one > other).any(-1)", "(one > other).all(-1)"),
        ),
        Mistake(
            "a point beats itself",
            "\"At least as good in both\" holds between a point and itself. Something must be better, too, or nothing is left on the front.",
            "11, One number out of two",
            edit=("(nowhere_worse & somewhere_better)", "nowhere_worse"),
        ),
        Mistake(
            "one better objective is enough to beat a point",
            "Of two points on a front each is better in something. A point falls only to one that is worse in nothing.",
            "11, One number out of two",
            edit=("(one >= other).all(-1)", "(one >= other).any(-1)"),
        ),
        Mistake(
            "equal points push each other off",
            "Of two equal points none is better. Neither can be improved by choosing the other, so both stay.",
            "11, One number out of two",
            function=without_twins,
        ),
        Mistake(
            "only the best of each objective is kept",
            "Those are the two ends of the front. What lies between them, a compromise that nothing beats, belongs to it.",
            "11, One number out of two",
            function=best_of_each,
        ),
        Mistake(
            "only points that some weight would choose are kept",
            "A weighted sum finds the points where the front bulges. A point in a hollow is beaten by no other point, and still no weight chooses it.",
            "11, One number out of two",
            function=found_by_a_weight,
        ),
        Mistake(
            "only the largest sum is kept",
            "That is one weight, half and half, and so one point of the front.",
            "11, One number out of two",
            function=best_sum,
        ),
    ],
    hints=[
        "For two points i and j: when may one say that i is better for one kind of people and worse for nobody?",
        "i beats j if it is at least as large in both columns, and larger in at least one. The front is whatever nobody beats.",
        "Compare all with all: points[:, None] >= points[None] has the shape (N, N, 2). Use .all(-1) and .any(-1), then .any(0).",
    ],
)  # fmt: skip


# ---- 11.3


def turning_points(helpful, harmless, *, scale):
    """At which weight, and at which share, of helpful people a pair's label turns. Floats or None.

    `helpful`, `harmless`: how much more each kind of people likes the first reply than the second (rewards' differences).
    """
    if helpful * harmless > 0:
        return {"sum": None, "mixed": None}
    weight = -harmless / (helpful - harmless)
    chance_helpful = 1 / (1 + math.exp(-scale * helpful))
    chance_harmless = 1 / (1 + math.exp(-scale * harmless))
    share = (0.5 - chance_harmless) / (chance_helpful - chance_harmless)
    return {"sum": weight, "mixed": share}


def turning_points_by_bisection(helpful, harmless, *, scale):
    def root(lead):
        low, high = 0.0, 1.0
        if lead(low) * lead(high) > 0:
            return None
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if lead(middle) * lead(low) > 0 else (low, middle)
        return low

    def chance(gap):
        return math.tanh(scale * gap / 2)

    return {
        "sum": root(lambda w: w * helpful + (1 - w) * harmless),
        "mixed": root(lambda w: w * chance(helpful) + (1 - w) * chance(harmless)),
    }


def a_gap(draw: Draw, helpful: tuple, harmless: tuple) -> dict:
    return {"helpful": draw.number(*helpful), "harmless": draw.number(*harmless), "scale": draw.number(1.5, 3.0, 1)}


def equal_heat(draw: Draw):
    heat = draw.number(0.3, 1.2)
    yield {"helpful": heat, "harmless": -heat, "scale": draw.number(1.5, 3.0, 1)}


def unequal_heat(draw: Draw):
    yield a_gap(draw, (0.2, 0.4), (-1.4, -0.8))
    yield a_gap(draw, (0.8, 1.4), (-0.4, -0.2))


def other_way_round(draw: Draw):
    yield a_gap(draw, (-0.4, -0.2), (0.8, 1.4))
    yield a_gap(draw, (-1.4, -0.8), (0.2, 0.4))


def of_one_mind(draw: Draw):
    yield a_gap(draw, (0.2, 0.4), (0.8, 1.4))
    yield a_gap(draw, (-0.4, -0.2), (-1.4, -0.8))


TURNING = Task(
    id="11.3",
    title="Where the label turns",
    kind="predict, then run",
    points=2,
    difficulty="medium",
    minutes=15,
    reference=turning_points,
    also_correct=[turning_points_by_bisection],
    properties=[
        Property("where both sides care alike, everything turns at one half", equal_heat),
        Property("whoever cares more tips the sum sooner than the crowd", unequal_heat),
        Property("it does not matter which reply stands first", other_way_round),
        Property("where all are of one mind, no label turns", of_one_mind),
    ],
    mistakes=[
        Mistake(
            "the weight of the harmless people is given",
            "The weight w stands before the helpful reward. At the turning point w helpful + (1 - w) harmless is 0; yours is 1 - w.",
            "11, One number out of two",
            edit=("weight = -harmless /", "weight = helpful /"),
        ),
        Mistake(
            "the two differences are added, not set against each other",
            "Solve w helpful + (1 - w) harmless = 0 for w: in front of w stands helpful - harmless.",
            "11, One number out of two",
            edit=("(helpful - harmless)", "(helpful + harmless)"),
        ),
        Mistake(
            "heads are counted in the sum",
            "In labels of the sum every labeller feels both objectives, and the stronger feeling weighs more. One half is right only if both care alike.",
            "11, One number out of two",
            edit=("weight = -harmless / (helpful - harmless)", "weight = 0.5"),
        ),
        Mistake(
            "strength of feeling is counted in the crowd",
            "Each labeller of a crowd makes one choice. How strongly one feels enters through the sigmoid only, which soon is nearly 1.",
            "11, What is lost, then?",
            edit=('"mixed": share', '"mixed": weight'),
        ),
        Mistake(
            "the crowd is held to turn at exactly one half",
            "That is so for people who never hesitate. Whoever is nearly indifferent tosses a coin, so a share of them counts less than a share of the sure.",
            "11, What is lost, then?",
            edit=("share = (0.5 - chance_harmless) / (chance_helpful - chance_harmless)", "share = 0.5"),
        ),
        Mistake(
            "the scale is forgotten",
            "People choose by the sigmoid of scale times the difference: the scale says how sure a difference of 1 makes them.",
            "11, What is lost, then?",
            edit=[("-scale * helpful", "-helpful"), ("-scale * harmless", "-harmless")],
        ),
        Mistake(
            "the share of the harmless people is given",
            "The share asked for is that of the helpful people; yours is what is left of 1.",
            "11, What is lost, then?",
            edit=("share = (0.5 - chance_harmless)", "share = (chance_helpful - 0.5)"),
        ),
        Mistake(
            "a turning point outside 0 and 1 is returned",
            "If both kinds like the same reply, the equation's solution is no weight: it lies below 0 or above 1. No label turns.",
            "11, Two kinds of people",
            edit=("if helpful * harmless > 0:", "if False:"),
        ),
    ],
    hints=[
        "At a turning point both replies are chosen equally often. What must the weighted sum of the two differences be then? What must the crowd's probability be?",
        "Sum: solve w helpful + (1 - w) harmless = 0. Crowd: solve w P_helpful + (1 - w) P_harmless = 1/2, with P the sigmoid of scale times the difference.",
        "Both are linear in w: w = (target - b) / (a - b), with a the helpful people's number and b the harmless people's. Return None twice if both differences have the same sign.",
    ],
    equivalent={
        "`helpful * harmless > 0` -> `helpful * harmless >= 0`": "no difference is 0",
        "`helpful * harmless` -> `helpful / harmless`": "a quotient has the sign of the product",
    },
)  # fmt: skip


# ---- 11.4


def plan_the_month(weights, *, ends, soup, anew, runs, policies):
    """How to serve a weight of helpfulness that changes each week. All rewards are pairs [helpful, harmless].

    `weights`: a week's weight each. `ends`: {"helpful": rewards, "harmless": rewards} of the two specialists.
    `soup`, `anew`: what that method's policy earns, week by week. `runs`: trainings that can be paid for;
    `policies`: how many fit into the server's memory at once.
    Returns {"method": "anew" | "soup" | "coin" | None, "earned": a float or None, "ruled_out": {method: reason}}.
    """
    coin = [[w * a + (1 - w) * b for a, b in zip(ends["helpful"], ends["harmless"])] for w in weights]
    rewards = {"anew": anew, "soup": soup, "coin": coin}
    trained = {"anew": len(set(weights)), "soup": 2, "coin": 2}
    served = {"anew": 1, "soup": 1, "coin": 2}
    best, most, ruled_out = None, None, {}
    for method, points in rewards.items():
        too_many, too_large = trained[method] > runs, served[method] > policies
        earned = sum(w * r[0] + (1 - w) * r[1] for w, r in zip(weights, points)) / len(weights)
        if too_many or too_large:
            ruled_out[method] = "both" if too_many and too_large else "runs" if too_many else "memory"
        elif most is None or earned > most:
            best, most = method, earned
    return {"method": best, "earned": most, "ruled_out": ruled_out}


def plan_the_month_in_arrays(weights, *, ends, soup, anew, runs, policies):
    w = torch.tensor([weights, [1 - each for each in weights]], dtype=torch.float64).T
    specialists = torch.tensor([ends["helpful"], ends["harmless"]], dtype=torch.float64)
    table = {"anew": torch.tensor(anew).double(), "soup": torch.tensor(soup).double(), "coin": w @ specialists}
    lacking = {"anew": [], "soup": [], "coin": []}
    for method in table:
        if (len({*weights}) if method == "anew" else 2) > runs:
            lacking[method].append("runs")
        if method == "coin" and policies < 2:
            lacking[method].append("memory")
    earned = {method: float((w * r).sum(1).mean()) for method, r in table.items() if not lacking[method]}
    best = max(earned, key=earned.get) if earned else None
    reasons = {method: "both" if len(said) == 2 else said[0] for method, said in lacking.items() if said}
    return {"method": best, "earned": earned.get(best), "ruled_out": reasons}


def pair_of_rewards(draw: Draw, helpful: tuple, harmless: tuple) -> list:
    return [draw.number(*helpful), draw.number(*harmless)]


def a_month(draw: Draw, weights: list, *, best: str, runs: int, policies: int) -> dict:
    """What each method earns, so that without limits `best` is first, and far from the others.

    A good point lies well above the line between the two ends, which is where the coin is, a bad one well below.
    """
    ends = {
        "helpful": pair_of_rewards(draw, (0.2, 0.4), (-0.9, -0.7)),
        "harmless": pair_of_rewards(draw, (-0.9, -0.7), (0.5, 0.7)),
    }
    lifts = {"soup": (0.1, 0.2), "anew": (0.25, 0.4)} if best == "anew" else {"soup": (0.25, 0.4), "anew": (0.1, 0.2)}
    if best == "coin":
        lifts = {"soup": (-0.4, -0.25), "anew": (-0.2, -0.1)}
    points = {}
    for method, lift in lifts.items():
        lines = {w: [w * a + (1 - w) * b for a, b in zip(ends["helpful"], ends["harmless"])] for w in weights}
        found = {w: [round(each + draw.number(*lift), 2) for each in line] for w, line in lines.items()}
        points[method] = [found[w] for w in weights]
    return {"weights": weights, "ends": ends, **points, "runs": runs, "policies": policies}


def few_weeks(draw: Draw, count: int) -> list:
    """Different weights, of which the mean is not near one half."""
    return draw.sample(draw.choice([[0.1, 0.2, 0.3, 0.4], [0.6, 0.7, 0.8, 0.9]]), count)


def enough_of_all(draw: Draw):
    yield a_month(draw, few_weeks(draw, 2), best="anew", runs=3, policies=2)
    yield a_month(draw, few_weeks(draw, 3), best="soup", runs=3, policies=2)
    yield a_month(draw, few_weeks(draw, 2), best="coin", runs=2, policies=2)


def few_runs(draw: Draw):
    yield a_month(draw, few_weeks(draw, 3), best="anew", runs=2, policies=2)
    yield a_month(draw, few_weeks(draw, 4), best="coin", runs=2, policies=2)
    yield a_month(draw, few_weeks(draw, 1), best="coin", runs=1, policies=2)


def one_policy_served(draw: Draw):
    yield a_month(draw, few_weeks(draw, 2), best="coin", runs=2, policies=1)
    yield a_month(draw, few_weeks(draw, 3), best="soup", runs=2, policies=1)


def a_weight_comes_back(draw: Draw):
    one, other = few_weeks(draw, 2)
    yield a_month(draw, [one, other, one], best="anew", runs=2, policies=2)
    yield a_month(draw, [one, one], best="coin", runs=1, policies=1)


def nothing_works(draw: Draw):
    yield a_month(draw, few_weeks(draw, 3), best="anew", runs=1, policies=1)
    yield a_month(draw, few_weeks(draw, 2), best="soup", runs=1, policies=2)


MONTH = Task(
    id="11.4",
    title="A weight that changes each week",
    kind="choose the method",
    points=3,
    difficulty="hard",
    minutes=15,
    reference=plan_the_month,
    also_correct=[plan_the_month_in_arrays],
    properties=[
        Property("where nothing is short, the method that earns most is taken", enough_of_all),
        Property("a method that needs more runs than there are is ruled out", few_runs),
        Property("a coin needs both specialists in memory, a soup one policy", one_policy_served),
        Property("a weight that comes back needs no second run", a_weight_comes_back),
        Property("if no method is left, none is taken", nothing_works),
    ],
    mistakes=[
        Mistake(
            "a run is counted for every week",
            "A policy that was trained for a weight can be served again. Only different weights need different runs.",
            "11, A front from two runs",
            edit=("len(set(weights))", "len(weights)"),
        ),
        Mistake(
            "a soup is thought to need a run for each weight",
            "A soup is averaged from the same two trainings whatever the weight: that is its whole point.",
            "11, A front from two runs",
            edit=('"soup": 2, "coin": 2}', '"soup": len(set(weights)), "coin": 2}'),
        ),
        Mistake(
            "a soup is thought to be two policies in memory",
            "The parameters are averaged before anything is served. What is served is one policy.",
            "11, A front from two runs",
            edit=('"soup": 1, "coin": 2}', '"soup": 2, "coin": 2}'),
        ),
        Mistake(
            "a coin is thought to be one policy in memory",
            "The coin falls anew for every request, so both specialists must be ready all the time.",
            "11, Five seeds",
            edit=('"soup": 1, "coin": 2}', '"soup": 1, "coin": 1}'),
        ),
        Mistake(
            "the coin is a fair one",
            "The helpful specialist is to answer a share w of the requests, or the coin serves the same mixture every week.",
            "11, Five seeds",
            edit=("w * a + (1 - w) * b", "(a + b) / 2"),
        ),
        Mistake(
            "the coin's sides are swapped",
            "With the weight w of helpfulness it is the helpful specialist that answers a share w.",
            "11, Five seeds",
            edit=("w * a + (1 - w) * b", "(1 - w) * a + w * b"),
        ),
        Mistake(
            "both objectives count alike",
            "What the owners want this week is the weighted sum with this week's weight, and it decides what a policy has earned.",
            "11, One number out of two",
            edit=("w * r[0] + (1 - w) * r[1]", "(r[0] + r[1]) / 2"),
        ),
        Mistake(
            "the weight is given to harmlessness",
            "The weight w is that of helpfulness, the first of the two rewards.",
            "11, One number out of two",
            edit=("w * r[0] + (1 - w) * r[1]", "(1 - w) * r[0] + w * r[1]"),
        ),
        Mistake(
            "runs are not looked at",
            "What earns most on paper cannot be had if it needs more trainings than there are: limits first, then rewards.",
            "11, A front from two runs",
            edit=("trained[method] > runs, served", "False, served"),
        ),
        Mistake(
            "the least is taken",
            "Rewards are to be high.",
            "11, One number out of two",
            edit=("earned > most", "earned < most"),
        ),
        Mistake(
            "the sum over the weeks, not the mean",
            "Asked for is what a week earns, on average.",
            "11, One number out of two",
            edit=(" / len(weights)", ""),
        ),
    ],
    hints=[
        "Two questions for each method, before any reward: how many trainings does it need, and how many policies lie in memory while it serves?",
        "Training anew needs a run for each different weight. Soup and coin need the two specialists; the coin serves both.",
        "A week's reward is w times the helpful one plus (1 - w) times the harmless one. The coin's rewards are w times the helpful specialist's plus (1 - w) times the other's.",
    ],
    equivalent={"`earned > most` -> `earned >= most`": "no two methods earn the same"},
)  # fmt: skip


TASKS = [SETTLES, FRONT, TURNING, MONTH]
