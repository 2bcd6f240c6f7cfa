"""Every task of the bank is proved, and exercises, solutions and lessons say of it what the bank says."""

import re
from pathlib import Path

import nbformat
import pytest

from course_lib.grading import all_tasks
from course_lib.grading.bank import tasks_of
from course_lib.grading.batch import Submission, grade_one
from course_lib.grading.mutation import mutants
from course_lib.grading.proof import faults, gets_points, machine_mutants, survivors
from course_lib.grading.sandbox import box_trouble
from course_lib.grading.submissions import answer_id
from course_lib.grading.task import KINDS
from course_lib.lessons.curriculum import ready

ROOT = Path(__file__).parent.parent
TASKS = all_tasks()
LESSONS = ready(ROOT / "notebooks")
BOXED = box_trouble() is None


def notebook_of(folder: str, lesson: str):
    (path,) = (ROOT / folder).glob(f"{lesson}_*.ipynb")
    return nbformat.read(path, as_version=4)


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_proved(name):
    assert not faults(TASKS[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_faults_made_by_machine_are_noticed_but_for_those_that_change_nothing(name):
    task = TASKS[name]
    assert set(survivors(task)) == set(task.equivalent)
    assert all(task.equivalent.values()), "each needs its reason"


def test_of_all_faults_made_by_machine_95_in_100_are_noticed():
    made = sum(len(machine_mutants(task)) for task in TASKS.values())
    left = sum(len(task.equivalent) for task in TASKS.values())  # a test above holds these to be the survivors
    assert made > 10 * len(TASKS) and left <= 0.05 * made


@pytest.mark.slow
def test_of_faults_made_in_the_solutions_as_printed_95_in_100_are_noticed():
    made = left = 0
    for lesson in LESSONS:
        cells = {cell.id: cell.source for cell in notebook_of("solutions", lesson).cells}
        for task in tasks_of(lesson):
            found = dict(mutants(cells[answer_id(task.id)]))
            made += len(found)
            left += sum(gets_points(task, source) for source in found.values())
    assert made > 1000 and left <= 0.05 * made


def test_every_lesson_has_three_to_six_tasks_and_all_kinds_occur():
    counts = {lesson: len(tasks_of(lesson)) for lesson in LESSONS}
    assert all(3 <= count <= 6 for count in counts.values()), counts
    assert {task.kind for task in TASKS.values()} == set(KINDS)


def test_names_of_functions_are_unique_in_a_lesson():
    for lesson in LESSONS:
        names = [task.function for task in tasks_of(lesson)]
        assert len(names) == len(set(names))


def headings() -> set[str]:
    found = set()
    for lesson in LESSONS:
        for cell in notebook_of("notebooks", lesson).cells:
            if cell.cell_type == "markdown":
                found |= {f"{lesson}, {title.strip()}" for title in re.findall(r"^#+ (.+)$", cell.source, re.M)}
    return found


def test_every_mistake_points_to_a_heading_that_explains_it():
    known = headings()
    unknown = {m.lesson for task in TASKS.values() for m in task.mistakes} - known
    assert not unknown
    assert not [m for task in TASKS.values() for m in task.mistakes if m.lesson.endswith(", Exercises")]


@pytest.mark.parametrize("lesson", LESSONS)
def test_the_solution_notebook_shows_each_task_as_the_bank_has_it(lesson):
    notebook = notebook_of("solutions", lesson)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    cells = {cell.id: cell for cell in notebook.cells}
    for task in tasks_of(lesson):
        points = f"{task.points} point" + "s" * (task.points != 1)
        line = f"*{task.kind[0].upper() + task.kind[1:]} · {points} · {task.difficulty} · {task.minutes} minutes*"
        assert f"## {task.id} {task.title}\n\n{line}" in text
        assert f"def {task.function}(" in cells[answer_id(task.id)].source
        assert any(f'check("{task.id}", {task.function})' in cell.source for cell in notebook.cells)


@pytest.mark.parametrize("lesson", LESSONS)
def test_the_lesson_leads_to_its_tasks(lesson):
    text = "\n".join(cell.source for cell in notebook_of("notebooks", lesson).cells if cell.cell_type == "markdown")
    section = text.partition("## Exercises")[2].partition("\n## ")[0]
    assert f"](../exercises/{lesson}_" in section
    for task in tasks_of(lesson):
        assert f"- *{task.title}*: {task.kind}, {task.points} point" in section


def graded(folder: str, lesson: str) -> list[dict]:
    (path,) = (ROOT / folder).glob(f"{lesson}_*.ipynb")
    return grade_one(Submission("a", path.name, path), boxed=BOXED)["verdicts"]


@pytest.mark.slow
@pytest.mark.parametrize("lesson", LESSONS)
def test_a_solution_gets_all_points_and_an_untouched_exercise_none(lesson):
    assert [v["points"] for v in graded("solutions", lesson)] == [task.points for task in tasks_of(lesson)]
    untouched = graded("exercises", lesson)
    assert [v["points"] for v in untouched] == [0] * len(tasks_of(lesson))
    for task, verdict in zip(tasks_of(lesson), untouched, strict=True):
        bug = task.mistakes[0].name if task.kind == "fix the bug" else "it is not written yet"
        assert verdict["diagnosis"]["says"] == bug


def test_exercises_hold_no_answers_and_no_outputs():
    for lesson in LESSONS:
        for cell in notebook_of("exercises", lesson).cells:
            assert "SOLUTION" not in cell.source and not cell.get("outputs") and not cell.metadata.get("tags")
