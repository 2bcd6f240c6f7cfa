"""Claims of lesson 05, from the results of `experiments/dpo_failures.py`."""

from __future__ import annotations

from functools import partial

from course_lib.claims.judging import (
    HOLDS,
    IN_PART,
    NATS,
    SHARE,
    Claim,
    Judgement,
    Part,
    contrast,
    in_gold,
    of_contrasts,
)  # fmt: skip
from course_lib.claims.results import seeds

TOGETHER = partial(contrast, claims=13)  # this experiment's contrasts: O1 3, O3 2, O4 1, O5 2, N2 2, over-refusal 3


def column(arm: str, figure: str = "gold_sampled") -> list[float]:
    return [run[arm][figure] for run in seeds("dpo_failures")]


def refused(arm: str, kind: str) -> list[float]:
    """Share of a kind's requests on acts never seen that are refused greedily."""
    return [run[arm]["unseen"]["act"]["kinds"][kind]["refused"] for run in seeds("dpo_failures")]


def above(says: str, first: str, second: str) -> Part:
    """One arm against another in gold reward."""
    return in_gold(says, partial(column, first), partial(column, second), TOGETHER)


def more(says: str, first: str, second: str, figure: str, margin: float) -> Part:
    """One arm against another in a figure that the claim names."""
    return Part(says, TOGETHER(column(first, figure), column(second, figure), margin=margin))


def explosion() -> Judgement:
    return of_contrasts(
        more("eight epochs leave a larger margin than one", "long", "few", "margin", NATS),
        more("more replies repeat themselves", "long", "few", "repeats", SHARE),
        more("IPO on the same pairs stays nearer to the reference", "long", "long, ipo", "kl", NATS),
    )


def half_of_the_gain(figure: str) -> list[float]:
    return [(good + sft) / 2 for good, sft in zip(column("good", figure), column("sft", figure), strict=True)]


def beta_range() -> Judgement:
    says = "beta 1 brings less than half of the gain"
    return of_contrasts(
        above("beta 0.01 falls below SFT", "sft", "beta 0.01"),
        in_gold(says, half_of_the_gain, partial(column, "beta 1"), TOGETHER),
    )


def learning_rate() -> Judgement:
    judged = of_contrasts(
        above("ten times the tuned rate does worse", "good", "rate x 10"),
    )
    found = f"{judged.found} The absolute rates are not tested here: they belong to models of billions."
    return judged._replace(verdict=IN_PART if judged.verdict == HOLDS else judged.verdict, found=found)


def wrong_reference() -> Judgement:
    return of_contrasts(
        above("the base model as reference costs gold reward", "good", "base as reference"),
        above("DPO then falls below SFT", "sft", "base as reference"),
    )


def own_reward() -> Judgement:
    return of_contrasts(
        more("pushed hard, DPO's own reward rises on held-out pairs", "rate x 10", "good", "margin", NATS),
        above("the true reward falls", "good", "rate x 10"),
    )


def over_refusal() -> list[Part]:
    """Whether pairs with few harmless requests make a model refuse them; lesson 05 shows it."""
    nothing = [0.0] * len(seeds("dpo_failures"))
    few = refused("few harmless", "safe")
    with_sft = refused("few harmless, with sft", "safe")
    return [
        Part(
            "pairs with few harmless requests make DPO refuse more of those never seen",
            TOGETHER(few, refused("good", "safe"), margin=SHARE),
        ),
        Part("an SFT term lowers that", TOGETHER(few, with_sft, margin=SHARE)),
        Part("with an SFT term none are refused", TOGETHER(with_sft, nothing, margin=SHARE), absent=True),
    ]


CLAIMS = [
    Claim(
        "O1",
        "O1: DPO goes on pushing the margin, and samples turn repetitive; IPO's target tames it",
        "A",
        "eight epochs of 500 pairs against one, and against IPO: margin of held-out pairs and KL, nats; share of "
        "replies that repeat themselves",
        explosion,
        ("05",),
    ),
    Claim(
        "O3",
        "O3: beta below 0.01 collapses, above 0.5 learns little",
        "A",
        "gold reward at beta 0.01 beside SFT's, and at beta 1 beside half of the gain at the tuned beta",
        beta_range,
        ("05",),
    ),
    Claim(
        "O4",
        "O4: the useful learning rates",
        "A",
        "gold reward at ten times the tuned rate; at best in part, since absolute rates do not carry "
        "over to a tiny model",
        learning_rate,
        ("05",),
    ),
    Claim(
        "O5",
        "O5: a reference that is not the starting policy breaks DPO",
        "A",
        "gold reward of DPO against the base model, beside DPO against SFT and beside SFT itself",
        wrong_reference,
        ("05",),
    ),
    Claim(
        "N2",
        "N2: DPO hacks its own implicit reward",
        "A",
        "ten times the tuned rate against the tuned one: margin of held-out pairs, nats, and gold reward",
        own_reward,
        ("05",),
    ),
]
