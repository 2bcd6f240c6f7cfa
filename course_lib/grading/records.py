"""What a learner has solved: one local JSON file, which is never sent anywhere."""

from __future__ import annotations

import json
import os
from datetime import date
from pathlib import Path

import platformdirs

from course_lib.grading.bank import all_tasks
from course_lib.grading.reports import LessonProgress, Verdict
from course_lib.lessons.curriculum import LESSONS

FORMAT = 1


def progress_file() -> Path:
    """Where progress is kept: $COURSE_PROGRESS, or the user's own data folder, which no upgrade touches."""
    return Path(os.environ.get("COURSE_PROGRESS") or platformdirs.user_data_path("course-lib") / "progress.json")


def load() -> dict:
    """All that is kept: {"format", "tasks": {id: {"points", "of", "tries", "hints", "solved"}}}.

    An unreadable file is put aside under another name, never overwritten.
    """
    path = progress_file()
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(kept, dict) and isinstance(kept.get("tasks"), dict):
            return kept
    except FileNotFoundError:
        return {"format": FORMAT, "tasks": {}}
    except (ValueError, OSError):
        pass
    path.replace(path.with_suffix(f".unreadable-{os.getpid()}.json"))
    return {"format": FORMAT, "tasks": {}}


def _save(kept: dict) -> None:
    path = progress_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_suffix(f".{os.getpid()}.half")
    half.write_text(json.dumps(kept, indent=1), encoding="utf-8")
    half.replace(path)


def _entry(kept: dict, task: str) -> dict:
    """A task's entry, with what an older or damaged one lacks."""
    known = kept["tasks"].get(task)
    kept["tasks"][task] = {"points": 0, "tries": 0, "hints": 0} | (known if isinstance(known, dict) else {})
    return kept["tasks"][task]


def record(verdict: Verdict) -> None:
    """Count a try; points once earned stay."""
    kept = load()
    entry = _entry(kept, verdict.task)
    entry["tries"] += 1
    entry["of"] = verdict.of
    entry["points"] = max(entry["points"], verdict.points)
    if verdict.passed:
        entry.setdefault("solved", date.today().isoformat())
    _save(kept)


def next_hint(task: str) -> dict:
    """{"number", "count", "text"} of the next hint; the text is None after the last."""
    hints = all_tasks()[task].hints
    kept = load()
    entry = _entry(kept, task)
    shown = entry["hints"]
    entry["hints"] = min(shown + 1, len(hints))
    _save(kept)
    return {"number": entry["hints"], "count": len(hints), "text": hints[shown] if shown < len(hints) else None}


def by_lesson() -> list[LessonProgress]:
    """Progress in each lesson that has tasks."""
    kept = load()
    found = []
    for number, title, _ in LESSONS:
        rows = [_row(kept, task) for task in all_tasks().values() if task.lesson == number]
        if rows:
            found.append(LessonProgress(number, title.replace("\n", " "), tuple(rows)))
    return found


def _row(kept: dict, task) -> tuple[str, str, int, int, int]:
    entry = _entry(kept, task.id)
    return task.id, task.title, min(entry["points"], task.points), task.points, entry["tries"]
