"""What is wrong with records, row by row, and the error that says so."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """What is wrong with one row (counted from 0) and what to do about it."""

    row: int
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"row {self.row}: {self.what}; {self.remedy}"


class RecordError(ValueError):
    """Some records cannot be trained on. `problems` holds all of them, the message the first ten and what to do."""

    def __init__(self, problems: list[Problem], total: int, advice: str = ""):
        self.problems = problems
        rows = len({p.row for p in problems})
        shown = "\n".join(f"  {p}" for p in problems[:10])
        more = f"\n  ... and {len(problems) - 10} more in .problems" if len(problems) > 10 else ""
        super().__init__(
            f"{rows} of {total} records cannot be used (rows count from 0):\n{shown}{more}\n"
            f"{advice or 'Mend them, or leave them out.'}"
        )
