"""What instructors get: points as a table, CSV, JSON and nbgrader's gradebook form, and one HTML page a learner."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import jinja2

from course_lib.grading.display import explained
from course_lib.grading.reports import Verdict

COLUMNS = ("learner", "file", "lesson", "task", "title", "points", "of", "says", "mistakes", "seconds")
GRADEBOOK = (  # the columns of nbgrader's own export, so that what reads that reads this
    "assignment", "duedate", "timestamp", "student_id", "last_name", "first_name", "email", "raw_score",
    "late_submission_penalty", "score", "max_score",
)  # fmt: skip


def write_tables(results: Sequence[dict], out: Path) -> None:
    """points.csv, gradebook.csv, results.json, and reports/LEARNER.html."""
    rows = list(task_rows(results))
    _write_csv(out / "points.csv", COLUMNS, rows)
    _write_csv(out / "gradebook.csv", GRADEBOOK, [_gradebook_row(row) for row in rows])
    (out / "results.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    reports = out / "reports"
    reports.mkdir(exist_ok=True)
    template = jinja2.Environment(autoescape=True).from_string(
        Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    )
    for learner in dict.fromkeys(result["learner"] for result in results):
        own = [result for result in results if result["learner"] == learner]
        page = template.render(
            explained=explained, learner=learner, submissions=[_for_report(result) for result in own]
        )
        (reports / f"{file_name(learner)}.html").write_text(page, encoding="utf-8", errors="replace")


def task_rows(results: Iterable[dict]) -> Iterable[dict]:
    """One row a task; a submission that could not be graded has one row that says why."""
    for result in results:
        common = {"learner": result["learner"], "file": result["file"], "lesson": result["lesson"] or ""}
        for verdict in result["verdicts"]:
            diagnosis = verdict["diagnosis"] or {"says": "", "mistakes": ()}
            yield common | {
                "task": verdict["task"], "title": verdict["title"], "points": verdict["points"], "of": verdict["of"],
                "says": diagnosis["says"], "mistakes": "; ".join(diagnosis["mistakes"]), "seconds": result["seconds"],
            }  # fmt: skip
        if result["problem"]:
            yield common | {"task": "", "title": "", "points": 0, "of": 0, "says": f"not graded: {result['problem']}",
                            "mistakes": "", "seconds": result["seconds"]}  # fmt: skip


def summary(results: Sequence[dict]) -> str:
    """Points by learner and lesson, as text, and the seconds that a submission took."""
    learners = list(dict.fromkeys(result["learner"] for result in results))
    lessons = sorted({result["lesson"] for result in results if result["lesson"]})
    points: dict[tuple[str, str], tuple[int, int]] = {}
    for result in results:
        verdicts = result["verdicts"]
        if verdicts:
            points[result["learner"], result["lesson"]] = tuple(
                sum(v[key] for v in verdicts) for key in ("points", "of")
            )
    width = max(map(len, [*learners, "learner"]))
    lines = ["  ".join(["learner".ljust(width), *(f"{lesson:>7}" for lesson in lessons)])]
    for learner in learners:
        cells = ["{}/{}".format(*points[learner, each]) if (learner, each) in points else "" for each in lessons]
        lines.append("  ".join([learner.ljust(width), *(f"{cell:>7}" for cell in cells)]))
    lines += [f"not graded: {r['file']}: {r['problem']}" for r in results if r["problem"]]
    seconds = sorted(result["seconds"] for result in results)
    middle, most = seconds[len(seconds) // 2], seconds[-1]
    return "\n".join([*lines, f"{len(results)} submissions; seconds for one: median {middle:.1f}, most {most:.1f}"])


def _gradebook_row(row: dict) -> dict:
    known = {"assignment": row["task"] or row["file"], "student_id": row["learner"], "raw_score": row["points"]}
    return dict.fromkeys(GRADEBOOK, "") | known | {
        "late_submission_penalty": 0.0, "score": row["points"], "max_score": row["of"],
    }  # fmt: skip


def _write_csv(path: Path, columns: Sequence[str], rows: Iterable[dict]) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="replace") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows({key: _harmless(value) for key, value in row.items()} for row in rows)


def _harmless(value):
    """Text that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def file_name(learner: str) -> str:
    """A learner's name as a file's name."""
    plain = re.sub(r"[^\w.@-]", "_", learner).lstrip(".")[:80]
    itself = plain == learner and not re.search(r"-[0-9a-f]{6}$", plain)  # no name passes for another one's page
    return plain if itself else f"{plain}-{hashlib.sha256(learner.encode()).hexdigest()[:6]}"


def _for_report(result: dict) -> dict:
    verdicts = [Verdict.from_dict(verdict) for verdict in result["verdicts"]]
    points, of = sum(v.points for v in verdicts), sum(v.of for v in verdicts)
    return {"file": result["file"], "problem": result["problem"], "verdicts": verdicts, "points": points, "of": of}
