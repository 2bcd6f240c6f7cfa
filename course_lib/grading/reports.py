"""What a learner is told, as plain values: a verdict with its diagnosis, and progress in a lesson. No torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong, why, where the lesson explains it; `mistakes` are names from the bank, if it is one of those."""

    says: str
    why: str = ""
    lesson: str = ""
    mistakes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Example:
    """The smallest input on which an answer failed, and what it did there. Never what is right."""

    property: str
    call: str
    did: str


@dataclass(frozen=True)
class Verdict:
    """A task's points, and why."""

    task: str
    title: str
    points: int
    of: int
    properties: tuple[tuple[str, bool], ...] = ()
    diagnosis: Diagnosis | None = None
    example: Example | None = None
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return self.points == self.of

    def to_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, plain: dict) -> Verdict:
        diagnosis, example = plain["diagnosis"], plain["example"]
        return cls(
            **plain
            | {
                "properties": tuple((name, holds) for name, holds in plain["properties"]),
                "diagnosis": diagnosis and Diagnosis(**diagnosis | {"mistakes": tuple(diagnosis["mistakes"])}),
                "example": example and Example(**example),
                "notes": tuple(plain["notes"]),
            }
        )


@dataclass(frozen=True)
class LessonProgress:
    """How far a lesson's tasks are: `tasks` holds (id, title, points, of, tries)."""

    lesson: str
    title: str
    tasks: tuple[tuple[str, str, int, int, int], ...]

    @property
    def points(self) -> int:
        return sum(points for _, _, points, _, _ in self.tasks)

    @property
    def of(self) -> int:
        return sum(of for _, _, _, of, _ in self.tasks)

    @property
    def solved(self) -> int:
        return sum(points == of for _, _, points, of, _ in self.tasks)
