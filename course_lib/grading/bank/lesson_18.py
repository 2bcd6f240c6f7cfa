"""Tasks of lesson 18, The same on a real model."""

import math

import torch

from course_lib.grading.task import Draw, Mistake, Property, Task

# ---- 18.1


def own_pairs(words, right, ended):
    """Preference pairs from n replies to each of P questions.

    `words` (P, n): whole numbers; `right` and `ended` (P, n): booleans.
    Returns a list of [best, worst], in the order of the questions: places among all P * n replies.
    """
    scores = right.float() - words / 40 - (~ended).float()
    pairs = []
    for i, row in enumerate(scores):
        best, worst = row.argmax().item(), row.argmin().item()
        good = right[i, best] and ended[i, best]
        if good and row[best] > row[worst]:
            pairs.append([len(row) * i + best, len(row) * i + worst])
    return pairs


def own_pairs_by_sorting(words, right, ended):
    pairs, n = [], words.shape[1]
    for i in range(len(words)):
        group = [(words[i, j].item() - 40 * right[i, j].item() + 40 * (not ended[i, j]), i * n + j) for j in range(n)]
        group.sort()
        (low, best), (high, worst) = group[0], group[-1]
        if low < 0 and low < high:
            pairs.append([best, worst])
    return pairs


def a_group(draw: Draw, kinds: list[str], *, low: int = 2) -> tuple[list[int], list[bool], list[bool]]:
    """One reply of each kind, in any order, no two of equal length: "right" or "wrong", and "cut" behind it."""
    kinds = draw.sample(kinds, len(kinds))
    lengths = draw.sample(range(low, 38), len(kinds))
    return lengths, ["right" in kind for kind in kinds], ["cut" not in kind for kind in kinds]


def groups(*rows) -> dict:
    words, right, ended = (torch.tensor(list(column)) for column in zip(*rows))
    return {"words": words, "right": right, "ended": ended}


def all_ended(draw: Draw):
    yield groups(a_group(draw, ["right", "right"]))
    shortest_is_wrong = ([4, 9, 30, 15], [False, True, True, False], [True] * 4)
    longest_is_right = ([12, 33, 8, 25], [True, True, False, False], [True] * 4)
    yield groups(shortest_is_wrong, a_group(draw, ["right"] * 4), longest_is_right)
    yield groups(*(a_group(draw, ["right", "right", "wrong"]) for _ in range(5)))


def some_cut(draw: Draw):
    yield groups(([20, 11, 14], [True, True, False], [True, False, True]))
    yield groups(*(a_group(draw, ["right", "right", "right cut", "wrong cut"]) for _ in range(3)))
    yield groups(([6, 9, 30], [True, False, True], [False, True, True]), a_group(draw, ["right", "right cut", "wrong"]))


def none_good(draw: Draw):
    yield groups(([5, 9, 20], [False, False, False], [True, True, True]), a_group(draw, ["right", "right", "wrong"]))
    yield groups(([5, 9, 20], [True, False, True], [False, True, False]), a_group(draw, ["right", "wrong", "wrong"]))
    yield groups(
        ([25, 9, 20], [True, False, True], [False, True, False]), a_group(draw, ["right", "wrong cut", "wrong"])
    )


def all_alike(draw: Draw):
    alike = ([draw.randint(3, 20)] * 3, [True] * 3, [True] * 3)
    yield groups(alike)
    yield groups(a_group(draw, ["right", "wrong", "right cut"]), alike, a_group(draw, ["right", "right", "right"]))


PAIRS = Task(
    id="18.1",
    title="Pairs of its own",
    kind="implement",
    points=3,
    difficulty="medium",
    minutes=15,
    reference=own_pairs,
    also_correct=[own_pairs_by_sorting],
    properties=[
        Property("where all replies ended, the shortest right one is chosen and the one of lowest score rejected", all_ended),
        Property("a reply that was cut off is never chosen", some_cut),
        Property("a question without a right reply that ended gives no pair", none_good),
        Property("a question whose replies all score alike gives no pair", all_alike),
    ],
    mistakes=[
        Mistake(
            "the shortest reply is best, right or wrong",
            "Then pairs teach to say something short, whatever it is. A right answer has to be worth more than any number of words saved.",
            "18, A wish that a program can judge",
            edit=("right.float() - words / 40", "-words / 40"),
        ),
        Mistake(
            "the longest right reply is best",
            "Each word costs: the number of words is taken off, not added.",
            "18, A wish that a program can judge",
            edit=("- words / 40", "+ words / 40"),
        ),
        Mistake(
            "being cut off costs nothing",
            "A reply that was cut off has no end of its own. Its score lacks the 1 that it loses, and another reply is best or worst.",
            "18, Pairs of its own",
            edit=(" - (~ended).float()", ""),
        ),
        Mistake(
            "ended replies lose the 1, not those that were cut off",
            "`ended` is True for a reply that came to its end by itself.",
            "18, Pairs of its own",
            edit=("(~ended).float()", "ended.float()"),
        ),
        Mistake(
            "a reply that was cut off may be chosen",
            "Where nothing right came to its end, a right reply that was cut off can still have the best score. Chosen, it would teach to stop in mid-sentence.",
            "18, Pairs of its own",
            edit=("right[i, best] and ended[i, best]", "right[i, best]"),
        ),
        Mistake(
            "a wrong reply may be chosen",
            "The best of a bad group is still wrong. Chosen, it teaches a wrong answer.",
            "18, Pairs of its own",
            edit=("right[i, best] and ended[i, best]", "ended[i, best]"),
        ),
        Mistake(
            "every group gives a pair whose scores differ",
            "The best of a group need not be good: it may be wrong, or cut off.",
            "18, Pairs of its own",
            edit=("if good and row[best] > row[worst]", "if row[best] > row[worst]"),
        ),
        Mistake(
            "ties are kept",
            "Where all replies score alike nobody is better, and the label would be a coin.",
            "18, Pairs of its own",
            edit=("if good and row[best] > row[worst]", "if good"),
        ),
        Mistake(
            "the longest reply is rejected, not the worst",
            "A short wrong reply scores less than a long right one: the score decides on both sides.",
            "18, Pairs of its own",
            edit=("row.argmin()", "words[i].argmax()"),
        ),
        Mistake(
            "only wrong replies are rejected",
            "Two right replies of unequal length are a pair too. They are the ones that teach brevity alone.",
            "18, Pairs of its own",
            edit=("row[best] > row[worst]", "row[best] > row[worst] and not right[i, worst]"),
        ),
        Mistake(
            "best and worst are swapped",
            "The first of the two is the chosen reply. Swapped, DPO teaches the opposite.",
            "18, Pairs of its own",
            edit=("[len(row) * i + best, len(row) * i + worst]", "[len(row) * i + worst, len(row) * i + best]"),
        ),
        Mistake(
            "places are counted within the group",
            "Asked for is the place among all P * n replies: n for each question before this one have to be added.",
            "18, Pairs of its own",
            edit=("[len(row) * i + best, len(row) * i + worst]", "[best, worst]"),
        ),
        Mistake(
            "places are counted with P for n",
            "Before question i there are i groups of n replies each.",
            "18, Pairs of its own",
            edit=("[len(row) * i + best, len(row) * i + worst]", "[len(scores) * i + best, len(scores) * i + worst]"),
        ),
    ],
    hints=[
        "Give each reply a score: 1 if it is right, less 1/40 for each word, less 1 if it was cut off.",
        "Best and worst are where the score is highest and lowest. When is the best good enough to be chosen?",
        "A pair needs three things: its best is right, its best ended, and its scores differ.",
    ],
    equivalent={
        "`words / 40` -> `words / 41`": "lengths stay below 40 words, so the order is the same",
        "`words / 40` -> `words / 39`": "lengths stay below 39 words, so the order is the same",
    },
)  # fmt: skip


# ---- 18.2


def brief_rewards(replies, accepted):
    """1 for a right reply, less 1/40 for each of its words; a list with one float for each reply.

    `accepted`: the answers that count, in small letters. A reply is right if it holds one of them
    as a word of its own, and does not say that it is sorry.
    """
    rewards = []
    for reply in replies:
        said = [word.strip(".,!?") for word in reply.lower().split()]
        right = any(answer in said for answer in accepted) and "sorry" not in said
        rewards.append(float(right) - len(said) / 40)
    return rewards


def brief_rewards_by_sets(replies, accepted):
    def one(reply):
        said = "".join(" " if letter in ".,!?" else letter for letter in reply.lower()).split()
        return (1.0 if set(said) & set(accepted) and not {"sorry"} & set(said) else 0.0) - 0.025 * len(said)

    return [one(reply) for reply in replies]


INSIDE = [  # an answer, and words that hold it without being it
    ("ice", ["nice", "rice", "price"]),
    ("8", ["18", "80", "28"]),
    ("cat", ["catch", "locate", "cattle"]),
    ("ran", ["orange", "grand", "france"]),
]
ANSWERS = ["paris", "cold", "mice", "honey", "seven", "puppy", "went"]
STARTS = ["i think it is", "the answer must be", "people call it", "it may be", "we say"]


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def whole_words(draw: Draw):
    for answer, others in draw.sample(INSIDE, 3):
        other = draw.choice(others)
        yield {"replies": [f"It is {other}.", f"It is {answer}.", f"{capital(other)}!"], "accepted": [answer]}


def as_people_write(draw: Draw):
    one, two, three = draw.sample(ANSWERS, 3)
    start = draw.choice(STARTS)
    yield {"replies": [f"{capital(one)}.", f"{one.upper()}!", f"Is it {one}?"], "accepted": [one]}
    yield {
        "replies": [f"{capital(start)} {one}, yes.", f"No, {two}.", f"{capital(three)}, no."],
        "accepted": [one, two],
    }


def lengths(draw: Draw):
    answer, wrong = draw.sample(ANSWERS, 2)
    start, more = draw.choice(STARTS), " as all of us have learnt at school"
    replies = [f"{capital(said)}{end}." for said in (answer, wrong) for end in ("", more)]
    yield {"replies": replies, "accepted": [answer]}
    yield {
        "replies": [f"{capital(start)} {answer}{more * 2}.", f"{capital(start)} {wrong}{more * 3}."],
        "accepted": [answer],
    }


def refusals(draw: Draw):
    answer = draw.choice(ANSWERS)
    yield {"replies": ["Sorry.", f"Sorry, {answer} is all that i can say."], "accepted": [answer]}
    yield {"replies": [f"I am sorry, no {answer} today.", f"{capital(answer)}."], "accepted": [answer, "sorry"]}


def nothing_said(draw: Draw):
    answer = draw.choice(ANSWERS)
    yield {"replies": ["", f"{capital(answer)}."], "accepted": [answer]}
    yield {"replies": ["", "  ", "Hello."], "accepted": [answer]}


REWARD = Task(
    id="18.2",
    title="A program that judges",
    kind="fix the bug",
    points=2,
    difficulty="easy",
    minutes=10,
    reference=brief_rewards,
    also_correct=[brief_rewards_by_sets],
    properties=[
        Property("an answer counts as a word of its own, not as a part of another word", whole_words),
        Property("capitals, stops and commas do not matter, and one accepted answer is enough", as_people_write),
        Property("each word costs 1/40, in right replies and in wrong ones", lengths),
        Property("a reply that says sorry is not right", refusals),
        Property("an empty reply earns 0", nothing_said),
    ],
    mistakes=[
        Mistake(
            "an answer counts inside another word",
            "`in` asks a text for letters, a list for words: \"ice\" is in \"nice\" and \"8\" in \"18\". Training finds such gifts, and keeps them.",
            "18, A wish that a program can judge",
            edit=("answer in said for", "answer in reply.lower() for"),
        ),
        Mistake(
            "capital letters are not made small",
            "Replies begin with a capital letter. \"Paris\" is not \"paris\", and a right answer earns nothing.",
            "18, A wish that a program can judge",
            edit=("reply.lower().split()", "reply.split()"),
        ),
        Mistake(
            "stops and commas stay on the words",
            "A sentence ends with a full stop: its last word would be \"paris.\", which nobody accepted.",
            "18, A wish that a program can judge",
            edit=("word.strip(\".,!?\")", "word"),
        ),
        Mistake(
            "letters are counted, not words",
            "`len` of a text is its letters. Short answers of long words would look long.",
            "18, A wish that a program can judge",
            edit=("len(said) / 40", "len(reply) / 40"),
        ),
        Mistake(
            "words are paid, not charged",
            "Each word costs. With the sign turned round training makes replies as long as it can.",
            "18, A wish that a program can judge",
            edit=("float(right) - len(said)", "float(right) + len(said)"),
        ),
        Mistake(
            "all accepted answers have to be there",
            "\"Seven\" and \"7\" are two ways to be right; one is enough.",
            "18, A wish that a program can judge",
            edit=("any(answer", "all(answer"),
        ),
        Mistake(
            "only the first accepted answer counts",
            "Each of the accepted answers is right.",
            "18, A wish that a program can judge",
            edit=("for answer in accepted)", "for answer in accepted[:1])"),
        ),
        Mistake(
            "only the first word is looked at",
            "\"The answer is Paris\" is right as well; that it is longer is charged already.",
            "18, A wish that a program can judge",
            edit=("answer in said for", "answer in said[:1] for"),
        ),
        Mistake(
            "the reply has to be the answer and nothing else",
            "Then nearly all samples of a talkative model are wrong, groups have no good reply, and there is nothing to learn from.",
            "18, What its own samples can teach",
            edit=("answer in said for", "[answer] == said for"),
        ),
        Mistake(
            "a refusal that names the answer is right",
            "\"Sorry, Paris is all that I can say\" is no answer. A program that lets it pass rewards refusing.",
            "18, Short is not nothing",
            edit=(" and \"sorry\" not in said", ""),
        ),
        Mistake(
            "a refusal earns the 1",
            "\"Sorry.\" is the shortest thing to say. If it counts as right, nothing beats it.",
            "18, Short is not nothing",
            edit=("and \"sorry\" not in said", "or \"sorry\" in said"),
        ),
        Mistake(
            "an empty reply earns the 1",
            "Nothing is shorter than nothing: the reward's best reply would be silence.",
            "18, Short is not nothing",
            edit=("float(right)", "float(right or not said)"),
        ),
        Mistake(
            "wrong replies pay nothing for their length",
            "Then all wrong replies are alike, and pairs of wrong ones teach nothing about length.",
            "18, A wish that a program can judge",
            edit=("float(right) - len(said) / 40", "float(right) * (1 - len(said) / 40)"),
        ),
    ],
    hints=[
        "What does `\"ice\" in \"that is nice\"` give, and what `\"ice\" in [\"that\", \"is\", \"nice\"]`?",
        "The function already makes a list of the reply's words, in small letters and without stops.",
    ],
)  # fmt: skip


# ---- 18.3


def paired(before, after, *, t):
    """Words of each reply to the same N questions, of two models; both (N,) floats.

    `t`: Student's quantile.
    Returns {"mean", "error", "low", "high", "unpaired_error"}, five floats.
    """
    n = len(before)
    differences = after - before
    mean = differences.mean()
    error = differences.std() / math.sqrt(n)
    unpaired = (before.var() / n + after.var() / n).sqrt()
    return {
        "mean": mean,
        "error": error,
        "low": mean - t * error,
        "high": mean + t * error,
        "unpaired_error": unpaired,
    }


def paired_by_loops(before, after, *, t):
    def variance(values):
        middle = sum(values) / len(values)
        return sum((value - middle) ** 2 for value in values) / (len(values) - 1)

    one, two = before.tolist(), after.tolist()
    moved = [b - a for a, b in zip(one, two)]
    mean, error = sum(moved) / len(moved), (variance(moved) / len(moved)) ** 0.5
    unpaired = ((variance(one) + variance(two)) / len(one)) ** 0.5
    return {"mean": mean, "error": error, "low": mean - t * error, "high": mean + t * error, "unpaired_error": unpaired}


def few_questions(draw: Draw):
    for n, t in ((3, 4.3), (5, 2.78)):
        yield {
            "before": draw.numbers(n, low=15, high=40, digits=0),
            "after": draw.numbers(n, low=3, high=20, digits=0),
            "t": t,
        }


def all_by_as_much(draw: Draw):
    before = draw.distinct(6, low=8, high=40, digits=0)
    moved = torch.tensor([float(draw.randint(-1, 1)) for _ in range(5)] + [2.0]) - 5
    yield {"before": before, "after": before + moved, "t": 2.57}


def none_moved(draw: Draw):
    before = draw.distinct(4, low=8, high=40, digits=0)
    yield {"before": before, "after": before + torch.tensor([1.0, -1.0, 2.0, -2.0]), "t": 3.18}


def many_questions(draw: Draw):
    n = draw.randint(24, 30)
    before = draw.numbers(n, low=10, high=40, digits=0)
    yield {"before": before, "after": (before * 0.3).round() + draw.numbers(n, low=0, high=6, digits=0), "t": 2.06}


ERROR = Task(
    id="18.3",
    title="The same questions twice",
    kind="calculate",
    points=2,
    difficulty="medium",
    minutes=10,
    reference=paired,
    also_correct=[paired_by_loops],
    properties=[
        Property("a few questions", few_questions),
        Property("where nearly all replies change by as much, the paired error is small", all_by_as_much),
        Property("where replies change both ways, the mean is 0", none_moved),
        Property("many questions", many_questions),
    ],
    mistakes=[
        Mistake(
            "before less after",
            "Asked for is what changed: after less before. Replies that became shorter have a mean below 0.",
            "18, Over seeds, and over questions",
            edit=("after - before", "before - after"),
        ),
        Mistake(
            "the standard deviation, not the error of the mean",
            "The deviation says how much questions differ and does not shrink with their number; the error of their mean is it over the square root of N.",
            "18, Over seeds, and over questions",
            edit=("differences.std() / math.sqrt(n)", "differences.std()"),
        ),
        Mistake(
            "divided by N, not by its root",
            "Variances add, so the variance of a mean is over N and its root over the root of N.",
            "18, Over seeds, and over questions",
            edit=("math.sqrt(n)", "n"),
        ),
        Mistake(
            "the variance is taken for the deviation",
            "An error has the unit of the thing itself, words, and not words squared.",
            "18, Over seeds, and over questions",
            edit=("differences.std()", "differences.var()"),
        ),
        Mistake(
            "the deviation is taken over N, not N - 1",
            "The mean is estimated from the same differences, which costs one degree of freedom; with three questions that is a fifth.",
            "18, Over seeds, and over questions",
            edit=("differences.std()", "differences.std(correction=0)"),
        ),
        Mistake(
            "the interval is made of the unpaired error",
            "Both models answer the same questions: what is long for one is long for the other, and that part cancels in the difference.",
            "18, Over seeds, and over questions",
            edit=[("mean - t * error", "mean - t * unpaired"), ("mean + t * error", "mean + t * unpaired")],
        ),
        Mistake(
            "the interval is one error wide, without t",
            "An interval of one error holds the true mean in two cases of three. Student's quantile makes it 95 in 100.",
            "18, Over seeds, and over questions",
            edit=[("mean - t * error", "mean - error"), ("mean + t * error", "mean + error")],
        ),
        Mistake(
            "t is 1.96 whatever N",
            "1.96 is for very many questions. With few, the deviation itself is uncertain, and t is larger.",
            "18, Over seeds, and over questions",
            edit=[("mean - t * error", "mean - 1.96 * error"), ("mean + t * error", "mean + 1.96 * error")],
        ),
        Mistake(
            "both errors are added without squares",
            "Independent errors add as squares: the root of the sum of both variances.",
            "18, Over seeds, and over questions",
            edit=("(before.var() / n + after.var() / n).sqrt()", "(before.std() + after.std()) / math.sqrt(n)"),
        ),
        Mistake(
            "the unpaired error is that of one model alone",
            "Both means are uncertain.",
            "18, Over seeds, and over questions",
            edit=("before.var() / n + after.var() / n", "before.var() / n"),
        ),
        Mistake(
            "the unpaired variances are averaged",
            "The variance of a difference of independent means is the sum of both, not their mean.",
            "18, Over seeds, and over questions",
            edit=("(before.var() / n + after.var() / n).sqrt()", "(before.var() / n / 2 + after.var() / n / 2).sqrt()"),
        ),
        Mistake(
            "low and high are swapped",
            "The lower end is the mean less t errors.",
            "18, Over seeds, and over questions",
            edit=[("\"low\": mean", "\"high\": mean"), ("\"high\": mean + t", "\"low\": mean + t")],
        ),
    ],
    hints=[
        "Work with one number for each question: how many words its reply changed by.",
        "The error of a mean is the deviation of what is averaged (over N - 1) divided by the root of N.",
        "Unpaired, the two means count as independent: the variances of both means add.",
    ],
)  # fmt: skip


# ---- 18.4


def expected_pairs(chances, *, n, rare):
    """Whether n samples differ. `chances` (P,): of each question, that a sample is good.

    Returns {"pairs", "none_good", "needed"}: the expected number of questions with both good and
    bad samples; of those without a good one; and how many samples make a good one as likely as
    not at the chance `rare`.
    """
    never = (1 - chances) ** n
    always = chances**n
    pairs = (1 - never - always).sum()
    needed = math.ceil(math.log(0.5) / math.log(1 - rare))
    return {"pairs": pairs, "none_good": never.sum(), "needed": needed}


def expected_pairs_by_counting(chances, *, n, rare):
    pairs = none = 0.0
    for p in chances.tolist():
        by_count = [math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)]
        pairs, none = pairs + sum(by_count[1:-1]), none + by_count[0]
    needed = 1
    while 1 - (1 - rare) ** needed < 0.5:
        needed += 1
    return {"pairs": pairs, "none_good": none, "needed": needed}


def rare_chance(draw: Draw) -> float:
    return draw.choice([0.003, 0.007, 0.013, 0.023, 0.043])


def one_question(draw: Draw):
    for n in (2, 4):
        yield {"chances": torch.tensor([draw.number(0.55, 0.75)]), "n": n, "rare": rare_chance(draw)}


def sure_ones(draw: Draw):
    yield {"chances": torch.tensor([0.0, 1.0, 0.5]), "n": 4, "rare": 0.5}
    yield {"chances": torch.tensor([1.0, 1.0, 0.0, draw.number(0.2, 0.4)]), "n": 3, "rare": 0.3}


def several(draw: Draw):
    for n in (3, 8):
        yield {"chances": draw.distinct(5, low=0.05, high=0.95), "n": n, "rare": rare_chance(draw)}


def very_rare(draw: Draw):
    yield {"chances": torch.tensor([0.001, 0.01, 0.002]), "n": draw.choice([4, 16]), "rare": 0.001}
    yield {"chances": torch.tensor([0.02, 0.98, 0.9]), "n": 5, "rare": 0.0004}


COVERAGE = Task(
    id="18.4",
    title="What samples can teach",
    kind="predict, then run",
    points=2,
    difficulty="medium",
    minutes=15,
    reference=expected_pairs,
    also_correct=[expected_pairs_by_counting],
    properties=[
        Property("one question, answered well more often than not", one_question),
        Property("what never happens makes no pair, and neither does what always happens", sure_ones),
        Property("several questions", several),
        Property("a wish that hardly ever comes true by itself", very_rare),
    ],
    mistakes=[
        Mistake(
            "groups that are all good count as pairs",
            "Where every sample is good there is no bad one to set against it.",
            "18, What its own samples can teach",
            edit=("1 - never - always", "1 - never"),
        ),
        Mistake(
            "groups that are all bad count as pairs",
            "Where no sample is good there is nothing to choose.",
            "18, What its own samples can teach",
            edit=("1 - never - always", "1 - always"),
        ),
        Mistake(
            "exactly one good sample is asked for",
            "Two or three good ones of four make a pair as well: all but the two ends count.",
            "18, What its own samples can teach",
            edit=("1 - never - always", "n * chances * (1 - chances) ** (n - 1)"),
        ),
        Mistake(
            "n p (1 - p): the spread of the number of good samples",
            "That is a variance. Asked for is the chance that a group holds both.",
            "18, What its own samples can teach",
            edit=("1 - never - always", "n * chances * (1 - chances)"),
        ),
        Mistake(
            "the number of good samples is counted, not that of pairs",
            "A question gives one pair at the most, however many of its samples are good.",
            "18, Pairs of its own",
            edit=("1 - never - always", "n * chances"),
        ),
        Mistake(
            "one sample fewer",
            "All n samples have to be bad for a group to have no good one.",
            "18, What its own samples can teach",
            edit=[("(1 - chances) ** n", "(1 - chances) ** (n - 1)"), ("chances**n", "chances ** (n - 1)")],
        ),
        Mistake(
            "chances add up",
            "Four samples at a chance of one half do not make a good one twice sure: the chances of *failing* multiply.",
            "18, What its own samples can teach",
            edit=("(1 - chances) ** n", "(1 - n * chances).clamp(min=0)"),
        ),
        Mistake(
            "the mean chance stands for all questions",
            "A question that is always right and one that never is make no pair between them; two at one half make nearly two.",
            "18, What its own samples can teach",
            edit=("never = (1 - chances)", "chances = chances * 0 + chances.mean()\n    never = (1 - chances)"),
        ),
        Mistake(
            "the share of the questions, not their number",
            "Asked for is how many questions give a pair.",
            "18, What its own samples can teach",
            edit=("(1 - never - always).sum()", "(1 - never - always).mean()"),
        ),
        Mistake(
            "without a good one: those that are all good are counted",
            "None good means that each of the n samples is bad.",
            "18, What its own samples can teach",
            edit=("never.sum()", "always.sum()"),
        ),
        Mistake(
            "one over the chance",
            "After 1/p samples a good one is there in two cases of three, not in one of two: the half comes earlier, at about 0.69/p.",
            "18, What its own samples can teach",
            edit=("math.log(0.5) / math.log(1 - rare)", "1 / rare"),
        ),
        Mistake(
            "half of one over the chance",
            "0.5/p would be right if chances added up.",
            "18, What its own samples can teach",
            edit=("math.log(0.5) / math.log(1 - rare)", "0.5 / rare"),
        ),
        Mistake(
            "rounded down",
            "With one sample fewer a good one is less likely than not.",
            "18, What its own samples can teach",
            edit=("math.ceil", "math.floor"),
        ),
    ],
    hints=[
        "A group makes no pair in two cases. Which?",
        "All n samples bad: (1 - p) to the power n. All good: p to the power n.",
        "`needed` is the smallest n at which (1 - rare) to the power n is at most one half: take logarithms, and round up.",
    ],
)  # fmt: skip


# ---- 18.5


def diagnose(start, arms, *, shorter, lost, risen):
    """What became of each training run. `start`, and each of `arms` by its name: a dict of floats.

    Returns {"diagnosis": {name: text}, "best": a name or None}.
    """
    found = {}
    for name, arm in arms.items():
        if arm["refused"] - start["refused"] > lost:
            found[name] = "refuses"
        elif start["right"] - arm["right"] > lost:
            found[name] = "wrong"
        elif start["words"] - arm["words"] >= shorter:
            found[name] = "works"
        elif arm["margin"] >= risen:
            found[name] = "margin alone"
        else:
            found[name] = "nothing"
    working = [name for name in arms if found[name] == "works"]
    best = min(working, key=lambda name: arms[name]["words"], default=None)
    return {"diagnosis": found, "best": best}


def diagnose_by_table(start, arms, *, shorter, lost, risen):
    def of(arm):
        tests = [
            ("refuses", arm["refused"] > start["refused"] + lost),
            ("wrong", arm["right"] < start["right"] - lost),
            ("works", arm["words"] <= start["words"] - shorter),
            ("margin alone", not arm["margin"] < risen),
        ]
        return next((name for name, so in tests if so), "nothing")

    found = {name: of(arm) for name, arm in arms.items()}
    best = None
    for name, text in found.items():
        if text == "works" and (best is None or arms[name]["words"] < arms[best]["words"]):
            best = name
    return {"diagnosis": found, "best": best}


NAMES = ["own pairs", "hand-written pairs", "shuffled labels", "cloned", "online"]


def table(draw: Draw, *kinds: str) -> dict:
    """A start, and an arm of each kind, with multiples of 1/64, which subtract without rounding."""
    refused, right, words = draw.randint(12, 16) / 64, draw.randint(32, 44) / 64, float(draw.randint(20, 28))
    start = {"words": words, "right": right, "refused": refused, "margin": 0.0}

    def an_arm(kind: str) -> dict:
        arm = dict(start, margin=draw.randint(0, 60) / 64)
        near = draw.randint(-6, 6) / 64
        arm["refused"], arm["right"] = refused + abs(near) / 2, right + near
        if kind == "refuses":
            arm |= {"words": words - draw.randint(10, 14), "refused": refused + draw.randint(12, 30) / 64}
        if kind == "refuses and is wrong":
            arm |= {"words": words - draw.randint(10, 14), "refused": refused + 0.25, "right": right - 0.25}
        if kind == "wrong":
            arm |= {"words": words - draw.randint(8, 16), "right": right - draw.randint(10, 24) / 64}
        if kind == "works":
            arm |= {"words": words - draw.randint(40, 120) / 8, "margin": draw.randint(64, 300) / 64}
        if kind == "works, barely":
            arm |= {
                "words": words - 4.0,
                "right": right - 0.125,
                "refused": refused + 0.125,
                "margin": draw.randint(0, 60) / 64,
            }
        if kind == "margin":
            arm |= {"words": words - draw.randint(-24, 30) / 8, "margin": draw.randint(70, 500) / 64}
        if kind == "margin, barely":
            arm |= {"words": words + 1.5, "margin": 1.0}
        if kind == "longer":
            arm |= {"words": words + draw.randint(5, 12)}
        if kind == "more right":
            arm |= {"right": right + draw.randint(12, 18) / 64, "words": words - draw.randint(40, 56) / 8}
        if kind == "fewer refused":
            arm |= {"refused": 0.0, "words": words - 16.5}
        return arm

    names = draw.sample(NAMES, len(kinds))
    arms = {name: an_arm(kind) for name, kind in zip(names, draw.sample(kinds, len(kinds)))}
    return {"start": start, "arms": arms, "shorter": 4.0, "lost": 0.125, "risen": 1.0}


def one_that_works(draw: Draw):
    yield table(draw, "works")
    yield table(draw, "works", "works", "nothing")
    yield table(draw, "more right", "works", "longer")


def margins_alone(draw: Draw):
    yield table(draw, "margin")
    yield table(draw, "margin", "nothing", "works", "longer")


def short_and_bad(draw: Draw):
    yield table(draw, "refuses")
    yield table(draw, "wrong", "refuses", "works")
    yield table(draw, "refuses and is wrong", "wrong", "margin")


def at_the_edge(draw: Draw):
    yield table(draw, "works, barely")
    yield table(draw, "margin, barely", "nothing")
    yield table(draw, "fewer refused", "works, barely", "refuses")


DIAGNOSE = Task(
    id="18.5",
    title="What became of each run",
    kind="read the curve",
    points=2,
    difficulty="medium",
    minutes=10,
    reference=diagnose,
    also_correct=[diagnose_by_table],
    properties=[
        Property("a run that is shorter and still right works, and the shortest of those is best", one_that_works),
        Property("a margin that rises is no shorter reply", margins_alone),
        Property("short is no gain if it refuses, or is wrong", short_and_bad),
        Property("the limits themselves", at_the_edge),
    ],
    mistakes=[
        Mistake(
            "a margin that rises counts as working",
            "The margin is DPO's opinion of itself: on pairs that the model never writes it rises while all replies stay as they were.",
            "18, Pairs that somebody else wrote",
            edit=("start[\"words\"] - arm[\"words\"] >= shorter", "start[\"words\"] - arm[\"words\"] >= shorter or arm[\"margin\"] >= risen"),
        ),
        Mistake(
            "only a margin that rises counts as working",
            "Online RL and SFT have no margin, and their replies can be shorter all the same. The replies decide.",
            "18, Pairs that somebody else wrote",
            edit=("start[\"words\"] - arm[\"words\"] >= shorter", "start[\"words\"] - arm[\"words\"] >= shorter and arm[\"margin\"] >= risen"),
        ),
        Mistake(
            "refusals are not looked at",
            "A refusal is short. Whoever counts words alone takes it for a success.",
            "18, Short is not nothing",
            edit=("arm[\"refused\"] - start[\"refused\"] > lost", "False"),
        ),
        Mistake(
            "right answers are not looked at",
            "Short and wrong is easy.",
            "18, Short is not nothing",
            edit=("start[\"right\"] - arm[\"right\"] > lost", "False"),
        ),
        Mistake(
            "words are looked at first",
            "The reasons are asked for in their order: a run that refuses does not work, however short it is.",
            "18, Short is not nothing",
            edit=("if arm[\"refused\"]", "if start[\"words\"] - arm[\"words\"] >= shorter:\n            found[name] = \"works\"\n        elif arm[\"refused\"]"),
        ),
        Mistake(
            "wrong before refuses",
            "The reasons are asked for in their order. Who refuses is not right either, so that the second would hide the first.",
            "18, Short is not nothing",
            edit=("if arm[\"refused\"]", "if start[\"right\"] - arm[\"right\"] > lost:\n            found[name] = \"wrong\"\n        elif arm[\"refused\"]"),
        ),
        Mistake(
            "refusals are not compared with the start",
            "The model may have refused before any training. What training added is the difference.",
            "18, Short is not nothing",
            edit=("arm[\"refused\"] - start[\"refused\"] > lost", "arm[\"refused\"] > lost"),
        ),
        Mistake(
            "a change of right answers in either direction counts as lost",
            "More right answers are no loss.",
            "18, Short is not nothing",
            edit=("start[\"right\"] - arm[\"right\"] > lost", "abs(start[\"right\"] - arm[\"right\"]) > lost"),
        ),
        Mistake(
            "a change of refusals in either direction counts",
            "Fewer refusals are no fault.",
            "18, Short is not nothing",
            edit=("arm[\"refused\"] - start[\"refused\"] > lost", "abs(arm[\"refused\"] - start[\"refused\"]) > lost"),
        ),
        Mistake(
            "longer replies count as working",
            "Asked for is a fall: start less arm.",
            "18, Read replies before means",
            edit=("start[\"words\"] - arm[\"words\"] >= shorter", "abs(start[\"words\"] - arm[\"words\"]) >= shorter"),
        ),
        Mistake(
            "as much as `lost` is too much already",
            "More than `lost` is asked for: a loss of just that much is still allowed.",
            "18, Over seeds, and over questions",
            edit=[("arm[\"refused\"] - start[\"refused\"] > lost", "arm[\"refused\"] - start[\"refused\"] >= lost"), ("start[\"right\"] - arm[\"right\"] > lost", "start[\"right\"] - arm[\"right\"] >= lost")],
        ),
        Mistake(
            "`shorter` words fewer are not enough",
            "At least that many are asked for: just that many are enough.",
            "18, Over seeds, and over questions",
            edit=("arm[\"words\"] >= shorter", "arm[\"words\"] > shorter"),
        ),
        Mistake(
            "the shortest of all runs is best",
            "Best is the shortest of those that work: the shortest of all may refuse.",
            "18, Short is not nothing",
            edit=("min(working,", "min(arms,"),
        ),
        Mistake(
            "the largest margin is best",
            "A margin says how sure the model is of its pairs, and nothing of what it replies.",
            "18, Pairs that somebody else wrote",
            edit=("min(working, key=lambda name: arms[name][\"words\"], default=None)", "max(working, key=lambda name: arms[name][\"margin\"], default=None)"),
        ),
        Mistake(
            "the longest that works is best",
            "The wish was brevity.",
            "18, A wish that a program can judge",
            edit=("min(working,", "max(working,"),
        ),
    ],
    hints=[
        "Compare every run with the start, not with 0.",
        "Go through the reasons in their order: refuses, wrong, works, margin alone, nothing. The first that applies is the diagnosis.",
        "`best` looks only at runs whose diagnosis is \"works\".",
    ],
)  # fmt: skip


TASKS = [PAIRS, REWARD, ERROR, COVERAGE, DIAGNOSE]
