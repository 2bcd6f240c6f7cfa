"""The grader as a small panel with buttons, so that nobody has to know a function's name."""

from __future__ import annotations

from html import escape

import ipywidgets

from course_lib.grading.checker import THE_CHECKER
from course_lib.grading.notebook import check, hint, progress


def panel(lesson: str) -> ipywidgets.Widget:
    """Choose a task, check the answer that the notebook holds, ask for a hint, see the course's progress.

    Args:
        lesson: "04", or one task of it, "04.2".

    Raises:
        ValueError: there is no such lesson or task.
    """
    tasks = THE_CHECKER.ask({"ask": "tasks", "lesson": lesson})["tasks"]
    task = ipywidgets.Dropdown(options=[(f"{name} {title}", name) for name, title in tasks], description="task")
    shown = ipywidgets.HTML()
    actions = {
        "Check": lambda: check(task.value)._repr_html_(),
        "Hint": lambda: f"<p>{escape(repr(hint(task.value)))}</p>",
        "Progress": lambda: progress()._repr_html_(),
    }

    def press(name: str) -> None:
        shown.value = "<p>…</p>"
        try:
            shown.value = actions[name]()
        except Exception as error:  # a button's traceback would vanish in a log
            shown.value = f"<p><b>That did not work:</b> {escape(str(error))}</p>"

    buttons = [ipywidgets.Button(description=name) for name in actions]
    for button in buttons:
        button.on_click(lambda pressed: press(pressed.description))
    return ipywidgets.VBox([ipywidgets.HBox([task, *buttons]), shown])
