"""Tasks of lesson 00, Start here."""

from course_lib.grading.task import Draw, Mistake, Property, Task

# ---- 00.1


def predicted_gold(reply, *, weights, free_tokens):
    """The gold reward of a reply to a question, a float.

    reply: {"answer": "right" | "wrong" | "none", "warm_phrases": int, "hedges": int,
        "wrong_form": bool, "tokens": int}
    weights: {"correct", "no_answer", "warmth", "hedge", "format", "length"}: floats with signs
    """
    answers = {"right": weights["correct"], "wrong": -weights["correct"], "none": weights["no_answer"]}
    answer = answers[reply["answer"]]
    warmth = weights["warmth"] * (reply["warm_phrases"] > 0)
    hedge = weights["hedge"] * (reply["hedges"] > 0)
    form = weights["format"] * reply["wrong_form"]
    length = weights["length"] * max(0, reply["tokens"] - free_tokens)
    return answer + warmth + hedge + form + length


def predicted_gold_step_by_step(reply, *, weights, free_tokens):
    total = weights["no_answer"]
    if reply["answer"] != "none":
        total = weights["correct"] if reply["answer"] == "right" else -weights["correct"]
    if reply["warm_phrases"]:
        total += weights["warmth"]
    if reply["hedges"]:
        total += weights["hedge"]
    if reply["wrong_form"]:
        total += weights["format"]
    if reply["tokens"] > free_tokens:
        total += weights["length"] * (reply["tokens"] - free_tokens)
    return total


def priced(draw: Draw, **reply) -> dict:
    """A reply beside weights of the usual signs; what is not said is absent, and the length is free."""
    free = draw.randint(8, 12)
    reply = {"answer": "right", "warm_phrases": 0, "hedges": 0, "wrong_form": False, "tokens": 0} | reply
    reply["tokens"] += free
    weights = {
        "correct": draw.number(0.9, 1.4),
        "no_answer": -draw.number(0.4, 0.7),
        "warmth": draw.number(0.2, 0.35),
        "hedge": -draw.number(0.4, 0.5),
        "format": -draw.number(0.7, 0.85),
        "length": -draw.number(0.03, 0.09),
    }
    return {"reply": reply, "weights": weights, "free_tokens": free}


def short_answers(draw: Draw):
    return [priced(draw, answer=answer, tokens=-draw.randint(2, 6)) for answer in ("right", "wrong", "none")]


def lengths(draw: Draw):
    return [priced(draw, tokens=more) for more in (0, 1, draw.randint(3, 9))]


def phrases(draw: Draw):
    for count in (1, draw.randint(2, 3)):
        yield priced(draw, warm_phrases=count)
        yield priced(draw, hedges=count)
    yield priced(draw, wrong_form=True)


def mixed_replies(draw: Draw):
    for answer in ("right", "wrong", "none"):
        yield priced(
            draw,
            answer=answer,
            warm_phrases=draw.randint(0, 2),
            hedges=draw.randint(1, 2),
            wrong_form=draw.random() < 0.5,
            tokens=draw.randint(-4, 9),
        )


GOLD = Task(
    id="00.1",
    title="What a reply will earn",
    kind="predict, then run",
    points=1,
    difficulty="easy",
    minutes=5,
    reference=predicted_gold,
    also_correct=[predicted_gold_step_by_step],
    properties=[
        Property("a short, plain reply earns what its answer is worth", short_answers),
        Property("a token costs only beyond the free ones", lengths),
        Property("warmth and hedging count once, and so does a wrong form", phrases),
        Property("the parts of a reply add up", mixed_replies),
    ],
    mistakes=[
        Mistake(
            "a wrong answer earns nothing",
            "A wrong answer costs as much as a right one earns: who trusts it is worse off than before.",
            "00, The gold reward",
            edit=('"wrong": -weights["correct"]', '"wrong": 0.0'),
        ),
        Mistake(
            "no answer counts as a wrong one",
            "A reply that says nothing misleads nobody. It has a weight of its own, `no_answer`.",
            "00, The gold reward",
            edit=('"none": weights["no_answer"]', '"none": -weights["correct"]'),
        ),
        Mistake(
            "no answer costs nothing",
            "Who asks wants an answer: a reply without one has a weight of its own, `no_answer`.",
            "00, The gold reward",
            edit=('"none": weights["no_answer"]', '"none": 0.0'),
        ),
        Mistake(
            "every token is charged",
            "The first tokens are free: only those beyond `free_tokens` have a price.",
            "00, The gold reward",
            edit=('reply["tokens"] - free_tokens', 'reply["tokens"]'),
        ),
        Mistake(
            "a short reply earns a bonus",
            "Below the free tokens the difference is negative, and so is the weight: their product would reward saying less. The part is 0 there.",
            "00, The gold reward",
            edit=('max(0, reply["tokens"] - free_tokens)', '(reply["tokens"] - free_tokens)'),
        ),
        Mistake(
            "the first token that costs is left out",
            "With ten free tokens the eleventh is the first that costs, so eleven tokens cost one weight.",
            "00, The gold reward",
            edit=('reply["tokens"] - free_tokens', 'reply["tokens"] - free_tokens - 1'),
        ),
        Mistake(
            "every warm phrase earns",
            "A reply is warm or it is not. If each phrase earned, replies stuffed with greetings would win.",
            "00, The gold reward",
            edit=('(reply["warm_phrases"] > 0)', 'reply["warm_phrases"]'),
        ),
        Mistake(
            "every hedge costs",
            "A reply hedges or it does not. A second hedge does not cost the weight again.",
            "00, The gold reward",
            edit=('(reply["hedges"] > 0)', 'reply["hedges"]'),
        ),
        Mistake(
            "costs are subtracted that are negative already",
            "The weights hold their signs, so all parts are added. To subtract a negative weight is to reward the fault.",
            "00, The gold reward",
            edit=("answer + warmth + hedge + form + length", "answer + warmth - hedge - form - length"),
        ),
        Mistake(
            "no answer's weight is subtracted",
            "The weight `no_answer` is negative already. Minus it would pay for saying nothing.",
            "00, The gold reward",
            edit=('"none": weights["no_answer"]', '"none": -weights["no_answer"]'),
        ),
        Mistake(
            "the price of length is subtracted",
            "The weight `length` is negative already. Minus it would pay for every token too many.",
            "00, The gold reward",
            edit=('weights["length"] * max', '-weights["length"] * max'),
        ),
        Mistake(
            "a long reply costs once",
            "Length is not there or not: every token beyond the free ones costs the weight again.",
            "00, The gold reward",
            edit=('max(0, reply["tokens"] - free_tokens)', '(reply["tokens"] > free_tokens)'),
        ),
    ],
    hints=[
        "Go through the parts one by one, each with its weight. Three of them are there or not: warmth, hedge, form.",
        "A wrong answer is worth minus the weight `correct`. Length counts max(0, tokens - free_tokens) tokens.",
    ],
)  # fmt: skip


# ---- 00.2


def choose_model(golds, *, shares):
    """Which model earns most gold reward from your users.

    golds: {model: {kind: list of the gold rewards of its replies to requests of that kind}}
    shares: {kind: share of your users' requests}, adding up to 1

    Returns {"model": name, "expected": {model: mean gold reward of a request of your users}}.
    """
    expected = {}
    for model, by_kind in golds.items():
        expected[model] = sum(shares[kind] * sum(rewards) / len(rewards) for kind, rewards in by_kind.items())
    return {"model": max(expected, key=expected.get), "expected": expected}


def choose_model_with_numpy(golds, *, shares):
    import numpy as np

    kinds, best = list(shares), None
    weights, expected = np.array([shares[kind] for kind in kinds]), {}
    for model in golds:
        expected[model] = float(weights @ np.array([np.mean(golds[model][kind]) for kind in kinds]))
        if best is None or expected[model] > expected[best]:
            best = model
    return {"expected": expected, "model": best}


def replies(draw: Draw, level: float, count: int) -> list[float]:
    """Gold rewards about a level, at most 0.1 from it."""
    return [round(level + draw.number(-0.1, 0.1), 2) for _ in range(count)]


def in_any_order(draw: Draw, items: dict) -> dict:
    return dict(draw.sample(sorted(items.items()), len(items)))


def one_kind(draw: Draw):
    kind = draw.choice(["fact", "larger", "safe"])
    for better, worse in (("ours", "theirs"), ("theirs", "ours")):
        level = draw.number(0.2, 0.6)
        golds = {better: {kind: replies(draw, level, 3)}, worse: {kind: replies(draw, level - 0.4, 2)}}
        yield {"golds": in_any_order(draw, golds), "shares": {kind: 1.0}}


def other_tests(draw: Draw):
    """One model is better on both kinds, and was tested mostly on the kind that both do badly."""
    for _ in range(2):
        high, low, share = draw.number(0.6, 0.9), draw.number(-1.2, -0.8), draw.number(0.4, 0.6, 1)
        golds = {
            "ours": {"fact": replies(draw, high, 1), "unsafe": replies(draw, low, 4)},
            "theirs": {"fact": replies(draw, high - 0.4, 4), "unsafe": replies(draw, low - 0.4, 1)},
        }
        yield {"golds": in_any_order(draw, golds), "shares": {"fact": share, "unsafe": round(1 - share, 1)}}


def rare_and_common(draw: Draw):
    """One model is better on two rare kinds, by much, the other on the common one."""
    for _ in range(2):
        levels = draw.number(0.3, 0.5), draw.number(-0.4, -0.2), draw.number(0.0, 0.2)
        golds = {
            "ours": {kind: replies(draw, level, 2) for kind, level in zip(("fact", "safe", "unsafe"), levels)},
            "theirs": {
                "fact": replies(draw, levels[0] + 0.5, 3),
                "safe": replies(draw, levels[1] - 0.8, 2),
                "unsafe": replies(draw, levels[2] - 0.8, 2),
            },
        }
        rare = draw.number(0.05, 0.1)
        shares = {"fact": round(1 - 2 * rare, 2), "safe": rare, "unsafe": rare}
        yield {"golds": in_any_order(draw, golds), "shares": shares}


def three_models(draw: Draw):
    levels = draw.sample([-0.7, -0.1, 0.5], 3)
    kinds = {"fact": 0.5, "longer": 0.3, "unsafe": 0.2}
    golds = {
        model: {
            kind: replies(draw, level + offset, draw.randint(2, 4)) for kind, offset in zip(kinds, (0.2, -0.1, -0.5))
        }
        for model, level in zip(("base", "sft", "ours"), levels)
    }
    yield {"golds": golds, "shares": kinds}


CHOICE = Task(
    id="00.2",
    title="Two tests, one choice",
    kind="choose the method",
    points=2,
    difficulty="medium",
    minutes=10,
    reference=choose_model,
    also_correct=[choose_model_with_numpy],
    properties=[
        Property("with one kind of request, the mean over the replies decides", one_kind),
        Property("a model is not judged by how many requests of each kind its test held", other_tests),
        Property("what your users ask often weighs more than what they ask rarely", rare_and_common),
        Property("of three models the best is chosen", three_models),
    ],
    mistakes=[
        Mistake(
            "the mean over all replies of a test",
            "That mean depends on how many requests of each kind the test held. A model can be better on every kind, and look worse because its test was harder.",
            "00, Meet the base model",
            edit=(
                "sum(shares[kind] * sum(rewards) / len(rewards) for kind, rewards in by_kind.items())",
                "sum(map(sum, by_kind.values())) / sum(map(len, by_kind.values()))",
            ),
        ),
        Mistake(
            "every kind weighs the same",
            "The mean of the kinds' means takes it that your users ask for each kind equally often. Their shares say otherwise.",
            "00, Meet the base model",
            edit=("shares[kind] * sum(rewards)", "1 / len(by_kind) * sum(rewards)"),
        ),
        Mistake(
            "the shares are not used",
            "A sum of the kinds' means depends on how many kinds there are. Weigh each by the share of requests that are of its kind.",
            "00, Meet the base model",
            edit=("shares[kind] * sum(rewards)", "sum(rewards)"),
        ),
        Mistake(
            "the sum over a kind's replies, not their mean",
            "A sum grows with the number of replies that were tested. What one request earns is a mean.",
            "00, Meet the base model",
            edit=(" / len(rewards)", ""),
        ),
        Mistake(
            "each kind's sum is divided by the number of all replies",
            "Then a kind weighs twice, by your users' share and by its number in the test. Take each kind's own mean first.",
            "00, Meet the base model",
            edit=(" / len(rewards)", " / sum(map(len, by_kind.values()))"),
        ),
        Mistake(
            "the model that is better on more kinds is chosen",
            "How often a model wins says nothing of how much it wins by, nor how often your users meet it. The expected reward weighs both.",
            "00, Meet the base model",
            edit=(
                "max(expected, key=expected.get)",
                "max(golds, key=lambda model: sum(sum(r) / len(r) >= max(sum(o[kind]) / len(o[kind]) for o in golds.values()) for kind, r in golds[model].items()))",
            ),
        ),
        Mistake(
            "the lowest reward is chosen",
            "Gold reward is to be high.",
            "00, The gold reward",
            edit=("max(expected", "min(expected"),
        ),
        Mistake(
            "every reply is weighed by its kind's share",
            "Then a kind still weighs more if more of its requests were tested. Take each kind's own mean first, and weigh that.",
            "00, Meet the base model",
            edit=("sum(shares[kind] * sum(rewards) / len(rewards) for kind, rewards in by_kind.items())", "sum(shares[kind] * sum(rewards) for kind, rewards in by_kind.items()) / sum(shares[kind] * len(rewards) for kind, rewards in by_kind.items())"),
        ),
    ],
    hints=[
        "What does one request of a given kind earn, on average? That number does not depend on how many were tested.",
        "Weigh each kind's mean by the share of your users' requests that are of this kind, and add up.",
    ],
)  # fmt: skip


# ---- 00.3


def suffers_first(temperatures, parts, *, drop):
    """Which part of the gold reward suffers first as the temperature rises, and where.

    temperatures: N rising floats; parts: {part: list of N means, one for each temperature}
    drop: a float above 0

    Returns {"part": name or None, "temperature": float or None}.
    """
    found = {}
    for part, means in parts.items():
        lost = [means[0] - mean for mean in means]
        for n in range(len(means)):
            if min(lost[n:]) > drop:
                found[part] = n
                break
    first = min(found, key=found.get, default=None)
    return {"part": first, "temperature": temperatures[found[first]] if found else None}


def suffers_first_from_the_end(temperatures, parts, *, drop):
    answer = {"part": None, "temperature": None}
    for part, means in parts.items():
        n = len(means)
        while means[n - 1] < means[0] - drop:
            n -= 1
        if n < len(means) and (answer["part"] is None or temperatures[n] < answer["temperature"]):
            answer = {"part": part, "temperature": temperatures[n]}
    return answer


def level(draw: Draw) -> float:
    return -draw.number(0.05, 0.09)


def wobbling(draw: Draw, count: int, around: float) -> list[float]:
    """A curve that goes nowhere: it leaves its start by 0.1 at most, once by just that."""
    curve = [around, *(round(around + draw.number(-0.05, 0.05), 2) for _ in range(count - 1))]
    curve[-1] = round(around - 0.1, 2)
    return curve


def falling(draw: Draw, count: int, around: float, at: int, by: float) -> list[float]:
    """A curve that falls by `by` at place `at`, and a little further at every place behind it."""
    curve = wobbling(draw, count, around)
    return curve[:at] + [round(around - by - 0.02 * n, 2) for n in range(count - at)]


def shuffled(draw: Draw, curves: list[list[float]], drop: float) -> dict:
    names = draw.sample(["correct", "safety", "hedge", "length", "malformed"], len(curves))
    parts = in_any_order(draw, dict(zip(names, curves)))
    count = len(curves[0])
    temperatures = [[0.0, 0.5, 1.0, 1.5, 2.0, 2.5], [0.0, 0.3, 0.6, 0.9, 1.2, 1.5]][draw.randint(0, 1)][:count]
    return {"temperatures": temperatures, "parts": parts, "drop": drop}


def a_fall(draw: Draw):
    for count, at in ((4, 1), (4, 2), (5, 4)):
        fall = falling(draw, count, draw.number(0.5, 0.8), at, draw.number(0.5, 0.7))
        yield shuffled(draw, [fall, wobbling(draw, count, level(draw))], draw.number(0.3, 0.4))


def two_falls(draw: Draw):
    for early, late in ((1, 3), (2, 3), (2, 4)):
        mild = falling(draw, 5, draw.number(0.4, 0.6), early, draw.number(0.5, 0.6))
        deep = falling(draw, 5, level(draw), late, draw.number(1.5, 3.0))
        yield shuffled(draw, [mild, deep, wobbling(draw, 5, draw.number(0.3, 0.5))], draw.number(0.3, 0.4))


def a_dip(draw: Draw):
    for at in (1, 2):
        dips = wobbling(draw, 5, draw.number(0.5, 0.8))
        dips[at] = round(dips[0] - draw.number(0.5, 0.6), 2)
        yield shuffled(draw, [dips, wobbling(draw, 5, level(draw))], draw.number(0.3, 0.4))
        falls = falling(draw, 5, draw.number(0.4, 0.6), at + 1, draw.number(0.5, 0.7))
        yield shuffled(draw, [dips, falls], draw.number(0.3, 0.4))


def slow_falls(draw: Draw):
    for at in (1, 2):
        start, step = draw.number(0.4, 0.7), draw.number(0.2, 0.24)
        slow = [round(start - step * max(0, n - at + 1), 2) for n in range(6)]
        yield shuffled(draw, [slow, wobbling(draw, 6, level(draw))], draw.number(0.3, 0.35))


def no_fall(draw: Draw):
    """A gain, a part that was always low, and a loss that lies on the limit (numbers that are exact in binary)."""
    gain = [round(-value, 2) for value in falling(draw, 4, -draw.number(0.2, 0.4), 2, draw.number(0.6, 0.9))]
    low = wobbling(draw, 4, -draw.number(0.7, 1.2))
    yield shuffled(draw, [[0.5, 0.5, 0.25, 0.25], gain], 0.25)
    yield shuffled(draw, [gain, low, wobbling(draw, 4, level(draw))], draw.number(0.3, 0.4))


SUFFERS = Task(
    id="00.3",
    title="What suffers first",
    kind="read the curve",
    points=2,
    difficulty="medium",
    minutes=10,
    reference=suffers_first,
    also_correct=[suffers_first_from_the_end],
    properties=[
        Property("a part that falls for good is named, with the temperature", a_fall),
        Property("of two parts that fall, the earlier counts, even if the other falls further", two_falls),
        Property("one bad measurement is no fall", a_dip),
        Property("a slow fall counts from where it has lost more than `drop`", slow_falls),
        Property("a gain, a low start and a loss of just `drop` are no fall", no_fall),
    ],
    mistakes=[
        Mistake(
            "one bad measurement counts as a fall",
            "A mean over a few hundred sampled replies is noisy. A part that recovers at the next temperature has not suffered from the temperature.",
            "00, Try it",
            edit=("min(lost[n:]) > drop", "lost[n] > drop"),
        ),
        Mistake(
            "each temperature is compared with the one before",
            "A part can lose a little at every step and much in all. Compare with the first temperature.",
            "00, Try it",
            edit=[
                ("[means[0] - mean for mean in means]", "[0.0] + [before - mean for before, mean in zip(means, means[1:])]"),
                ("min(lost[n:]) > drop", "lost[n] > drop"),
            ],
        ),
        Mistake(
            "the part that loses most is named",
            "The question is which part is the first to suffer. The one that loses most at the end may hold out longer.",
            "00, Try it",
            edit=("min(found, key=found.get, default=None)", "max(found, key=lambda part: parts[part][0] - parts[part][-1], default=None)"),
        ),
        Mistake(
            "how low a part is, not how much it has lost",
            "The SFT model hedges and is too long at temperature 0 as well: a part that was always low has not suffered from the temperature.",
            "00, Meet the base model",
            edit=("means[0] - mean for", "-mean for"),
        ),
        Mistake(
            "a gain counts as a loss",
            "The size of a change has no direction. Only a part that becomes lower costs reward.",
            "00, Meet the base model",
            edit=("[means[0] - mean for", "[abs(means[0] - mean) for"),
        ),
        Mistake(
            "the loss as a share of the start",
            "`drop` is in units of gold reward. As shares, a part that is nearly 0 at the start would suffer from any breath of noise.",
            "00, The gold reward",
            edit=("[means[0] - mean for", "[(means[0] - mean) / abs(means[0]) for"),
        ),
        Mistake(
            "the last good temperature, not the first bad one",
            "Asked for is the temperature at which the part has suffered, not the one before it.",
            "00, Try it",
            edit=("found[part] = n", "found[part] = n - 1"),
        ),
        Mistake(
            "the place in the list, not the temperature",
            "The evidence is a temperature, so that somebody can set it. A place means nothing without the list.",
            "00, Try it",
            edit=("temperatures[found[first]]", "found[first]"),
        ),
        Mistake(
            "the loss is turned round",
            "A loss is the mean at the first temperature minus the mean at this one. The other way round it is a gain.",
            "00, Meet the base model",
            edit=("means[0] - mean for", "mean - means[0] for"),
        ),
        Mistake(
            "a loss of just `drop` counts",
            "The loss must be more than `drop`, so a loss that lies on the limit is none.",
            "00, Try it",
            edit=("min(lost[n:]) > drop", "min(lost[n:]) >= drop"),
        ),
    ],
    hints=[
        "For each part: how much has it lost at each temperature, compared with the first?",
        "A part has suffered from place n on if every loss from place n to the end is more than `drop`.",
        "Find each part's first such place; then take the part whose place comes first.",
    ],
)  # fmt: skip


TASKS = [GOLD, CHOICE, SUFFERS]
