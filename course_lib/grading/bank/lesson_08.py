"""Tasks of lesson 08, four models in one loop."""

import math

import numpy as np
import torch

from course_lib.grading.task import Draw, Mistake, Property, Task

# ---- 08.1


def do_without(weights, *, bytes_each, room, program):
    """Which models to do without. `weights`: {"actor", "critic", "reward", "reference"}, the number of weights of each.

    `bytes_each`: {"weight", "gradient", "moments"}; `room` in GiB; `program`: whether a program can judge the replies.
    Returns {"without": "nothing" | "reward" | "critic" | "both" | None, "gib": what is then held}.
    """
    frozen = bytes_each["weight"]
    trained = frozen + bytes_each["gradient"] + bytes_each["moments"]
    each = {"actor": trained, "critic": trained, "reward": frozen, "reference": frozen}
    choices = {"nothing": [], "reward": ["reward"], "critic": ["critic"], "both": ["reward", "critic"]}
    for without, left_out in choices.items():
        if "reward" in left_out and not program:
            continue
        gib = sum(count * each[name] for name, count in weights.items() if name not in left_out) / 2**30
        if gib <= room:
            return {"without": without, "gib": gib}
    return {"without": None, "gib": gib}


def do_without_by_savings(weights, *, bytes_each, room, program):
    w, a_trained_weight = bytes_each["weight"], sum(bytes_each.values())
    total = (weights["actor"] + weights["critic"]) * a_trained_weight + (weights["reward"] + weights["reference"]) * w
    by_reward, by_critic = weights["reward"] * w, weights["critic"] * a_trained_weight
    options = [("nothing", total), ("reward", total - by_reward), ("critic", total - by_critic)]
    options.append(("both", total - by_reward - by_critic))
    allowed = [(name, size / 1024**3) for name, size in options if program or name in ("nothing", "critic")]
    for name, size in allowed:
        if size <= room:
            return {"without": name, "gib": size}
    return {"without": None, "gib": min(size for _, size in allowed)}


def do_without_as_little_as_possible(weights, *, bytes_each, room, program):
    w, a_trained_weight = bytes_each["weight"], sum(bytes_each.values())
    total = (weights["actor"] + weights["critic"]) * a_trained_weight + (weights["reward"] + weights["reference"]) * w
    by_reward, by_critic = weights["reward"] * w, weights["critic"] * a_trained_weight
    options = [("nothing", total), ("critic", total - by_critic)]
    if program:
        options += [("reward", total - by_reward), ("both", total - by_reward - by_critic)]
    options.sort(key=lambda option: -option[1])
    for name, size in options:
        if size / 2**30 <= room:
            return {"without": name, "gib": size / 2**30}
    return {"without": None, "gib": options[-1][1] / 2**30}


WIDTHS = (
    {"weight": 2, "gradient": 2, "moments": 8},
    {"weight": 4, "gradient": 4, "moments": 8},
    {"weight": 2, "gradient": 2, "moments": 4},
)


def four_models(draw: Draw) -> dict:
    """Inputs without a room: an actor with its reference, a critic of another size, and a reward model somewhat larger."""
    actor, critic = draw.sample(range(20, 80), 2)
    reward = critic + draw.randint(5, 20)
    weights = {"actor": actor * 1e8, "critic": critic * 1e8, "reward": reward * 1e8, "reference": actor * 1e8}
    return {"weights": weights, "bytes_each": dict(draw.choice(WIDTHS))}


def held(models: dict, *left_out: str) -> float:
    each = models["bytes_each"]
    sizes = {
        "actor": sum(each.values()),
        "critic": sum(each.values()),
        "reward": each["weight"],
        "reference": each["weight"],
    }
    return sum(count * sizes[name] for name, count in models["weights"].items() if name not in left_out) / 2**30


def with_room(models: dict, low: float, high: float, program: bool) -> dict:
    return models | {"room": round((low + high) / 2, 1), "program": program}


def all_four_fit(draw: Draw):
    for program in (True, False):
        models = four_models(draw)
        yield with_room(models, held(models), 1.3 * held(models), program)


def one_too_many(draw: Draw):
    for program in (True, False):
        models = four_models(draw)
        yield with_room(models, held(models, "reward"), held(models), program)


def the_critic_is_the_larger_saving(draw: Draw):
    models = four_models(draw)
    yield with_room(models, held(models, "critic"), held(models, "reward"), True)


def the_reward_model_is_the_larger_saving(draw: Draw):
    """A critic so small beside the reward model that most is held without the critic."""
    for program in (True, False):
        models = four_models(draw)
        models["weights"] |= {"critic": draw.randint(4, 8) * 1e8, "reward": draw.randint(65, 90) * 1e8}
        yield with_room(models, held(models, "critic"), held(models), program)


def both_must_go(draw: Draw):
    for program in (True, False):
        models = four_models(draw)
        yield with_room(models, held(models, "critic", "reward"), held(models, "critic"), program)


def nothing_helps(draw: Draw):
    for program in (True, False):
        models = four_models(draw)
        yield with_room(models, 0.5 * held(models, "critic", "reward"), held(models, "critic", "reward"), program)


def filled_exactly(draw: Draw):
    models = four_models(draw)
    models["weights"] = {name: draw.randint(1, 5) * 2**30 for name in models["weights"]}
    yield models | {"room": held(models, "reward"), "program": True}


DO_WITHOUT = Task(
    id="08.1",
    title="What must go",
    kind="choose the method",
    points=3,
    difficulty="medium",
    minutes=15,
    reference=do_without,
    also_correct=[do_without_by_savings],
    properties=[
        Property("where all four fit, all four are held", all_four_fit),
        Property("a reward model goes first, but only where a program can judge", one_too_many),
        Property("where that is not enough, the critic is shared", the_critic_is_the_larger_saving),
        Property("the order decides, not how much is saved", the_reward_model_is_the_larger_saving),
        Property("where neither is enough, both go, if they may", both_must_go),
        Property("where nothing helps, the answer is None, with what would still be needed", nothing_helps),
        Property("a room that is filled exactly is large enough", filled_exactly),
    ],
    mistakes=[
        Mistake(
            "the moments are forgotten",
            "The optimiser keeps two running means for each trained weight, the largest part of what training holds.",
            "08, Doing without",
            edit=(' + bytes_each["moments"]', ""),
        ),
        Mistake(
            "the gradients are forgotten",
            "A trained weight has a gradient beside it, as many bytes as `gradient` says.",
            "08, Doing without",
            edit=(' + bytes_each["gradient"]', ""),
        ),
        Mistake(
            "the moments are counted twice",
            "`moments` is both running means together: 8 bytes are two fp32 numbers.",
            "08, Doing without",
            edit=('+ bytes_each["moments"]', '+ 2 * bytes_each["moments"]'),
        ),
        Mistake(
            "the critic is taken for frozen",
            "The critic learns in every round, so it has gradients and moments as the actor has.",
            "08, Who is in the loop",
            edit=('"critic": trained', '"critic": frozen'),
        ),
        Mistake(
            "the reward model is taken for trained",
            "It was trained once, before the loop (lesson 02). In the loop it stands still: its weights are all that it holds.",
            "08, Who is in the loop",
            edit=('"reward": frozen', '"reward": trained'),
        ),
        Mistake(
            "all four are taken for trained",
            "Actor and critic learn. Reward model and reference stand still: no gradients, no moments.",
            "08, Who is in the loop",
            edit=('"reward": frozen, "reference": frozen', '"reward": trained, "reference": trained'),
        ),
        Mistake(
            "the reference is not counted",
            "It is a copy of its own, and stays: the price of every token is measured from it.",
            "08, Who is in the loop",
            edit=("if name not in left_out)", 'if name not in [*left_out, "reference"])'),
        ),
        Mistake(
            "GB for GiB",
            "The room is given in GiB, 2**30 bytes. A GB has 1e9 bytes, 7% less, so the same model has more GB than GiB.",
            "13, Twelve bytes per parameter",
            edit=("2**30", "1e9"),
        ),
        Mistake(
            "the reward model goes although no program can judge",
            "Something has to score the replies. Where no program can, the reward model is the one model that cannot be done without.",
            "08, Doing without",
            edit=(" and not program", " and False"),
        ),
        Mistake(
            "the critic goes first",
            "As a rule it saves more, but the order asked for is another: a reward model that a program can replace is given up before the critic's own body.",
            "08, Doing without",
            edit=('"reward": ["reward"], "critic": ["critic"]', '"critic": ["critic"], "reward": ["reward"]'),
        ),
        Mistake(
            "everything goes that may go",
            "What fits may stay: only as much is given up as the room demands.",
            "08, Doing without",
            edit=("in choices.items()", "in reversed(choices.items())"),
        ),
        Mistake(
            "the largest arrangement that fits is taken",
            "The order asked for is another: beside a large reward model a small critic is the smaller saving, and still the reward model goes first.",
            "08, Doing without",
            function=do_without_as_little_as_possible,
        ),
        Mistake(
            "what fills the room exactly counts as too large",
            "What holds exactly as much as `room` fits: the comparison is <=.",
            "08, Doing without",
            edit=("gib <= room", "gib < room"),
        ),
        Mistake(
            "if nothing fits, no number is given",
            "The choice is None then, the number is not: it says how much the smallest arrangement that is allowed would need.",
            "08, Doing without",
            edit=('None, "gib": gib}', 'None, "gib": None}'),
        ),
        Mistake(
            "if nothing fits, the number is that of all four models",
            "Asked for is the least that would be needed: what the smallest arrangement that is allowed would hold.",
            "08, Doing without",
            edit=('None, "gib": gib}', 'None, "gib": sum(count * each[name] for name, count in weights.items()) / 2**30}'),
        ),
        Mistake(
            "if nothing fits, the number leaves the reward model out although no program can judge",
            "The smallest arrangement that is *allowed* counts. Where no program can judge, the reward model stays in it.",
            "08, Doing without",
            edit=('None, "gib": gib}', 'None, "gib": (weights["actor"] * trained + weights["reference"] * frozen) / 2**30}'),
        ),
        Mistake(
            "if nothing fits, the number is what is missing",
            "Asked for is what the smallest arrangement would hold in all, not by how much that exceeds the room.",
            "08, Doing without",
            edit=('None, "gib": gib}', 'None, "gib": gib - room}'),
        ),
        Mistake(
            "the smallest arrangement is chosen although it does not fit",
            "If not even the smallest one fits, none can be chosen, and the number says how much would be needed.",
            "08, Doing without",
            edit=('{"without": None,', '{"without": "both" if program else "critic",'),
        ),
    ],
    hints=[
        "Which two models learn? A weight of theirs takes three kinds of bytes, one of the others only its own.",
        "Write what is held as a function of the models that are left out, then try nothing, reward, critic and both, in this order.",
        "Skip the choices without reward model where no program can judge. The first that takes at most `room` is the answer.",
    ],
)  # fmt: skip


# ---- 08.2


def prices(kls, *, start, target, samples, horizon):
    """The price that each round pays: as many floats as `kls`, a list with the mean KL of each round."""
    price, paid = start, []
    for kl in kls:
        paid.append(price)
        error = kl / target - 1
        error = max(-0.2, min(0.2, error))
        share = min(1.0, samples / horizon)
        price = price * (1 + error * share)
    return paid


def prices_as_a_product(kls, *, start, target, samples, horizon):
    errors = np.clip(np.array(kls) / target - 1, -0.2, 0.2)
    factors = 1 + errors * (samples / max(samples, horizon))
    return start * np.concatenate([[1.0], np.cumprod(factors)[:-1]])


def steering(draw: Draw, *, whole=False) -> dict:
    horizon = draw.randint(20, 60) * 10
    share = draw.number(1.4, 2.6) if whole else draw.number(0.35, 0.8)
    return {
        "start": draw.number(0.5, 5.0),
        "target": draw.number(2.0, 6.0),
        "samples": round(share * horizon),
        "horizon": horizon,
    }


def rounds(draw: Draw, settings: dict, *relative: float) -> dict:
    """KLs given as multiples of the target, moved a little."""
    return {"kls": [round(settings["target"] * each * draw.number(0.98, 1.02), 2) for each in relative]} | settings


def on_target(draw: Draw):
    settings = steering(draw)
    yield {"kls": [settings["target"]] * 2} | settings


def the_first_round(draw: Draw):
    yield rounds(draw, steering(draw), 3.0)


def near_the_target(draw: Draw):
    yield rounds(draw, steering(draw), 1.12, 1.12)
    yield rounds(draw, steering(draw), 0.88, 1.1, 0.88)


def far_from_target(draw: Draw):
    yield rounds(draw, steering(draw), 3.0, 4.0, 2.0)
    yield rounds(draw, steering(draw), 0.05, 0.2, 0.4)
    yield rounds(draw, steering(draw), 0.1, 2.5, 1.1, 0.9, 0.3)


def large_rounds(draw: Draw):
    yield rounds(draw, steering(draw, whole=True), 1.1, 2.0, 0.3)


PRICES = Task(
    id="08.2",
    title="A price that is steered",
    kind="predict, then run",
    points=2,
    difficulty="medium",
    minutes=10,
    reference=prices,
    also_correct=[prices_as_a_product],
    properties=[
        Property("at the target the price stays", on_target),
        Property("the first round pays the price at the start", the_first_round),
        Property("near the target the price follows the error in proportion", near_the_target),
        Property("far from it the error counts as a fifth, and no more", far_from_target),
        Property("a round of more replies than the horizon counts as one whole horizon", large_rounds),
    ],
    mistakes=[
        Mistake(
            "the prices are those behind each round",
            "A round pays the price that the rounds before it have left. Its own KL is known when it is over.",
            "08, Live: three prices",
            edit=[("        paid.append(price)\n", ""), ("price = price * (1 + error * share)\n", "price = price * (1 + error * share)\n        paid.append(price)\n")],
        ),
        Mistake(
            "the price falls where it should rise",
            "Too far from the reference means that distance is too cheap: above the target the price rises.",
            "08, Live: three prices",
            edit=("kl / target - 1", "1 - kl / target"),
        ),
        Mistake(
            "target and KL are swapped",
            "The error is how far the KL lies above the target, in units of the target. Divided the other way round it has the wrong sign.",
            "08, Live: three prices",
            edit=("kl / target - 1", "target / kl - 1"),
        ),
        Mistake(
            "the error is in nats",
            "The error is relative: a nat too much is much for a target of 2, and little for one of 20.",
            "08, Live: three prices",
            edit=("kl / target - 1", "kl - target"),
        ),
        Mistake(
            "the error is not limited",
            "One round with a wild KL would throw the price far up. A fifth, in either direction, is the most that counts.",
            "08, Live: three prices",
            edit=("error = max(-0.2, min(0.2, error))", "error = error"),
        ),
        Mistake(
            "only rises are limited",
            "The limit is meant for both directions: a price that falls too fast lets the policy run away.",
            "08, Live: three prices",
            edit=("max(-0.2, min(0.2, error))", "min(0.2, error)"),
        ),
        Mistake(
            "the limit comes after the share",
            "The error is limited first. If it is multiplied by the share before that, small rounds are hardly ever limited.",
            "08, Live: three prices",
            edit=[("error = max(-0.2, min(0.2, error))", "error = error"), ("(1 + error * share)", "(1 + max(-0.2, min(0.2, error * share)))")],
        ),
        Mistake(
            "the share is forgotten",
            "A full step belongs to as many replies as the horizon has. A round of fewer moves the price by its share alone.",
            "08, Live: three prices",
            edit=("share = min(1.0, samples / horizon)", "share = 1.0"),
        ),
        Mistake(
            "the share has no ceiling",
            "A round of more replies than the horizon counts as one horizon: else the limit of a fifth would not hold.",
            "08, Live: three prices",
            edit=("min(1.0, samples / horizon)", "samples / horizon"),
        ),
        Mistake(
            "the share is upside down",
            "More replies are better evidence and move the price further: the share is replies over horizon.",
            "08, Live: three prices",
            edit=("samples / horizon", "horizon / samples"),
        ),
        Mistake(
            "the step is added, not multiplied",
            "A price of 5 and one of 0.05 must both be able to move: each step is a part of the price.",
            "08, Live: three prices",
            edit=("price * (1 + error * share)", "price + error * share"),
        ),
        Mistake(
            "each step begins at the first price",
            "The steps multiply up: each changes the price that the last one left.",
            "08, Live: three prices",
            edit=("price = price * (1", "price = start * (1"),
        ),
    ],
    hints=[
        "The first round pays `start`. By which factor does it change the price for the second?",
        "The factor is 1 + error * share: error = kl / target - 1, limited to 0.2 either way, and share at most 1.",
    ],
)  # fmt: skip


# ---- 08.3


def distances(start, changes):
    """KL(actor || reference) after each round, in nats, a tensor (N,).

    `start` (V,): the logits that both begin with; `changes` (N, V): what is added to the actor's.
    """
    actor = start.clone()
    reference = start.clone()
    found = []
    for change in changes:
        actor += change
        ours = actor.log_softmax(-1)
        theirs = reference.log_softmax(-1)
        found.append((ours.exp() * (ours - theirs)).sum())
    return torch.stack(found)


def distances_at_once(start, changes):
    ours = (start + changes.cumsum(0)).softmax(-1)
    theirs = start.softmax(-1)
    return (ours * ours.log()).sum(-1) - ours @ theirs.log()


def distances_by_hand(start, changes):
    actor, reference, found = start, start, []
    for change in changes:
        actor = actor + change
        p, q = ([math.exp(x) for x in logits.tolist()] for logits in (actor, reference))
        p, q = ([x / sum(each) for x in each] for each in (p, q))
        found.append(sum(a * math.log(a / b) for a, b in zip(p, q)))
    return found


def one_round(draw: Draw):
    return [{"start": draw.distinct(size, low=-1.5, high=1.5), "changes": wide(draw, 1, size)} for size in (2, 3)]


def wide(draw: Draw, rounds: int, size: int) -> torch.Tensor:
    """Changes that move each policy well away: in each row the first logit rises and the last falls."""
    changes = draw.distinct(rounds, size, low=-0.3, high=0.3)
    changes[:, 0] += 1.0
    changes[:, -1] -= 0.6
    return torch.round(changes * 100) / 100


def out_and_back(draw: Draw):
    change = wide(draw, 1, 3)
    yield {"start": draw.distinct(3, low=-1.5, high=1.5), "changes": torch.cat([change, -change])}


def the_same_for_all(draw: Draw):
    changes = wide(draw, 2, 3)
    changes[1] = draw.number(0.5, 1.5)
    yield {"start": draw.distinct(3, low=-1.5, high=1.5), "changes": changes}


def some_rounds(draw: Draw):
    for size in (3, 4):
        yield {"start": draw.distinct(size, low=-1.5, high=1.5), "changes": wide(draw, 3, size)}


DISTANCES = Task(
    id="08.3",
    title="A KL of exactly 0",
    kind="fix the bug",
    points=2,
    difficulty="medium",
    minutes=10,
    reference=distances,
    also_correct=[distances_at_once, distances_by_hand],
    properties=[
        Property("after one round the actor is as far away as it has moved", one_round),
        Property("a way out and back ends at 0", out_and_back),
        Property("a change that is the same for all replies moves nothing", the_same_for_all),
        Property("distance is measured from the start, however many rounds there are", some_rounds),
    ],
    mistakes=[
        Mistake(
            "the reference is the actor",
            "Two names for one tensor: what changes the actor in place changes the reference too. The distance is exactly 0 for ever, and nobody pays for it.",
            "08, Who is in the loop",
            edit=("reference = start.clone()", "reference = actor"),
        ),
        Mistake(
            "the reference follows the actor",
            "That measures how far the last round has gone. The reference is the actor as it was at the very start.",
            "08, Who is in the loop",
            edit=("        actor += change\n", "        reference = actor.clone()\n        actor += change\n"),
        ),
        Mistake(
            "the distance is taken before the step",
            "After the first round the actor has moved already: the step comes first, then the measurement.",
            "08, One round, stage by stage",
            edit=[("        actor += change\n", ""), ("(ours - theirs)).sum())\n", "(ours - theirs)).sum())\n        actor += change\n")],
        ),
        Mistake(
            "each round begins at the start again",
            "The rounds add up: each moves the actor that the last one left.",
            "08, One round, stage by stage",
            edit=("actor += change", "actor = start + change"),
        ),
        Mistake(
            "the KL runs the other way",
            "The actor says the replies, so the mean is over the actor's probabilities.",
            "03, Distance",
            edit=("(ours.exp() * (ours - theirs))", "(theirs.exp() * (theirs - ours))"),
        ),
        Mistake(
            "the KL has the wrong sign",
            "The log-ratio is the actor's log-probability less the reference's. A KL is never negative.",
            "03, Distance",
            edit=("(ours - theirs)", "(theirs - ours)"),
        ),
        Mistake(
            "logits are taken for log-probabilities",
            "Logits need not belong to probabilities that add up to 1: log_softmax makes them do so.",
            "01, A model is a table of next-token probabilities",
            edit=[("actor.log_softmax(-1)", "actor"), ("reference.log_softmax(-1)", "reference")],
        ),
        Mistake(
            "every reply counts alike",
            "The KL is a mean over what the actor says: each reply counts with its probability.",
            "03, Distance",
            edit=("(ours.exp() * (ours - theirs)).sum()", "(ours - theirs).mean()"),
        ),
        Mistake(
            "the sum is divided by the number of replies",
            "The probabilities add up to 1 already: the sum that they weigh *is* the mean.",
            "03, Distance",
            edit=("(ours - theirs)).sum()", "(ours - theirs)).mean()"),
        ),
    ],
    hints=[
        "What does the function say after a single round with a large change? What would be right?",
        "`+=` changes a tensor in place. Which names point to the tensor that it changes?",
    ],
)  # fmt: skip


# ---- 08.4


def read_critic(explained, scores, *, window, margin):
    """What has become of the critic, and whether the score shows it. Two lists of floats, one number for each round.

    Returns {"critic": "explains" | "says nothing" | "misleads", "level": float, "gain": float}.
    """
    level = float(np.mean(explained[-window:]))
    gain = float(np.mean(scores[-window:]) - np.mean(scores[:window]))
    if level > margin:
        return {"critic": "explains", "level": level, "gain": gain}
    if level < -margin:
        return {"critic": "misleads", "level": level, "gain": gain}
    return {"critic": "says nothing", "level": level, "gain": gain}


def read_critic_by_sums(explained, scores, *, window, margin):
    count = len(scores)
    first, last = (sum(scores[i] for i in rounds) / window for rounds in (range(window), range(count - window, count)))
    level = sum(explained[i] for i in range(count - window, count)) / window
    words = {1: "explains", 0: "says nothing", -1: "misleads"}
    return {"critic": words[(level > margin) - (level < -margin)], "level": level, "gain": last - first}


def climb(draw: Draw, count: int, first: float, last: float) -> list[float]:
    """`count` scores on the way from `first` to `last`, with noise."""
    steps = max(1, count - 1)
    return [round(first + (last - first) * i / steps + draw.number(-0.08, 0.08), 2) for i in range(count)]


def critic_curve(draw: Draw, kind: str, count: int, window: int) -> list[float]:
    early, rest = count - window, {
        "explains": (0.35, 0.7), "says nothing": (-0.05, 0.05), "misleads": (-3.0, -0.4),
        "broke": (-2.0, -0.4), "recovered": (0.3, 0.6),
    }[kind]  # fmt: skip
    before = {"broke": (0.3, 0.6), "recovered": (-2.0, -0.4)}.get(kind, (-0.08, 0.08))
    return [*(draw.number(*before) for _ in range(early)), *(draw.number(*rest) for _ in range(window))]


def a_run(draw: Draw, kind: str, count: int, window: int, first=None, last=None) -> dict:
    first = draw.number(-0.8, -0.4) if first is None else first
    last = first + draw.number(0.4, 0.9) if last is None else last
    return {
        "explained": critic_curve(draw, kind, count, window),
        "scores": climb(draw, count, first, last),
        "window": window,
        "margin": 0.1,
    }


def a_good_critic(draw: Draw):
    yield a_run(draw, "explains", 4, 2)
    yield a_run(draw, "explains", 8, 4)


def a_blank_critic(draw: Draw):
    yield a_run(draw, "says nothing", 4, 2)
    yield a_run(draw, "says nothing", 8, 4, first=-0.4, last=-0.45)


def a_wild_critic(draw: Draw):
    yield a_run(draw, "misleads", 4, 2, first=-0.3, last=-0.9)
    yield a_run(draw, "misleads", 9, 3)


def it_changed(draw: Draw):
    yield a_run(draw, "broke", 7, 3, first=-0.2, last=-0.9)
    yield a_run(draw, "recovered", 7, 3)


def one_odd_round(draw: Draw):
    up = a_run(draw, "explains", 8, 4)
    up["explained"][-1] = draw.number(-0.4, -0.2)
    yield up
    down = a_run(draw, "misleads", 8, 4)
    down["explained"][-1] = draw.number(0.15, 0.3)
    yield down


def on_the_limit(draw: Draw):
    for high, low in ((0.5, -0.25), (0.25, -0.5)):
        run = a_run(draw, "says nothing", 5, 2)
        run["explained"][-2:] = [high, low]
        yield run | {"margin": 0.125}


CRITIC = Task(
    id="08.4",
    title="What has become of the critic",
    kind="read the curve",
    points=2,
    difficulty="easy",
    minutes=10,
    reference=read_critic,
    also_correct=[read_critic_by_sums],
    properties=[
        Property("a critic that has learnt explains", a_good_critic),
        Property("one whose level stays near 0 says nothing", a_blank_critic),
        Property("one far below 0 misleads, whatever the score does", a_wild_critic),
        Property("what counts is where the curve ends, not where it was", it_changed),
        Property("a single odd round decides nothing", one_odd_round),
        Property("a level that lies on a limit says nothing", on_the_limit),
    ],
    mistakes=[
        Mistake(
            "the last round alone decides",
            "A round has few replies, and its figure is noisy. A mean of several rounds shows the level.",
            "08, Live: three prices",
            edit=("explained[-window:]", "explained[-1:]"),
        ),
        Mistake(
            "the whole curve is averaged",
            "The early rounds say what the critic was. A critic that has broken down, or recovered, is judged by its last ones.",
            "07, Is a critic any good here?",
            edit=("explained[-window:]", "explained"),
        ),
        Mistake(
            "the best round decides",
            "Among noisy rounds the best one is luck, and a critic that was good once may be lost by now.",
            "07, Is a critic any good here?",
            edit=("np.mean(explained[-window:])", "max(explained)"),
        ),
        Mistake(
            "the first rounds decide",
            "At the start every critic says 0 to everything. The last rounds show what it has learnt.",
            "07, Is a critic any good here?",
            edit=("explained[-window:]", "explained[:window]"),
        ),
        Mistake(
            "the margin is not looked at",
            "With so few replies a level of 0.02 cannot be told from none.",
            "07, Is a critic any good here?",
            edit=[("level > margin", "level > 0"), ("level < -margin", "level < 0")],
        ),
        Mistake(
            "a level that lies on a limit counts as beyond it",
            "`explains` is above the margin, `misleads` below minus the margin: a level on either limit says nothing.",
            "07, Is a critic any good here?",
            edit=[("level > margin", "level >= margin"), ("level < -margin", "level <= -margin")],
        ),
        Mistake(
            "below 0 passes for nothing",
            "At 0 the critic is no worse than one that says the same to everything. Below 0 its errors vary more than the returns do, and they end up in the advantages.",
            "07, Is a critic any good here?",
            edit=("level < -margin", "False"),
        ),
        Mistake(
            "only the size counts",
            "Explained variance has a sign: 1 is all, 0 is none, and below 0 a constant would do better.",
            "07, Is a critic any good here?",
            edit=("level > margin", "abs(level) > margin"),
        ),
        Mistake(
            "the gain is upside down",
            "What was gained is the end less the beginning.",
            "08, Live: three prices",
            edit=("np.mean(scores[-window:]) - np.mean(scores[:window])", "np.mean(scores[:window]) - np.mean(scores[-window:])"),
        ),
        Mistake(
            "the gain is that of two single rounds",
            "The scores of one round scatter as the critic's figure does: compare means of several rounds.",
            "08, Live: three prices",
            edit=("np.mean(scores[-window:]) - np.mean(scores[:window])", "scores[-1] - scores[0]"),
        ),
        Mistake(
            "the best score counts, not the last ones",
            "The highest of many noisy rounds flatters every run.",
            "08, Live: three prices",
            edit=("np.mean(scores[-window:])", "max(scores)"),
        ),
        Mistake(
            "the score at the end, not the gain",
            "Whether the score has noticed shows in how it changed: subtract where it began.",
            "08, Live: three prices",
            edit=(" - np.mean(scores[:window])", ""),
        ),
    ],
    hints=[
        "Take the mean of the last `window` values of `explained` first: on which side of the two limits does it lie?",
        "gain is the mean of the last `window` scores less the mean of the first `window`.",
    ],
)  # fmt: skip


TASKS = [DO_WITHOUT, PRICES, DISTANCES, CRITIC]
