"""Claims about learning from samples, from the results of `experiments/online.py`."""

from __future__ import annotations

from functools import partial
from itertools import combinations
from statistics import median

from course_lib.claims.failures import own_reward
from course_lib.claims.judging import (
    HOLDS,
    IN_PART,
    NOT_YET,
    OPEN,
    REFUTED,
    SHARE,
    Claim,
    Judgement,
    Part,
    contrast,
    in_gold,
    of_contrasts,
)
from course_lib.claims.results import seeds
from course_lib.evaluation import paired_interval

TOGETHER = partial(contrast, claims=15)  # this experiment's contrasts; see experiments/protocol.md
PROXY = 0.1  # the smallest difference of a learned reward that would matter, its own units


def runs(*experiments: str) -> list[tuple[dict, ...]]:
    """The results of the same seeds in several experiments."""
    tables = [{run["seed"]: run for run in seeds(name)} for name in experiments]
    return [tuple(table[seed] for table in tables) for seed in sorted(set.intersection(*map(set, tables)))]


def column(arm: str, figure: str) -> list[float]:
    return [run[arm][figure] for (run,) in runs("online")]


def other(arm: str, figure: str) -> list[float]:
    """An arm of `pocket_world`, on the seeds that `online` has."""
    return [world[arm][figure] for _, world in runs("online", "pocket_world")]


def above(says: str, first: str, second: str, *, absent: bool = False) -> Part:
    """One arm against another in gold reward."""
    return in_gold(says, partial(column, first), partial(column, second), TOGETHER, absent=absent)


def above_other(says: str, first: str, second: str) -> Part:
    """An online arm against one of `pocket_world`, in gold reward."""
    return in_gold(says, partial(column, first), partial(other, second), TOGETHER)


def bare_prompts() -> Judgement:
    return of_contrasts(above("PPO on prompts without labels earns more than SFT", "ppo", "sft"))


def explores() -> Judgement:
    both = runs("online", "pocket_world")
    ppo = [run["ppo"]["misconceptions_right"]["unseen"] for run, _ in both]
    dpo = [world["misconceptions_right"]["unseen"]["dpo"] for _, world in both]
    says = "PPO mends more misconceptions about what no pair mentions than DPO"
    return of_contrasts(Part(says, TOGETHER(ppo, dpo, margin=SHARE)))


def best_of_n_pairs() -> Judgement:
    return of_contrasts(
        above("PPO earns no more than DPO on best-of-n pairs", "ppo", "bon-dpo", absent=True),
        above("iterated, such pairs earn more", "online-dpo", "bon-dpo"),
    )


def per_pair() -> Judgement:
    part = in_gold("on the same pairs DPO earns more than PPO on a reward model of them",
                   partial(other, "dpo"), partial(column, "weak"), TOGETHER)  # fmt: skip
    return of_contrasts(part)


def hacks() -> Judgement:
    proxy = {arm: [run[arm]["proxy"]["weak"] for (run,) in runs("online")] for arm in ("weak", "weak, free")}
    return of_contrasts(
        Part("without a price on distance the learned reward rises further",
             TOGETHER(proxy["weak, free"], proxy["weak"], margin=PROXY)),
        above("the true reward ends below that with a price", "weak", "weak, free"),
    )  # fmt: skip


def collapse() -> Judgement:
    says = "DPO's replies are more diverse than those of PPO without a price"
    return of_contrasts(Part(says, TOGETHER(other("dpo", "distinct"), column("weak, free", "distinct"), margin=SHARE)))


def no_reward_to_hack() -> Judgement:
    """N1 says the opposite of N2, and is judged by the same runs."""
    hacked = own_reward()
    verdict = {HOLDS: REFUTED, REFUTED: HOLDS, OPEN: OPEN, IN_PART: OPEN}[hacked.verdict]
    return Judgement(verdict, f"By the runs that decide N2: {hacked.found}", hacked.figure)


SETTINGS, SMALLEST = 30, 0.1  # changes of one setting that would have to be tried; gold reward that one should show


def how_many_settings() -> Judgement:
    """O8 is not run: what five seeds could tell of so many changes, by the spread of this experiment's arms."""
    table = {arm: column(arm, "gold_sampled") for arm in ("ppo", "rloo", "grpo", "online-dpo", "bon-dpo", "weak")}
    halves = []
    for first, second in combinations(table.values(), 2):
        _, low, high = paired_interval(first, second, confidence=1 - 0.05 / SETTINGS)
        halves.append((high - low) / 2)
    half = median(halves)
    says = f"whether a change of one setting moves gold reward by {SMALLEST}, if {SETTINGS} are tried on these seeds"
    figure = f"intervals would reach {half:.2f} to either side, the median over pairs of this experiment's arms"
    return Judgement(OPEN if half > SMALLEST else NOT_YET, f"Not settled: {says}.", figure)


def comparisons() -> list[Part]:
    """Contrasts that lessons show beside the claims."""
    return [
        above_other("PPO earns more than SFT on the chosen replies (cloning)", "ppo", "cloned"),
        above("RLOO earns more than PPO", "rloo", "ppo"),
        above("GRPO earns more than PPO", "grpo", "ppo"),
        above("a shared critic earns less than one of its own", "ppo", "ppo, shared critic"),
        above("online DPO earns more than PPO", "online-dpo", "ppo"),
        above(
            "without a price, the ensemble's minimum earns more than one weak reward", "ensemble, free", "weak, free"
        ),
        above("with the true reward and no price PPO earns more than SFT: nothing is hacked", "gold, free", "sft"),
    ]


CLAIMS = [
    Claim("N1", "N1: DPO cannot hack a reward: there is no reward model", "B", "N2's contrasts, read the other way",
          no_reward_to_hack, ("09",)),
    Claim("N3", "N3: PPO hacks the learned reward: the proxy keeps rising while the true reward falls", "B",
          "PPO on a weak reward model, without a price on KL against with it: the learned reward, and gold reward",
          hacks, ("09",)),
    Claim("N4", "N4: mode collapse is much rarer under DPO", "B",
          "share of different texts among replies to 500 prompts, DPO against PPO without a price", collapse, ("09",)),
    Claim("O8", "O8: PPO has about ten hyper-parameters that matter, DPO two or three", "B",
          "what so many changes, on as many seeds as there are, could show at all; see the protocol",
          how_many_settings, ("08",)),
    Claim("P5b", "P5, PPO's half: it is on-policy and explores", "A",
          "misconceptions about entities that no pair mentions: share answered rightly after PPO and after DPO",
          explores, ("08",)),
    Claim("P6", "P6: RLHF can turn bare prompts into signal once the reward model exists; DPO cannot", "B",
          "gold reward of PPO on prompts without labels, beside SFT", bare_prompts, ("08",)),
    Claim("R5", "R5: best-of-n pairs, then DPO, come close to PPO; iterated, closer still", "A",
          "gold reward at equal samples: PPO, DPO on pairs of the best and worst of four, and the same online",
          best_of_n_pairs, ("10",)),
    Claim("R7", "R7: DPO learns more per preference pair than RLHF", "B",
          "gold reward of DPO on 4,000 pairs, and of PPO on a reward model of the same pairs", per_pair, ("08",)),
]  # fmt: skip
