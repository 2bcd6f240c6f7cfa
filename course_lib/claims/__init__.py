"""The ledger: what articles claim, who says so, the rule, and the verdict computed from what was measured.

`claim("O2").judge()` gives one verdict, `LEDGER` all claims. Lessons, pages and tests ask here; calculators and
trainers know nothing of claims. `judging` holds the rules that several claims share, `results` reads the committed
experiments, `reported_memory` and `reported_speed` what others reported, and each other file the claims of a lesson or
two.
"""

from course_lib.claims import (
    direct,
    exact_corner,
    failures,
    family,
    labels,
    memory,
    needs,
    objectives,
    online,
    speed,
    untested,
)
from course_lib.claims.judging import SOURCES, VERDICTS, Claim, Judgement
from course_lib.claims.results import seeds

MODULES = (
    direct, exact_corner, failures, family, labels, memory, needs, objectives, online, speed, untested
)  # fmt: skip
ORDER = "PMSORND"  # pipelines, memory, speed, optimisation, outcomes, reward hacking, choosing


def _place(claim: Claim) -> tuple[int, int, str]:
    digits = "".join(filter(str.isdigit, claim.id))
    return ORDER.index(claim.id[0]), int(digits), claim.id


LEDGER: list[Claim] = sorted(
    (row for module in MODULES for row in module.CLAIMS),
    key=_place,
)


def claim(name: str) -> Claim:
    """The claim of that id.

    Raises:
        KeyError: for an id that is not in the ledger; it says which are.
    """
    for row in LEDGER:
        if row.id == name:
            return row
    raise KeyError(f"there is no claim {name!r}; the ledger has {', '.join(row.id for row in LEDGER)}")


__all__ = ["LEDGER", "SOURCES", "VERDICTS", "Claim", "Judgement", "claim", "seeds"]
