"""Replies and next tokens of a model, by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import ipywidgets
import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import display

from course_lib.figures import plot_next_token
from course_lib.rollouts import sample
from course_lib.world import gold_parts


def reply_explorer(models: Mapping[str, tuple], prompts: Sequence) -> ipywidgets.Widget:
    """Choose a model, a prompt, a temperature and a seed; see the reply and its gold reward part by part."""

    def show(model: str, prompt: int, temperature: float, seed: int):
        policy, tokenizer = models[model]
        reply = sample(policy, tokenizer, [prompts[prompt]], temperature=temperature, seed=seed)
        print("prompt:", prompts[prompt][-1]["content"])
        print("reply: ", reply[0])
        parts = gold_parts(prompts[prompt], reply[0])
        row = {"gold": sum(parts.values())} | {name: part for name, part in parts.items() if part}
        display(pd.DataFrame([row], index=["gold reward"]).round(2))

    return ipywidgets.interactive(
        show,
        model=ipywidgets.ToggleButtons(options=list(models)),
        prompt=ipywidgets.Dropdown(options=[(p[-1]["content"], i) for i, p in enumerate(prompts)]),
        temperature=ipywidgets.FloatSlider(value=0, min=0, max=1.5, step=0.1, continuous_update=False),
        seed=ipywidgets.IntSlider(value=0, min=0, max=20, continuous_update=False),
    )


def next_token_explorer(tokens: Sequence[str], probabilities: pd.DataFrame) -> ipywidgets.Widget:
    """A slider through the positions of one sequence over `plot_next_token`."""

    def show(position: int):
        plot_next_token(tokens, probabilities, position)
        plt.show()

    slider = ipywidgets.IntSlider(value=1, min=1, max=len(tokens) - 1, continuous_update=False)
    return ipywidgets.interactive(show, position=slider)


def rollout_explorer(rounds: Sequence[pd.DataFrame]) -> ipywidgets.Widget:
    """Turn the pages of a run: a table of prompts, replies and rewards for each round, as many rows as fit a screen.

    Args:
        rounds: one table a round, with the columns that shall be seen.
    """

    def show(number: int, sort: str, downwards: bool):
        table = rounds[number - 1]
        if sort != "as drawn":
            table = table.sort_values(sort, ascending=not downwards)
        with pd.option_context("display.max_colwidth", None):
            display(table.head(12).round(2))

    return ipywidgets.interactive(
        show,
        number=ipywidgets.IntSlider(value=1, min=1, max=len(rounds), description="round", continuous_update=False),
        sort=ipywidgets.Dropdown(options=["as drawn", *rounds[0].columns]),
        downwards=ipywidgets.Checkbox(value=True),
    )
