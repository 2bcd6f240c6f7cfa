"""What the checker's process answers: verdicts, hints and progress, with one worker that is replaced when upset."""

from __future__ import annotations

from course_lib.grading import records
from course_lib.grading.bank import UnknownTask, task_of, tasks_of
from course_lib.grading.sandbox import Worker
from course_lib.grading.task import Task
from course_lib.grading.verdict import Verdict, judge, refusal, request_for

__all__ = ["Desk", "UnknownTask"]
SECONDS = 5.0  # of the processor, for an answer on all its inputs


class Desk:
    """Answers one question after the other; each is a dict with "ask" and what that needs."""

    def __init__(self, worker: Worker):
        self.worker = worker

    def answer(self, question: dict) -> dict:
        if question["ask"] == "progress":
            return {"lessons": [vars(each) for each in records.by_lesson()], "file": str(records.progress_file())}
        if question["ask"] == "tasks":
            return {"tasks": [[task.id, task.title] for task in tasks_of(question["lesson"])]}
        task = task_of(question["task"])
        if question["ask"] == "function":
            return {"function": task.function}
        if question["ask"] == "hint":
            return {"title": task.title} | records.next_hint(task.id)
        if "pickle" in question:
            verdict = self.check(task, question["pickle"])
        else:
            verdict = refusal(task, question["says"], question["why"])
        records.record(verdict)
        return {"verdict": verdict.to_dict()}

    def check(self, task: Task, pickled: str) -> Verdict:
        cases = task.draw_cases()
        reply = self.worker.ask(request_for(task, cases, {"pickle": pickled}, SECONDS))
        if reply["ended"]:
            self.worker.close()
            self.worker = Worker()
        return judge(task, cases, reply["outcomes"], reply["ended"])
