"""O8, from the results of `experiments/sensitivity.py`: how many settings of PPO and of DPO matter."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from course_lib.claims.judging import GOLD, HOLDS, OPEN, REFUTED, Claim, Contrast, Judgement, contrast, in_words
from course_lib.claims.results import seeds

TOGETHER = partial(contrast, claims=30)  # this experiment's arms; see experiments/protocol.md
CLAIMED = {"ppo": ("about ten settings of PPO matter", 8, 12), "dpo": ("two or three of DPO matter", 2, 3)}


class Change(NamedTuple):
    """One changed setting.

    Attributes:
        setting: its name.
        arm: what it was changed to.
        found: the changed run against the tuned one, gold reward at temperature 1.
    """

    setting: str
    arm: str
    found: Contrast


def changes(method: str, figure: str = "gold_sampled") -> list[Change]:
    """All changed settings of a method, in the order of the experiment."""
    runs = [run[method] for run in seeds("sensitivity")]
    tuned = [run["tuned"]["as it is"][figure] for run in runs]
    return [
        Change(setting, arm, TOGETHER([run[setting][arm][figure] for run in runs], tuned, margin=GOLD))
        for setting, arms in runs[0].items()
        if setting != "tuned"
        for arm in arms
    ]


def verdicts(method: str) -> dict[str, str]:
    """Setting -> whether it matters: holds, refuted, or open."""
    found: dict[str, list[Contrast]] = {}
    for change in changes(method):
        found.setdefault(change.setting, []).append(change.found)
    return {setting: _matters(contrasts) for setting, contrasts in found.items()}


def _matters(contrasts: list[Contrast]) -> str:
    if any(c.low > GOLD or c.high < -GOLD for c in contrasts):
        return HOLDS
    return REFUTED if all(c.low > -GOLD and c.high < GOLD for c in contrasts) else OPEN


def counted() -> Judgement:
    said, figures = {}, []
    for method, (says, low, high) in CLAIMED.items():
        found = verdicts(method)
        named = {v: [setting for setting, verdict in found.items() if verdict == v] for v in (HOLDS, REFUTED, OPEN)}
        least, most = len(named[HOLDS]), len(found) - len(named[REFUTED])
        said[says] = HOLDS if low <= least and most <= high else REFUTED if most < low or least > high else OPEN
        figures.append(
            f"{method.upper()}, {len(found)} settings: {least} matter ({', '.join(named[HOLDS]) or 'none'}), "
            f"{len(named[REFUTED])} do not ({', '.join(named[REFUTED]) or 'none'}), {len(named[OPEN])} are open"
        )
    whole = set(said.values())
    verdict = REFUTED if REFUTED in whole else whole.pop() if len(whole) == 1 else OPEN
    return Judgement(verdict, in_words(said), "; ".join(figures))


CLAIMS = [
    Claim(
        "O8",
        "O8: PPO has about ten hyper-parameters that matter, DPO two or three",
        "B",
        "each setting changed alone by a factor of three; it matters if gold reward changes by more than 0.05",
        counted,
        ("08",),
    )
]
