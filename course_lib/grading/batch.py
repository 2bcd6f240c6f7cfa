"""`course grade FOLDER`: a class in one run, each submission in a sandbox of its own; stopped, it goes on from there.

A submission is one notebook of one learner. Folders may be laid out as FOLDER/learner/04_*.ipynb, as nbgrader's
FOLDER/learner/assignment/04_*.ipynb, or flat as FOLDER/learner.ipynb.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from course_lib.grading import bank
from course_lib.grading.outcomes import printable
from course_lib.grading.reports import Verdict
from course_lib.grading.sandbox import SandboxError, Worker, box_trouble
from course_lib.grading.submissions import SubmissionError, answers, check_file, code_cells, defines, source_of
from course_lib.grading.tables import write_tables
from course_lib.grading.task import Task
from course_lib.grading.verdict import judge, refusal, request_for

SECONDS = 10.0  # of the processor, for one answer on all its inputs
RESULTS = "results.jsonl"


class GradingRefused(ValueError):
    """The folder cannot be graded; the message says what to do."""


@dataclass(frozen=True)
class Submission:
    """One notebook of one learner."""

    learner: str
    name: str
    path: Path
    modified: float = 0.0


def grade(folder: Path, out: Path, *, unsafe: bool = False, jobs: int | None = None, quiet: bool = False) -> list[dict]:
    """Grade every submission in a folder, write tables and reports to `out`, and return one result a submission.

    A submission that `out` holds a result of is not graded again, unless it or its tasks have changed.

    Args:
        unsafe: go on without bubblewrap; answers can then read and write what you can.
        jobs: submissions at a time, by default one for each core.

    Raises:
        GradingRefused: there is no bubblewrap, no folder, or nothing in it.
    """
    if jobs is not None and jobs < 1:
        raise GradingRefused(f"jobs must be at least 1, not {jobs}")
    trouble = box_trouble()
    if trouble and not unsafe:
        raise GradingRefused(f"{trouble}; answers of strangers run only boxed in, or with --unsafe, at your own risk")
    submissions = find(folder, out)
    if not submissions:
        raise GradingRefused(
            f"there is no notebook in {folder}: lay them out as {folder}/LEARNER/04_dpo_from_scratch.ipynb"
        )
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    kept = _Results(out / RESULTS)
    edition = _edition()
    keys = {submission: _key(submission, edition) for submission in submissions}
    waiting = [submission for submission in submissions if keys[submission] not in kept.results]
    with (
        ThreadPoolExecutor(jobs or os.cpu_count() or 1) as pool,
        tqdm(total=len(submissions), initial=len(submissions) - len(waiting), desc="submissions", disable=quiet) as bar,
    ):
        running = [pool.submit(grade_one, submission, boxed=trouble is None) for submission in waiting]
        try:
            for submission, done in zip(waiting, running, strict=True):
                done.add_done_callback(lambda done, key=keys[submission]: kept.add(key, done))
            for _ in as_completed(running):
                bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for done in running:
        done.result()
    results = [
        kept.results[keys[each]] | {"file": each.name, "learner": each.learner, "modified": each.modified}
        for each in submissions
    ]
    set_older_aside(results)
    write_tables(results, out)
    return results


def set_older_aside(results: list[dict]) -> None:
    """Of a lesson that a learner handed in more than once, only the newest file counts."""
    newest: dict[tuple, dict] = {}
    for result in sorted(results, key=lambda result: result["modified"]):
        older = newest.get((result["learner"], result["lesson"]))
        if older and result["lesson"]:
            older |= {"verdicts": [], "problem": f"{result['file']} is newer, and counts"}
        newest[result["learner"], result["lesson"]] = result


def find(folder: Path, out: Path) -> list[Submission]:
    """Every notebook below a folder, in order; what lies in `out` or in hidden folders is none."""
    if not folder.is_dir():
        raise GradingRefused(f"there is no folder {folder}")
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".ipynb"):
        place = path.relative_to(folder)
        if path.is_relative_to(out) or any(part.startswith(".") for part in place.parts):
            continue
        if not path.resolve().is_relative_to(folder.resolve()) and not path.is_symlink():
            continue  # reached through a linked folder
        learner = place.parts[0] if len(place.parts) > 1 else place.stem
        names = (printable(os.fsencode(name).decode("utf-8", "replace"), 300) for name in (learner, place.as_posix()))
        found.append(Submission(*names, path, path.lstat().st_mtime))
    return found


def _edition() -> str:
    """Changes when the tasks or the grader do: results of another edition are not kept."""
    sources = sorted(Path(bank.__file__).parent.parent.rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


def _key(submission: Submission, edition: str) -> str:
    try:
        check_file(submission.path)
        with submission.path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
    except (SubmissionError, OSError) as error:
        content = str(error).encode()
    return hashlib.sha256(b"\n".join([edition.encode(), os.fsencode(submission.path), content])).hexdigest()


class _Results:
    """Results by key, each written to a file as soon as it is there; a line cut short by a kill does not count."""

    def __init__(self, path: Path):
        self.path, self.lock, self.results = path, threading.Lock(), {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                kept = json.loads(line)
                self.results[kept["key"]] = kept["result"]
            except (ValueError, KeyError, TypeError):
                continue

    def add(self, key: str, done) -> None:
        if done.cancelled() or done.exception():
            return
        with self.lock:
            self.results[key] = done.result()
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n" * _cut_short(self.path) + json.dumps({"key": key, "result": done.result()}) + "\n")
                file.flush()
                os.fsync(file.fileno())


def _cut_short(path: Path) -> bool:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(-1, os.SEEK_END)
        return bool(size) and file.read(1) != b"\n"


# ---- one submission


def grade_one(submission: Submission, *, boxed: bool) -> dict:
    """A submission's verdicts, in a sandbox of its own: {"lesson", "verdicts", "problem", "seconds"}."""
    start = time.perf_counter()
    lesson, verdicts, problem = None, [], None
    try:
        tasks = lesson_tasks(submission.path)
        lesson = tasks[0].lesson
        verdicts = list(_verdicts(tasks, answers(submission.path, tasks), boxed))
    except SubmissionError as error:
        problem = str(error)
    except SandboxError:
        raise
    except Exception as error:  # one submission never stops a class
        problem = f"the grader failed: {printable(f'{type(error).__name__}: {error}', 300)}"
    plain = [verdict.to_dict() for verdict in verdicts]
    return {"lesson": lesson, "verdicts": plain, "problem": problem, "seconds": round(time.perf_counter() - start, 2)}


def lesson_tasks(path: Path) -> list[Task]:
    """The tasks of the lesson that a notebook answers: by the number its name holds, or else by what it defines.

    Raises:
        SubmissionError: it answers none.
    """
    cells = code_cells(path)
    if path.name[:2] in bank.lessons() and path.name[2:3] in ("_", ".", "-"):
        return bank.tasks_of(path.name[:2])
    by_lesson = {lesson: bank.tasks_of(lesson) for lesson in bank.lessons()}
    sources = [source_of(cell) for cell in cells]
    counts = {lesson: sum(any(defines(source, task.function) for source in sources) for task in tasks)
              for lesson, tasks in by_lesson.items()}  # fmt: skip
    best = max(counts, key=counts.get)
    if not counts[best]:
        raise SubmissionError(
            "it answers no task: keep the name of the exercise's notebook, such as 04_dpo_from_scratch.ipynb"
        )
    return by_lesson[best]


def _verdicts(tasks: Sequence[Task], found: dict[str, str], boxed: bool) -> Iterator[Verdict]:
    """A verdict on each task; a worker that an answer has upset is replaced."""
    worker = None
    try:
        for task in tasks:
            if task.id not in found:
                yield refusal(task, "there is no answer", f"No cell defines {task.function}.")
                continue
            worker = worker or Worker(boxed=boxed)
            cases = task.draw_cases()
            answer = {"cell": found[task.id], "name": task.function}
            reply = worker.ask(request_for(task, cases, answer, SECONDS))
            yield judge(task, cases, reply["outcomes"], reply["ended"])
            if reply["ended"]:
                worker.close()
                worker = None
    finally:
        if worker:
            worker.close()
