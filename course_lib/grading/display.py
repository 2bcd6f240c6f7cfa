"""How verdicts, hints and progress look, as text and as HTML."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from pathlib import Path

from course_lib.grading.reports import Diagnosis, LessonProgress, Verdict

GOOD, BAD = "darkgreen", "firebrick"
CELL = "style='text-align:left;padding:2px 10px 2px 0'"


def explained(diagnosis: Diagnosis) -> str:
    """Where a lesson explains it; a heading may end in a question mark."""
    return f"Explained in lesson {diagnosis.lesson}" + ("" if diagnosis.lesson.endswith("?") else ".")


@dataclass(frozen=True)
class Report:
    """A verdict on its way to the learner."""

    verdict: Verdict
    further: tuple[str, ...] = ()

    @property
    def points(self) -> int:
        return self.verdict.points

    @property
    def passed(self) -> bool:
        return self.verdict.passed

    @property
    def mistakes(self) -> tuple[str, ...]:
        """Names of the known mistakes that were recognised."""
        return self.verdict.diagnosis.mistakes if self.verdict.diagnosis else ()

    def __repr__(self) -> str:
        v = self.verdict
        lines = [f"{v.task} {v.title}: {v.points} of {v.of} points"]
        lines += [f"  {'holds' if holds else 'FAILS'}  {name}" for name, holds in v.properties]
        if v.diagnosis:
            lines += ["", f"What it is: {v.diagnosis.says}.", *filter(None, [v.diagnosis.why])]
            if v.diagnosis.lesson:
                lines.append(explained(v.diagnosis))
        if v.example:
            lines += [
                "",
                "The smallest input where it shows:",
                f"  {v.example.call}",
                f"  {v.example.did}",
            ]
        lines += [f"Note: {note}" for note in (*v.notes, *self.further)]
        if not v.passed:
            lines += ["", f'For a hint: hint("{v.task}")']
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        v = self.verdict
        colour = GOOD if v.passed else BAD
        rows = "".join(
            _row(
                f"<span style='color:{GOOD if holds else BAD}'>{'✓ holds' if holds else '✗ fails'}</span>", escape(name)
            )
            for name, holds in v.properties
        )
        parts = [
            f"<b style='color:{colour}'>{escape(v.task)} {escape(v.title)}: {v.points} of {v.of} points</b>",
            f"<table>{rows}</table>" if rows else "",
        ]
        if v.diagnosis:
            where = f" <i>{escape(explained(v.diagnosis))}</i>" if v.diagnosis.lesson else ""
            parts.append(f"<p><b>What it is: {escape(v.diagnosis.says)}.</b> {escape(v.diagnosis.why)}{where}</p>")
        if v.example:
            shown = escape(f"{v.example.call}\n{v.example.did}")
            style = "white-space:pre-wrap;margin:0"
            parts.append(
                f"<p>The smallest input where it shows, and what yours did:</p><pre style='{style}'>{shown}</pre>"
            )
        parts += [f"<p>{escape(note)}</p>" for note in (*v.notes, *self.further)]
        if not v.passed:
            parts.append(f'<p>For a hint: <code>hint("{escape(v.task)}")</code></p>')
        return "<div style='max-width:60em'>" + "".join(parts) + "</div>"


@dataclass(frozen=True)
class HintText:
    """One hint."""

    task: str
    title: str
    number: int
    count: int
    text: str | None

    def __repr__(self) -> str:
        if self.text is None:
            return f"{self.task}: that was the last of {self.count} hints. Read the lesson's section again."
        return f"{self.task}, hint {self.number} of {self.count}: {self.text}"


@dataclass(frozen=True)
class ProgressTable:
    """The course at a glance."""

    lessons: list[LessonProgress]
    file: Path

    def __repr__(self) -> str:
        lines = [f"{each.lesson}  {each.title:<26} {_bar(each)}  {', '.join(_counts(each))}" for each in self.lessons]
        return "\n".join([*lines, self._sum()])

    def _sum(self) -> str:
        points, of = (sum(getattr(each, name) for each in self.lessons) for name in ("points", "of"))
        return f"{points} of {of} points; kept in {self.file}, and nowhere else"

    def _repr_html_(self) -> str:
        rows = "".join(_row(each.lesson, escape(each.title), _squares(each), *_counts(each)) for each in self.lessons)
        return f"<table>{rows}</table><p>{escape(self._sum())}</p>"


def _row(*cells: str) -> str:
    return "<tr>" + "".join(f"<td {CELL}>{cell}</td>" for cell in cells) + "</tr>"


def _counts(lesson: LessonProgress) -> tuple[str, str]:
    return f"{lesson.solved} of {len(lesson.tasks)} tasks", f"{lesson.points} of {lesson.of} points"


def _bar(lesson: LessonProgress) -> str:
    return "".join("#" if points == of else "." for _, _, points, of, _ in lesson.tasks).ljust(6)


def _squares(lesson: LessonProgress) -> str:
    def square(task: str, title: str, points: int, of: int, tries: int) -> str:
        colour = GOOD if points == of else "darkorange" if tries else "lightgrey"
        said = escape(f"{task} {title}: {points} of {of} points, tried {tries} times", quote=True)
        return f"<span title='{said}' style='color:{colour}'>■</span>"

    return " ".join(square(*task) for task in lesson.tasks)
