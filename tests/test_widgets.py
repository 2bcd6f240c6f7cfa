"""Widgets redraw when a control moves, and offer what the settings allow."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
import pytest

from course_lib import widgets
from course_lib.figures import description
from course_lib.sizing.settings import OPTIONS


@pytest.fixture(autouse=True)
def shown(monkeypatch):
    """Descriptions of the figures that widgets show, in order."""
    texts = []

    def show():
        texts.append(description(plt.gcf()))
        plt.close("all")

    monkeypatch.setattr(plt, "show", show)
    return texts


def control(widget, name: str):
    return next(child for child in widget.children if getattr(child, "description", None) == name)


def move(widget, **values) -> None:
    for name, value in values.items():
        control(widget, name).value = value
    widget.update()


def test_dpos_loss_follows_beta_and_the_pair(shown):
    move(widgets.dpo_loss_explorer(), beta=0.5, h=-10)
    assert shown[-1].startswith("beta = 0.50.") and "5.01 at the marked h = -10" in shown[-1]


def test_the_next_token_follows_the_position(shown):
    table = pd.DataFrame([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]], columns=["a", "b", "c"])
    explorer = widgets.next_token_explorer(["a", "b", "c"], table)
    assert control(explorer, "position").max == 2
    move(explorer, position=2)
    assert "ln p(c) = -0.51" in shown[-1] and "c 0.6, b 0.3, a 0.1" in shown[-1]


def test_the_optimum_follows_beta(shown):
    import torch

    explorer = widgets.optimum_explorer(["a", "b"], torch.tensor([0.5, 0.5]).log(), torch.tensor([0.0, 1.0]))
    move(explorer, beta=100)
    assert "RLHF optimum: a 0.498, b 0.502." in shown[-1]
    move(explorer, beta=0.1)
    assert "RLHF optimum: a 0, b 1." in shown[-1]


def test_the_loss_family_is_drawn_with_the_sliders_values():
    drawn = []
    move(widgets.loss_family_explorer(lambda *values: drawn.append(values)), beta=0.5, label_smoothing=0.1)
    assert drawn[-1] == (0.5, 0.1)


def test_memory_follows_the_settings(shown):
    explorer = widgets.memory_explorer()
    move(explorer, lora_rank=16, algorithm="sft")
    assert shown[-1].startswith("llama-3-8b, sft: peak") and "gathered weights" not in shown[-1]
    move(explorer, lora_rank=None, gpus=8)
    assert "gathered weights" in shown[-1]  # several GPUs share by ZeRO-3


def test_speed_follows_the_settings(shown):
    explorer = widgets.speed_explorer()
    move(explorer, gpu="A100-80GB", algorithm="dpo")
    assert "llama-3-8b, dpo, A100-80GB" in shown[-1] and "rollout" not in shown[-1]


@pytest.mark.parametrize("explorer", [widgets.memory_explorer, widgets.speed_explorer])
def test_calculators_offer_what_the_settings_fields_say(explorer):
    for child in explorer().children:
        if (field := OPTIONS.get(getattr(child, "description", None))) is None:
            continue
        assert child.tooltip == field.metadata["help"]
        if "choices" in field.metadata and not isinstance(field.default, bool):
            assert tuple(value for _, value in child.options) == field.metadata["choices"]


def test_the_reply_is_sampled_anew_for_each_prompt_temperature_and_seed(monkeypatch, capsys):
    from course_lib.widgets import sampling

    def reply(policy, tokenizer, prompts, *, temperature, seed):
        return [f"{policy} at {temperature} with {seed}"]

    monkeypatch.setattr(sampling, "sample", reply)
    monkeypatch.setattr(sampling, "gold_parts", lambda prompt, text: {"right": 1.5, "long": -0.5, "kind": 0.0})
    tables = []
    monkeypatch.setattr(sampling, "display", tables.append)
    prompts = [[{"role": "user", "content": text}] for text in ("first?", "second?")]
    explorer = widgets.reply_explorer({"base": ("base", None), "sft": ("sft", None)}, prompts)
    move(explorer, model="sft", prompt=1, temperature=0.5, seed=3)
    assert tables[-1].iloc[0].to_dict() == {"gold": 1.0, "right": 1.5, "long": -0.5}


def test_rollouts_are_shown_round_by_round_and_sorted(monkeypatch):
    from course_lib.widgets import sampling

    tables = []
    monkeypatch.setattr(sampling, "display", tables.append)
    rounds = [pd.DataFrame({"reply": ["a", "b"], "learned": [x, 1.0]}) for x in (0.0, 2.0)]
    explorer = widgets.rollout_explorer(rounds)
    move(explorer, round=2, sort="learned")
    assert tables[-1].reply.tolist() == ["a", "b"] and tables[-1].learned.tolist() == [2.0, 1.0]
    move(explorer, round=1)
    assert tables[-1].reply.tolist() == ["b", "a"]


def test_clicks_label_pair_after_pair_and_can_be_taken_back():
    choices = {}
    box = widgets.pair_labeller([("p?", "a", "b <i>"), ("q?", "c", "d")], choices)
    progress, text, (one, two, back) = box.children[0], box.children[1], box.children[2].children
    assert "b &lt;i&gt;" in text.value and back.disabled
    two.click()
    assert choices == {0: "two"} and progress.value == 1 and "q?" in text.value
    back.click()
    assert choices == {} and "p?" in text.value
    one.click(), one.click()
    assert choices == {0: "one", 1: "one"} and one.disabled and "All pairs" in text.value


def test_every_public_widget_is_tested():
    here = Path(__file__)
    source = here.read_text(encoding="utf-8") + here.with_name("test_figures.py").read_text(encoding="utf-8")
    assert [name for name in widgets.__all__ if f".{name}" not in source] == []
