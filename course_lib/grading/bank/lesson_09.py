"""Tasks of lesson 09, Reward hacking."""

import math
from itertools import combinations

import numpy as np
import torch

from course_lib.grading.task import Draw, Mistake, Property, Task

# ---- 09.1


def read_run(score, gold, kl, *, least):
    """What became of a run. `score`, `gold`, `kl`: lists of floats of equal length, one a round.

    Returns {"kind", "round", "kl", "lost", "won"}: a text, an int and three floats.
    """
    turn = gold.index(max(gold))
    lost = gold[turn] - gold[-1]
    won = score[-1] - score[turn]
    if lost <= least:
        kind = "progress"
    elif won > least:
        kind = "hack"
    else:
        kind = "broken"
    return {"kind": kind, "round": turn, "kl": kl[turn], "lost": lost, "won": won}


def read_run_by_arrays(score, gold, kl, *, least):
    score, gold = np.array(score), np.array(gold)
    turn = int(np.argmax(gold))
    lost, won = gold.max() - gold[-1], score[-1] - score[turn]
    names = {(True, True): "hack", (True, False): "broken"}
    kind = names.get((bool(lost > least), bool(won > least)), "progress")
    return {"kind": kind, "round": turn, "kl": kl[turn], "lost": lost, "won": won}


def summed(start: float, steps: list[float]) -> list[float]:
    """A curve that begins at `start` and makes these steps."""
    return [round(start + sum(steps[:n]), 2) for n in range(len(steps) + 1)]


def a_run(draw: Draw, truth: list[float], score: list[float]) -> dict:
    """A run whose curves make these steps."""
    return {
        "score": summed(draw.number(-0.3, 0.6), score),
        "gold": summed(draw.number(-1.2, -0.6), truth),
        "kl": summed(0.0, [draw.number(0.2, 0.9) for _ in truth]),
        "least": draw.number(0.2, 0.3),
    }


def rise(draw: Draw, rounds: int) -> list[float]:
    """A rise of the true reward with a dip after its first step."""
    return [draw.number(0.2, 0.3), -draw.number(0.05, 0.12)] + [draw.number(0.2, 0.35) for _ in range(rounds)]


def falls(draw: Draw, rounds: int) -> list[float]:
    """A fall that is slow at first and then ever faster."""
    return [-round(draw.number(0.1, 0.14) * n, 2) for n in range(1, rounds + 1)]


def climb(draw: Draw, rounds: int) -> list[float]:
    return [draw.number(0.2, 0.4) for _ in range(rounds)]


def slide(draw: Draw, rounds: int) -> list[float]:
    """A score that loses less than `climb` has won in as many rounds."""
    return [-draw.number(0.02, 0.08) for _ in range(rounds)]


def both_rise(draw: Draw):
    for rounds, after in ((2, 0), (4, 2)):
        truth = rise(draw, rounds) + [-draw.number(0.03, 0.06) for _ in range(after)]
        yield a_run(draw, truth, climb(draw, len(truth)))


def the_truth_turns(draw: Draw):
    for up, down in ((1, 3), (2, 4), (3, 6)):
        truth = rise(draw, up) + falls(draw, down)
        yield a_run(draw, truth, climb(draw, len(truth)))


def both_fall(draw: Draw):
    for up, down in ((2, 4), (3, 5)):
        yield a_run(draw, rise(draw, up) + falls(draw, down), climb(draw, up + 2) + slide(draw, down))


def falls_and_recovers(draw: Draw, lost: float) -> list[float]:
    """A fall of 1.2 in all, and a rise that leaves so much of it lost."""
    back = round((1.2 - lost) / 2, 2)
    return [-0.3, -0.5, -0.4, back, back]


def partly_recovered(draw: Draw):
    truth = rise(draw, 2) + falls_and_recovers(draw, draw.number(0.6, 0.8))
    yield a_run(draw, truth, climb(draw, len(truth)))


def recovered(draw: Draw):
    truth = rise(draw, 3) + falls_and_recovers(draw, draw.number(0.06, 0.14))
    yield a_run(draw, truth, climb(draw, len(truth)))


def just_at_the_limit(draw: Draw):
    start, least = draw.randint(-6, -2) / 4, draw.choice([0.25, 0.5])
    kl = [0.0, 0.75, 1.5, 2.25]
    no_loss = {"score": [0.0, 0.5, 1.0, 2.0], "gold": summed(start, [1.0, 0.5, -least])}
    no_gain = {"score": [0.0, 0.5, 1.0, 1.0 + least], "gold": summed(start, [1.0, 0.5, -1.0])}
    return [curves | {"kl": kl, "least": least} for curves in (no_loss, no_gain)]


READ_RUN = Task(
    id="09.1",
    title="Where the truth turns",
    kind="read the curve",
    points=2,
    difficulty="easy",
    minutes=10,
    reference=read_run,
    also_correct=[read_run_by_arrays],
    properties=[
        Property("where score and true reward rise together it is progress", both_rise),
        Property("where the score climbs on and the true reward turns it is a hack", the_truth_turns),
        Property("where both fall the run is broken, and nothing is hacked", both_fall),
        Property("what has come back by the last round is not lost", lambda draw: [*recovered(draw), *partly_recovered(draw)]),
        Property("just `least` is neither lost nor won yet", just_at_the_limit),
    ],
    mistakes=[
        Mistake(
            "a score that rises is taken for progress",
            "The score rises in a hack too: that is what the run was trained for. Only the true reward tells the two apart.",
            "09, The hack, live",
            edit=("if lost <= least", "if score[-1] - score[0] > least"),
        ),
        Mistake(
            "the round of the highest score, not of the highest true reward",
            "A score that is being hacked is highest at the very end, long after the truth has turned.",
            "09, The hack, live",
            edit=("gold.index(max(gold))", "score.index(max(score))"),
        ),
        Mistake(
            "the first dip is taken for the turn",
            "A mean of a few samples goes up and down from round to round. The turn is the highest round of all.",
            "09, The hack, live",
            edit=("gold.index(max(gold))", "next((t for t in range(len(gold) - 1) if gold[t + 1] < gold[t]), len(gold) - 1)"),
        ),
        Mistake(
            "the steepest fall is taken for the turn",
            "Where the truth falls fastest much of it is lost already: the hack begins where it stops rising.",
            "09, Over five seeds",
            edit=("gold.index(max(gold))", "max(range(len(gold) - 1), key=lambda t: gold[t] - gold[t + 1])"),
        ),
        Mistake(
            "the loss is counted from the first round",
            "A run can end above its start and still have thrown away most of what it had: compare with its best round.",
            "09, Over five seeds",
            edit=("gold[turn] - gold[-1]", "gold[0] - gold[-1]"),
        ),
        Mistake(
            "the loss is the gap between the two curves",
            "Score and true reward have different units and starting points, so their difference says nothing. Compare each with itself.",
            "09, Over five seeds",
            edit=("gold[turn] - gold[-1]", "score[-1] - gold[-1]"),
        ),
        Mistake(
            "the loss is counted to the lowest round of all, not to the last",
            "What counts is the policy that you would be left with. The lowest round may be the first.",
            "09, Over five seeds",
            edit=("gold[turn] - gold[-1]", "gold[turn] - min(gold)"),
        ),
        Mistake(
            "the loss is counted to the lowest round after the turn, not to the last",
            "What counts is the policy that you would be left with. What it lost on the way and won back is not lost.",
            "09, Over five seeds",
            edit=("gold[turn] - gold[-1]", "gold[turn] - min(gold[turn:])"),
        ),
        Mistake(
            "rounds are counted from 1",
            "The task counts from 0: the first number of each list is that of round 0.",
            "09, The hack, live",
            edit=('"round": turn', '"round": turn + 1'),
        ),
        Mistake(
            "the score's gain is counted from the first round",
            "A run may gain score early and lose it later. It is a hack if the score goes on rising while the truth falls.",
            "09, Over five seeds",
            edit=("score[-1] - score[turn]", "score[-1] - score[0]"),
        ),
        Mistake(
            "every fall of the true reward is called a hack",
            "Where the score falls too nothing was exploited. The run broke: too high a rate, say.",
            "09, The hack, live",
            edit=("won > least", "lost > least"),
        ),
        Mistake(
            "every small dip is called a loss",
            "A mean of a few samples is never quite still. Only a fall of more than `least` counts.",
            "09, The hack, live",
            edit=("lost <= least", "lost <= 0"),
        ),
        Mistake(
            "the distance at the end, not at the turn",
            "The KL at the turn says how far one could have gone. The KL at the end only says how far the run went.",
            "09, Over five seeds",
            edit=("kl[turn]", "kl[-1]"),
        ),
    ],
    hints=[
        "First find one round: where does the true reward stand highest?",
        "Then two differences between that round and the last one: what the truth has lost, what the score has won since.",
        "Nothing much lost: progress. Lost, and the score won: a hack. Lost, and the score did not win: broken.",
    ],
)  # fmt: skip


# ---- 09.2


def best_of_n(scores, gold, *, n):
    """What best of n gives on one prompt, for 1 <= n <= N.

    `scores`, `gold`: tensors (N,), the scores and the true rewards of N replies.
    Returns {"kl": float, "score": float, "gold": float}.
    """
    total = len(scores)
    order = scores.argsort()
    ways = torch.tensor([math.comb(place, n - 1) for place in range(total)])
    chance = ways / math.comb(total, n)
    return {
        "kl": math.log(n) - (n - 1) / n,
        "score": (chance * scores[order]).sum(),
        "gold": (chance * gold[order]).sum(),
    }


def best_of_all_choices(scores, gold, *, n):
    winners = [max(chosen, key=lambda i: scores[i]) for chosen in combinations(range(len(scores)), n)]
    kl = sum(1 / k for k in range(1, n + 1)) - 1 - sum(1 / k - math.log(1 + 1 / k) for k in range(1, n))
    return {"kl": kl, "score": scores[winners].mean(), "gold": gold[winners].mean()}


def best_of_the_first(scores, gold, *, n):
    winner = scores[:n].argmax()
    return {"kl": math.log(n) - (n - 1) / n, "score": scores[winner], "gold": gold[winner]}


def replies(draw: Draw, count: int, n: int) -> dict:
    """So many replies; the first has neither the highest score nor the highest true reward."""
    scores, gold = draw.distinct(count), draw.distinct(count, low=-4.0, high=2.0)
    while count > 1 and (scores[0] == scores.max() or gold.argmax() == scores.argmax()):
        scores, gold = draw.distinct(count), draw.distinct(count, low=-4.0, high=2.0)
    return {"scores": scores, "gold": gold, "n": n}


def one_of_a_few(draw: Draw):
    return [replies(draw, count, 1) for count in (2, 4)]


def all_of_them(draw: Draw):
    return [replies(draw, count, count) for count in (2, 3)]


def two_of_three(draw: Draw):
    return [replies(draw, 3, 2) for _ in range(2)]


def a_few_of_many(draw: Draw):
    return [replies(draw, count, n) for count, n in ((5, 3), (6, 4), (9, 2))]


BEST_OF_N = Task(
    id="09.2",
    title="Best of n, without drawing anew",
    kind="implement",
    points=3,
    difficulty="hard",
    minutes=20,
    reference=best_of_n,
    also_correct=[best_of_all_choices],
    properties=[
        Property("the best of one is the mean of all replies, at no distance", one_of_a_few),
        Property("the best of all N is the one with the highest score", all_of_them),
        Property("the best of two of three is the mean over the three pairs", two_of_three),
        Property("a few of many", a_few_of_many),
    ],
    mistakes=[
        Mistake(
            "the true reward chooses",
            "Nobody knows it when a reply is chosen. The score chooses, and the true reward is that of the reply it chose.",
            "09, Over five seeds",
            edit=("gold[order]", "gold.sort().values"),
        ),
        Mistake(
            "the true rewards stay in their old order",
            "Once the scores are sorted, the true rewards must be brought into the same order, or each belongs to another reply.",
            "09, Over five seeds",
            edit=("gold[order]", "gold"),
        ),
        Mistake(
            "the best of all N, whatever n is",
            "Best of n sees n replies only. With fewer of them it is less likely that the best of all N is there.",
            "09, Over five seeds",
            edit=[("(chance * scores[order]).sum()", "scores.max()"), ("(chance * gold[order]).sum()", "gold[scores.argmax()]")],
        ),
        Mistake(
            "only the first n replies are looked at",
            "That is one draw of n. It is right on average, but it scatters far more than the mean over all choices of n.",
            "09, Over five seeds",
            function=best_of_the_first,
        ),
        Mistake(
            "replies are put back",
            "Choices of n different replies are meant. With replacement the same reply can be drawn twice, and the best is too low.",
            "09, Over five seeds",
            edit=[("math.comb(place, n - 1)", "((place + 1) / total) ** n - (place / total) ** n"), ("ways / math.comb(total, n)", "ways")],
        ),
        Mistake(
            "the worst of n is chosen",
            "A reply wins if the n - 1 others are below it: count the replies with lower scores, not with higher ones.",
            "09, Over five seeds",
            edit=("scores.argsort()", "scores.argsort(descending=True)"),
        ),
        Mistake(
            "the winner's partners are one too many",
            "If a reply wins, n - 1 others are chosen beside it, all from those with lower scores.",
            "09, Over five seeds",
            edit=("math.comb(place, n - 1)", "math.comb(place, n)"),
        ),
        Mistake(
            "the counts are not divided by the number of choices",
            "A mean over all choices is wanted: divide by how many ways there are to choose n of N.",
            "09, Over five seeds",
            edit=("ways / math.comb(total, n)", "ways"),
        ),
        Mistake(
            "the distance is ln n",
            "ln n is the log-ratio of the very best reply. Those that win less often have less, and the mean is (n - 1) / n lower.",
            "09, Over five seeds",
            edit=(" - (n - 1) / n", ""),
        ),
        Mistake(
            "the distance has 1/n in place of (n - 1)/n",
            "The best of one has not moved at all: ln 1 - 0/1 = 0. With 1/n it would lie at -1.",
            "09, Over five seeds",
            edit=("(n - 1) / n", "1 / n"),
        ),
    ],
    hints=[
        "For small N you may go through all choices of n replies (`itertools.combinations`) and average.",
        "Or count: in how many choices does the reply with exactly k lower scores win? Its n - 1 partners are all among those k.",
        "Sort by score. The reply on place k (from 0) wins in math.comb(k, n - 1) of math.comb(N, n) choices.",
    ],
)  # fmt: skip


# ---- 09.3


def careful_reward(members, words, *, caution, per_word, free_words):
    """A reward of an ensemble, with a price on length; (B,) out.

    `members`: scores (K, B) of K reward models for B replies. `words`: (B,) whole numbers.
    """
    trusted = members.mean(dim=0)
    doubt = members.std(dim=0)
    extra = (words - free_words).clamp(min=0)
    return trusted - caution * doubt - per_word * extra


def careful_reply_by_reply(members, words, *, caution, per_word, free_words):
    rewards = []
    for scores, length in zip(members.T.tolist(), words.tolist()):
        mean = sum(scores) / len(scores)
        spread = math.sqrt(sum((score - mean) ** 2 for score in scores) / (len(scores) - 1))
        rewards.append(mean - caution * spread - per_word * max(0, length - free_words))
    return torch.tensor(rewards)


def some_replies(draw: Draw, members: int, lengths: list[int]) -> dict:
    return {
        "members": draw.distinct(members, len(lengths)),
        "words": torch.tensor(lengths),
        "caution": draw.number(0.3, 0.8),
        "per_word": draw.number(0.05, 0.2),
        "free_words": 10,
    }


def short_ones(draw: Draw):
    for count in (2, 3):
        few = some_replies(draw, 3, [draw.randint(1, 8) for _ in range(count)])
        yield few | {"free_words": draw.randint(9, 12)}


def long_ones(draw: Draw):
    for count in (2, 3):
        yield some_replies(draw, 3, [draw.randint(13, 30) for _ in range(count)]) | {"free_words": draw.randint(8, 11)}


def of_one_mind(draw: Draw):
    found = some_replies(draw, 3, [draw.randint(2, 8), draw.randint(13, 20)])
    yield found | {"members": draw.distinct(1, 2).expand(3, 2).clone()}


def of_all_lengths(draw: Draw):
    for members, count in ((2, 3), (4, 5)):
        lengths = [draw.randint(1, 8), 10] + [draw.randint(12, 30) for _ in range(count - 2)]
        yield some_replies(draw, members, lengths)


CAREFUL = Task(
    id="09.3",
    title="The reward that loved silence",
    kind="fix the bug",
    points=2,
    difficulty="easy",
    minutes=10,
    reference=careful_reward,
    also_correct=[careful_reply_by_reply],
    properties=[
        Property("a reply within the free words costs nothing, and earns nothing by being shorter", short_ones),
        Property("a longer one pays for each word beyond", long_ones),
        Property("where all members agree there is no doubt to pay for", of_one_mind),
        Property("replies of all lengths, two members or four", of_all_lengths),
    ],
    mistakes=[
        Mistake(
            "short replies are paid for what they leave out",
            "Below the free words the price turns into a bonus for each word that is missing: the policy is paid for silence.",
            "09, The hack, live",
            edit=("(words - free_words).clamp(min=0)", "words - free_words"),
        ),
        Mistake(
            "every word is charged",
            "Only words beyond the free ones cost something. Else even a good short answer is worth less than none.",
            "09, The hack, live",
            edit=("(words - free_words).clamp(min=0)", "words"),
        ),
        Mistake(
            "a short reply pays for the words that are missing",
            "The distance from `free_words` charges both sides: replies are then drawn to just that length, whatever was asked.",
            "09, The hack, live",
            edit=("(words - free_words).clamp(min=0)", "(words - free_words).abs()"),
        ),
        Mistake(
            "a long reply pays for its free words too",
            "One word more than is free then costs as much as eleven: a jump that the policy will learn to sit under.",
            "09, The hack, live",
            edit=("(words - free_words).clamp(min=0)", "words * (words > free_words)"),
        ),
        Mistake(
            "one price, however long the reply",
            "Once the limit is passed, every further word is free: nothing holds a long reply back any more.",
            "09, The hack, live",
            edit=("(words - free_words).clamp(min=0)", "(words > free_words)"),
        ),
        Mistake(
            "the price is added",
            "A price lowers the reward. Added, it pays for padding.",
            "09, The hack, live",
            edit=("- per_word", "+ per_word"),
        ),
        Mistake(
            "doubt is rewarded",
            "Members disagree where none of them has seen the like. Paying for that sends the policy just there.",
            "09, Over five seeds",
            edit=("- caution", "+ caution"),
        ),
        Mistake(
            "the spread of the replies, not of the members",
            "How far the replies' scores lie apart says nothing about a single reply. Doubt is how far the members lie apart on it.",
            "09, Over five seeds",
            edit=("members.std(dim=0)", "members.mean(dim=0).std()"),
        ),
        Mistake(
            "one spread over members and replies together",
            "Without `dim=0` all K times B scores go into one number, and every reply pays for the differences between replies.",
            "09, Over five seeds",
            edit=("members.std(dim=0)", "members.std()"),
        ),
        Mistake(
            "the spread is taken over n, not over n - 1",
            "The members are a sample of the reward models that one might have trained: the task divides by K - 1.",
            "09, Over five seeds",
            edit=("members.std(dim=0)", "members.std(dim=0, correction=0)"),
        ),
        Mistake(
            "the minimum in place of mean less spread",
            "The minimum is the other way to be careful, with no weight to set. This task asks for the mean less `caution` times the spread.",
            "09, Over five seeds",
            edit=("trusted - caution * doubt", "members.min(dim=0).values"),
        ),
        Mistake(
            "caution is missing",
            "Without its weight the doubt counts as at caution 1, whatever was asked for.",
            "09, Over five seeds",
            edit=("caution * doubt", "doubt"),
        ),
    ],
    hints=[
        "What does the function give for a reply of two words, and for one of ten, with the same scores?",
        "`words - free_words` is negative for a short reply, and minus a negative price is a bonus.",
    ],
)  # fmt: skip


# ---- 09.4


def where_to_stop(checkpoints):
    """The checkpoint to ship. `checkpoints`: a list of {"round", "score", "kl", "wins", "labels"}.

    Returns {"round": int, 0 for SFT, "low": {round: float}}.
    """
    low = {}
    for point in checkpoints:
        share = point["wins"] / point["labels"]
        error = math.sqrt(share * (1 - share) / point["labels"])
        low[point["round"]] = share - 2 * error
    best = max(low, key=low.get)
    return {"round": best if low[best] > 0.5 else 0, "low": low}


def where_to_stop_by_arrays(checkpoints):
    wins, labels = (np.array([point[key] for point in checkpoints], dtype=float) for key in ("wins", "labels"))
    low = wins / labels - 2 * np.sqrt(wins * (labels - wins) / labels**3)
    rounds = [0] + [point["round"] for point in checkpoints]
    return {"round": rounds[np.argmax([0.5, *low])], "low": dict(zip(rounds[1:], low.tolist(), strict=True))}


def a_history(draw: Draw, labelled: list[tuple[int, int]]) -> dict:
    """Checkpoints with so many (wins, labels), and a score that is highest at the last but one if there are three."""
    count = len(labelled)
    score = sorted(draw.distinct(count, low=0.5, high=5.0).tolist())
    if count > 2:
        score[-1], score[-2] = score[-2], score[-1]
    kl = sorted(draw.distinct(count, low=0.3, high=12.0).tolist())
    return {
        "checkpoints": [
            {"round": 10 * (n + 1), "score": round(score[n], 2), "kl": round(kl[n], 2), "wins": w, "labels": labels}
            for n, (w, labels) in enumerate(labelled)
        ]
    }


def one_checkpoint(draw: Draw):
    for labels in (100, 25):
        yield a_history(draw, [(round(draw.number(0.75, 0.85) * labels), labels)])


def not_the_score(draw: Draw):
    for best in (0, 1):
        shares = [draw.number(0.62, 0.67) for _ in range(4)]
        shares[best] = draw.number(0.75, 0.82)
        yield a_history(draw, [(round(share * 200), 200) for share in shares])


def few_labels(draw: Draw):
    yield a_history(draw, [(draw.randint(306, 314), 400), (9, 10), (draw.randint(62, 66), 100)])
    yield a_history(draw, [(draw.randint(18, 19), 22), (draw.randint(240, 248), 300), (draw.randint(27, 29), 50)])


def many_labels(draw: Draw):
    yield a_history(draw, [(draw.randint(196, 206), 400), (draw.randint(68, 72), 90)])


def none_is_surely_better(draw: Draw):
    yield a_history(draw, [(draw.randint(26, 29), 50), (draw.randint(52, 55), 100)])
    yield a_history(draw, [(draw.randint(42, 48), 80), (draw.randint(25, 28), 45), (draw.randint(20, 30), 80)])


STOP = Task(
    id="09.4",
    title="Where to stop, by labels kept aside",
    kind="choose the method",
    points=2,
    difficulty="medium",
    minutes=10,
    reference=where_to_stop,
    also_correct=[where_to_stop_by_arrays],
    properties=[
        Property("the lower end is the share less two standard errors", one_checkpoint),
        Property("labels decide, whatever the score and the distance say", not_the_score),
        Property("a high share of few labels can lose to a lower share of many", few_labels),
        Property("many wins of many labels can lose to a higher share of fewer", many_labels),
        Property("where no checkpoint is surely better, SFT stays", none_is_surely_better),
    ],
    mistakes=[
        Mistake(
            "the highest score decides",
            "The score is what was trained on, and it rises in a hack too. The labels were kept aside to have a judge that nobody trained on.",
            "09, The hack, live",
            edit=("max(low, key=low.get)", "max(checkpoints, key=lambda point: point[\"score\"])[\"round\"]"),
        ),
        Mistake(
            "the last checkpoint is taken",
            "Longer training is no better by itself: past a certain distance the truth falls while the score goes on rising.",
            "09, Over five seeds",
            edit=("max(low, key=low.get)", "checkpoints[-1][\"round\"]"),
        ),
        Mistake(
            "the highest share decides",
            "Nine wins of ten are easily luck. Compare the lower ends: they know how many labels stand behind a share.",
            "09, Over five seeds",
            edit=("max(low, key=low.get)", "max(checkpoints, key=lambda point: point[\"wins\"] / point[\"labels\"])[\"round\"]"),
        ),
        Mistake(
            "the most wins decide",
            "200 wins of 400 are no better than a coin. Compare the lower ends: they take share and number of labels together.",
            "09, Over five seeds",
            edit=("max(low, key=low.get)", "max(checkpoints, key=lambda point: point[\"wins\"])[\"round\"]"),
        ),
        Mistake(
            "it never stays with SFT",
            "If even the best lower end is not above one half, no checkpoint is surely better than the model you began with.",
            "09, Over five seeds",
            edit=("best if low[best] > 0.5 else 0", "best"),
        ),
        Mistake(
            "the number of labels is not looked at",
            "A share without its error is a guess: 9 of 10 and 900 of 1,000 would be worth the same.",
            "09, Over five seeds",
            edit=("share - 2 * error", "share"),
        ),
        Mistake(
            "the upper end is compared",
            "It is highest where the fewest labels are: the choice would go to what is known least.",
            "09, Over five seeds",
            edit=("share - 2 * error", "share + 2 * error"),
        ),
        Mistake(
            "one standard error, not two",
            "One standard error leaves out about every sixth case on that side: with several checkpoints to choose from that is soon luck.",
            "09, Over five seeds",
            edit=("2 * error", "error"),
        ),
        Mistake(
            "the root is forgotten",
            "share times (1 - share) over the labels is the variance of the share. Its error is the square root.",
            "09, Over five seeds",
            edit=("math.sqrt(share * (1 - share) / point[\"labels\"])", "share * (1 - share) / point[\"labels\"]"),
        ),
        Mistake(
            "the spread of one label, not of their mean",
            "A single label scatters by the root of share times (1 - share). The mean of m labels scatters less, by the root of m.",
            "09, Over five seeds",
            edit=("share * (1 - share) / point[\"labels\"]", "share * (1 - share)"),
        ),
    ],
    hints=[
        "Which of the columns did the run see while it trained? What can the others tell you?",
        "For each checkpoint: the share of wins, its standard error, and the share less two of these.",
        "Take the checkpoint with the highest lower end, unless that is not above one half: then round 0.",
    ],
    equivalent={"`low[best] > 0.5` -> `low[best] >= 0.5`": "no lower end is just one half"},
)  # fmt: skip


TASKS = [READ_RUN, BEST_OF_N, CAREFUL, STOP]
