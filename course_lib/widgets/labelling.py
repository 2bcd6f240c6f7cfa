"""Labelling pairs by hand."""

from __future__ import annotations

import html
from collections.abc import MutableMapping, Sequence

import ipywidgets


def pair_labeller(pairs: Sequence[tuple[str, str, str]], choices: MutableMapping[int, str]) -> ipywidgets.Widget:
    """Two replies to a prompt, one pair after the other; a click says which one is better.

    Args:
        pairs: `(prompt, one, two)`, texts.
        choices: filled by the clicks: number of the pair -> "one" or "two". A pair that is gone back to is asked anew.
    """
    text, place = ipywidgets.HTML(), ipywidgets.IntProgress(value=0, min=0, max=len(pairs), description="labelled")
    buttons = {name: ipywidgets.Button(description=f"{name} is better") for name in ("one", "two")}
    back = ipywidgets.Button(description="back")

    def show() -> None:
        place.value = len(choices)
        done = len(choices) == len(pairs)
        for button in buttons.values():
            button.disabled = done
        back.disabled = not choices
        if done:
            text.value = "<b>All pairs are labelled. Run the next cells.</b>"
            return
        prompt, one, two = map(html.escape, pairs[len(choices)])
        text.value = f"<p><b>{prompt}</b></p><p>one: {one}</p><p>two: {two}</p>"

    def choose(name: str) -> None:
        choices[len(choices)] = name
        show()

    def undo(_) -> None:
        choices.pop(len(choices) - 1)
        show()

    for name, button in buttons.items():
        button.on_click(lambda _, name=name: choose(name))
    back.on_click(undo)
    show()
    return ipywidgets.VBox([place, text, ipywidgets.HBox([*buttons.values(), back])])
