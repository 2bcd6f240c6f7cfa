"""Figures draw the numbers they are given, in one palette, and say in words what they show."""

import ast
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from course_lib import figures
from course_lib.figures import COLORS, description

PACKAGE = Path(__file__).resolve().parent.parent / "course_lib"
ELSEWHERE = [f for f in sorted(PACKAGE.rglob("*.py")) if f != PACKAGE / "figures/style.py"]


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def hex_colours(source: str) -> list[str]:
    strings = (n.value for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Constant) and isinstance(n.value, str))
    return [
        s
        for s in strings
        if s.startswith("#") and len(s) in (4, 7, 9) and set(s[1:].lower()) <= set("0123456789abcdef")
    ]


@pytest.mark.parametrize("file", ELSEWHERE, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_every_colour_stands_in_the_style(file):
    assert not hex_colours(file.read_text(encoding="utf-8"))


def test_the_search_for_colours_finds_them():
    assert hex_colours("a = {'dpo': '#009E73'}; b = f('#abc')") == ["#009E73", "#abc"]


def colour(mark) -> str:
    found = mark.get_facecolor() if hasattr(mark, "get_facecolor") else mark.get_color()
    return to_hex(found).upper()


def widths(ax) -> list[float]:
    return [bar.get_width() for bar in ax.patches]


def lines(ax) -> dict:
    return {line.get_label(): line for line in ax.lines}


def legend(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def ticks(ax) -> list[str]:
    return [text.get_text() for text in ax.get_yticklabels()]


def test_curves_draw_a_history_over_its_steps():
    history = pd.DataFrame({"loss/dpo": [0.7, 0.5], "loss/sft": [2.0, 1.0]}, index=[10, 20])
    ax = figures.curves(history, {"loss/dpo": "DPO", "loss/sft": "SFT"}, ylabel="loss (nats)")
    line = lines(ax)["DPO"]
    assert list(line.get_xdata()) == [10, 20] and list(line.get_ydata()) == [0.7, 0.5]
    assert colour(line) == COLORS["dpo"] and legend(ax) == ["DPO", "SFT"]
    assert "Curve of SFT: from 2 to 1." in description(ax.figure)


def test_bars_are_as_high_as_the_mean_over_seeds_in_the_methods_colours():
    ax = figures.bars({"sft": [1.0, 2.0], "dpo": [4.0]}, ylabel="reward")
    assert [bar.get_height() for bar in ax.patches] == [1.5, 4.0]
    assert [to_hex(bar.get_facecolor()).upper() for bar in ax.patches] == [COLORS["sft"], COLORS["dpo"]]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["SFT", "DPO"]
    assert "SFT 1.5, DPO 4" in description(ax.figure)


def test_stacked_parts_lay_gains_to_the_right_and_losses_to_the_left_of_zero():
    ax = figures.stacked_parts(pd.DataFrame({"right": [2.0], "long": [-0.5], "kind": [1.0]}, index=["dpo"]))
    assert [(bar.get_x(), bar.get_width()) for bar in ax.patches] == [(0, 2.0), (0, -0.5), (2.0, 1.0)]
    assert list(lines(ax)["gold reward"].get_xdata()) == [2.5]
    assert "DPO: 2.5, the sum of right 2, long -0.5, kind 1." in description(ax.figure)


def test_the_temperature_sweep_shows_each_models_mean_over_seeds():
    ax = figures.temperature_sweep([0.0, 1.0], {"sft": [[1.0, 0.0], [3.0, 1.0]], "dpo": [[4.0, 6.0]]})
    assert list(lines(ax)["SFT"].get_ydata()) == [2.0, 0.5] and list(lines(ax)["DPO"].get_ydata()) == [4.0, 6.0]
    assert "0.0 2, 1.0 0.5" in description(ax.figure) and "DPO's mean" in description(ax.figure)


def test_a_conversation_colours_replies_by_their_true_reward():
    figure = figures.conversation(["how?"], {"sft": [("so.", -1.0)], "dpo": [("no.", 0.5)]})
    bad, good = (patch.get_facecolor() for patch in figure.axes[0].patches)
    assert bad != good and 'DPO replies to "how?" with "no.", gold reward 0.5.' in description(figure)


def test_a_sweep_shows_means_on_a_logarithmic_axis():
    ax = figures.sweep([0.1, 1.0], {"dpo": [[1, 3], [4, 4]]}, xlabel="beta", ylabel="reward")
    (line,) = ax.lines
    assert list(line.get_ydata()) == [2, 4] and colour(line) == COLORS["dpo"] and ax.get_xscale() == "log"
    assert "DPO, mean at 0.1: 2, 1: 4. Horizontal axis: beta, logarithmic." in description(ax.figure)


def test_shifts_go_from_hollow_to_filled_means():
    ax = figures.shifts(
        {"dpo": [1, 2]}, {"dpo": [3, 4], "ipo": [5]}, names=("then", "now"), xlabel="x", levels={"sft": 1}
    )
    marks = [line for line in ax.lines if line.get_marker() == "o" and len(line.get_xdata())]
    means = [(line.get_xdata()[0], colour(line)) for line in marks]
    assert means == [(1.5, "#FFFFFF"), (3.5, COLORS["dpo"]), (5, COLORS["ipo"])]
    assert ticks(ax) == ["DPO", "IPO"] and legend(ax) == ["SFT", "then", "now"]
    assert "DPO: from 1.5 (then) to 3.5 (now). IPO: to 5 (now). SFT: a line at 1." in description(ax.figure)


def test_intervals_are_dark_only_where_they_leave_zero_out():
    ax = figures.intervals({"a": (1, 0.5, 1.5), "b": (0.1, -1, 1)}, xlabel="x")
    assert list(ax.lines[0].get_xdata()) == [0.5, 1.5]
    assert [colour(line) for line in ax.lines[0:4:2]] == [COLORS["ink"], COLORS["quiet"]]
    assert "a: 1, between 0.5 and 1.5. b: 0.1, between -1 and 1." in description(ax.figure)


def test_policy_bars_show_each_replys_probability():
    ax = figures.policy_bars(["yes", "no"], {"reference": [0.25, 0.75], "DPO": [0.5, 0.5]})
    assert widths(ax) == [0.25, 0.75, 0.5, 0.5] and ticks(ax) == ["yes", "no"]
    assert colour(ax.patches[0]) == COLORS["reference"] and colour(ax.patches[2]) == COLORS["dpo"]
    assert "reference: yes 0.25, no 0.75. DPO: yes 0.5, no 0.5." in description(ax.figure)


def test_the_policy_sweep_stacks_probabilities_to_one():
    ax = figures.policy_sweep(["yes", "no"], [1.0, 0.0], [0.1, 1.0], [[0.9, 0.1], [0.6, 0.4]])
    upper = ax.collections[-1].get_paths()[0].vertices
    assert upper[:, 1].max() == pytest.approx(1.0) and ax.get_xscale() == "log"
    assert "Shares at beta 0.1: no 0.1, yes 0.9." in description(ax.figure)


def test_the_optimum_lies_where_the_exact_sums_put_it():
    import torch

    ref, rewards, beta = torch.tensor([0.5, 0.25, 0.25]).log(), torch.tensor([0.0, 1.0, 2.0]), 0.5
    figure = figures.plot_optimum(["a", "b", "c"], ref, rewards, beta)
    left, right = figure.axes
    weights = ref.exp() * (rewards / beta).exp()
    best = (weights / weights.sum()).numpy()
    assert widths(left)[3:] == pytest.approx(best, abs=1e-6)
    kl = (best * (np.log(best) - ref.numpy())).sum()
    (x,), (y,) = right.lines[-1].get_data()
    assert (x, y) == pytest.approx((kl, best @ rewards.numpy()), abs=1e-5)
    assert f"reward {y:.3g} at {x:.3g} nats" in description(figure)


def test_margin_histograms_count_all_and_say_the_share_above_zero():
    ax = figures.margin_histogram({"DPO": [-1.0, 1.0, 2.0, 3.0]}, xlabel="margin (nats)")
    assert legend(ax) == ["DPO: 75% above 0"] and colour(ax.patches[0])[:7] == COLORS["dpo"]
    assert "Histogram of DPO: median 1.5, 75% of 4 above 0." in description(ax.figure)


def test_the_log_ratio_scatter_parts_pairs_by_their_order():
    columns = ("policy_chosen", "ref_chosen", "policy_rejected", "ref_rejected")
    ax = figures.log_ratio_scatter(pd.DataFrame([(2, 1, 1, 1), (1, 1, 3, 1), (4, 1, 1, 1)], columns=columns))
    right, wrong = ax.collections
    assert right.get_offsets().tolist() == [[1, 0], [3, 0]] and wrong.get_offsets().tolist() == [[0, 2]]
    assert to_hex(right.get_facecolor()[0]).upper() == COLORS["chosen"]
    assert "67% in the right order" in description(ax.figure)


def test_the_loss_family_divides_each_loss_by_its_slope_at_zero():
    h = np.linspace(-20, 20, 401)
    figure = figures.loss_family(h, {"ipo": ((h - 5) ** 2, 2 * (h - 5))}, {"ipo": 5.0})
    value, pull = (lines(ax)["IPO"] for ax in figure.axes[:2])
    assert np.gradient(value.get_ydata(), h)[200] == pytest.approx(-1, abs=1e-6)
    assert np.interp(5.0, h, pull.get_ydata()) == pytest.approx(0, abs=1e-9) and colour(pull) == COLORS["ipo"]
    assert "IPO stops at h = 5." in description(figure)


def test_the_dpo_loss_is_ln_2_and_its_weight_a_half_at_zero():
    figure = figures.plot_dpo_loss(beta=0.5, h=0.0)
    loss, weight = (ax.lines[1].get_ydata()[0] for ax in figure.axes)
    assert loss == pytest.approx(np.log(2)) and weight == pytest.approx(0.5)
    assert colour(figure.axes[0].lines[0]) == COLORS["dpo"]
    assert "0.693 at the marked h = 0" in description(figure) and "0.5 at the marked h = 0" in description(figure)


def test_next_token_bars_mark_the_true_token():
    table = pd.DataFrame([[0.7, 0.2, 0.1]] * 2, columns=["a", "b", "c"])
    ax = figures.plot_next_token(["a", "b"], table, 1).axes[0]
    shown = dict(zip(ticks(ax), ax.patches, strict=True))
    assert {token: bar.get_width() for token, bar in shown.items()} == {"a": 0.7, "b": 0.2, "c": 0.1}
    assert [token for token, bar in shown.items() if colour(bar) == COLORS["chosen"]] == ["b"]
    assert "ln p(b) = -1.61" in description(ax.figure) and "a 0.7, b 0.2, c 0.1" in description(ax.figure)


def test_the_true_next_token_is_shown_however_unlikely_it_is():
    table = pd.DataFrame([[0.1] * 9 + [0.05]] * 2, columns=[*"abcdefghi", "true"])
    ax = figures.plot_next_token(["a", "true"], table, 1).axes[0]
    assert len(ax.patches) == 9 and ticks(ax)[0] == "true" and colour(ax.patches[0]) == COLORS["chosen"]
    assert ax.get_xlim()[1] < 0.2


def test_token_masks_colour_each_token_by_its_role():
    figure = figures.token_masks([["Hi", "there", "END"]], [["prompt", "completion", "end"]])
    roles = [colour(box) for box in figure.axes[0].patches]
    assert roles == [figures.style.ROLE_COLORS[role].upper() for role in ("prompt", "completion", "end")]
    assert description(figure) == "Row 1, prompt: Hi; completion: there; end: END."


def test_the_course_map_fills_the_lessons_that_are_ready():
    figure = figures.course_map([("00", "start", "One"), ("01", "next", "Two")], ready=["00"])
    filled, empty = (colour(box) for box in figure.axes[0].patches)
    assert filled != "#FFFFFF" and empty == "#FFFFFF"
    assert description(figure) == "One: 00 start. Two: 01 next (planned)."


def test_memory_bars_lay_the_kinds_end_to_end_in_their_colours():
    parts = pd.DataFrame({"weights": [16.0], "logits": [4.0], "update": [0.0]}, index=["backward"])
    ax = figures.memory_bars(parts, xlabel="memory (GB)")
    assert [(bar.get_x(), bar.get_width()) for bar in ax.patches] == [(0, 16.0), (16.0, 4.0)]
    assert [colour(bar) for bar in ax.patches] == [figures.KIND_COLORS[kind] for kind in ("weights", "logits")]
    assert "backward: 20, of which weights 16, logits 4." in description(ax.figure)


def test_the_memory_timeline_marks_its_peak():
    ax = figures.memory_timeline(["forward", "forward", "backward"], [1.0, 5.0, 2.0], ylabel="memory (GB)")
    assert [list(values) for values in ax.lines[1].get_data()] == [[1], [5.0]] and legend(ax) == ["forward", "backward"]
    assert "forward 5, backward 2. The peak, 5, is in forward." in description(ax.figure)


def test_time_bars_have_the_phases_colours():
    ax = figures.time_bars(pd.DataFrame({"backward": [2.0], "optimizer": [1.0]}, index=["dpo"]), xlabel="time (s)")
    assert [colour(bar) for bar in ax.patches] == [figures.PHASE_COLORS[name] for name in ("backward", "optimizer")]
    assert "dpo: 3, of which backward 2, optimizer 1." in description(ax.figure)


def test_every_timed_phase_has_a_colour_of_its_own():
    from course_lib.sizing import phases

    assert len({figures.PHASE_COLORS[phase] for phase in phases.TIMED}) == len(phases.TIMED)


def test_the_roofline_bends_where_peak_and_bandwidth_meet():
    columns = ("TFLOP", "FLOP/byte", "seconds")
    table = pd.DataFrame([(10.0, 50.0, 2.0), (0.0, 0.0, 1.0)], columns=columns, index=["backward", "optimizer"])
    ax = figures.roofline_plot(table, peak=1e14, bandwidth=1e12)
    x, roof = lines(ax)["datasheet"].get_data()
    assert roof == pytest.approx(np.minimum(100, x)) and lines(ax)["ridge, 100 FLOPs per byte"].get_xdata()[0] == 100
    assert [dot.get_offsets().tolist() for dot in ax.collections] == [[[50.0, 5.0]]]
    assert "backward: 50 FLOPs per byte, 5 TFLOP/s, left of the ridge." in description(ax.figure)


def test_phases_in_one_place_under_the_roof_share_a_dot():
    columns = ("TFLOP", "FLOP/byte", "seconds")
    rows = [(10.0, 1000.0, 0.1), (30.0, 1200.0, 0.3), (10.0, 8.0, 2.0)]
    table = pd.DataFrame(rows, columns=columns, index=["policy forward", "backward", "rollout decoding"])
    ax = figures.roofline_plot(table, peak=1e14, bandwidth=1e12)
    assert [dot.get_offsets().tolist() for dot in ax.collections] == [[[8.0, 5.0]], [[1100.0, 100.0]]]
    assert "policy forward: 1,000 FLOPs per byte, 100 TFLOP/s, right of the ridge." in description(ax.figure)
    assert legend(ax)[-1] == "backward 0.3 s,\npolicy forward 0.1 s"


def test_a_part_too_thin_to_see_has_no_legend():
    ax = figures.memory_bars(pd.DataFrame({"weights": [16.0], "logits": [0.01]}, index=["step"]), xlabel="GB")
    assert legend(ax) == ["weights"] and "logits 0.01" in description(ax.figure)


def test_the_picture_of_models_tells_the_trained_from_the_frozen():
    figure = figures.held_and_trained()
    filled = [colour(box) == figures.style.HELD_TINTS["trained"] for box in figure.axes[0].patches]
    assert filled == [True, True, False, False, True, False]
    assert "PPO trains policy and critic, and holds frozen reward model and reference." in description(figure)
    assert "DPO trains policy, and holds frozen reference." in description(figure)


def test_both_pipelines_begin_with_sft_and_only_rlhf_has_a_reward_model():
    figure = figures.pipelines()
    names = [text.get_text().replace("\n", " ") for text in figure.axes[0].texts]
    assert names.count("SFT") == names.count("reward model") == names.count("PPO") == 1
    assert names.count("preference pairs") == names.count("the same pairs") == 1 and names.count("aligned policy") == 2
    text = description(figure)
    assert "RLHF: a reward model learns from preference pairs; PPO samples replies" in text
    assert "DPO trains the policy on the same pairs, without a reward model and without sampling." in text


@pytest.mark.parametrize("gpus", [2, 4])
def test_the_filled_part_of_each_gpu_is_what_the_calculator_says_it_holds(gpus):
    from course_lib.memory import estimate_memory

    figure = figures.who_holds_what(gpus)
    filled = [box.get_width() * box.get_height() for box in figure.axes[0].patches if box.get_linewidth() == 0]
    boxes = np.reshape(filled, (4, gpus, 3)).sum(axis=2) * 16  # stage, GPU; a whole box is 16 bytes of a parameter
    options = {"optimizer": "adamw-master", "gpus": gpus}
    for stage, of_stage in enumerate(boxes):
        held = estimate_memory(1e9, "sft", zero_stage=stage, **options).states / 1e9
        np.testing.assert_allclose(of_stage, held)
        assert f"{held:g} bytes on each GPU" in description(figure)


def test_plotted_memory_is_the_estimates():
    from course_lib.memory import estimate_memory

    figure, found = (
        figures.plot_memory("llama-3-8b", "dpo", lora_rank=16),
        estimate_memory("llama-3-8b", "dpo", lora_rank=16),
    )
    assert sum(widths(figure.axes[0])) == pytest.approx(sum(found.phases.values()) / 1e9)
    assert f"peak {found.peak / 1e9:.1f} GB" in description(figure)


def test_plotted_speed_is_the_estimates():
    from course_lib.speed import estimate_throughput

    figure, found = figures.plot_speed("llama-3-8b", "dpo"), estimate_throughput("llama-3-8b", "dpo")
    assert sum(widths(figure.axes[1])) == pytest.approx(found.step_seconds)
    assert f"{found.tokens_per_second:,.0f} tokens per second" in description(figure)


def test_an_undescribed_figure_says_its_title_axes_and_lines():
    figure, ax = plt.subplots()
    ax.plot([1, 2], [1, 2000], label="mine")
    ax.set(title="A title", xlabel="steps", ylabel="loss (nats)")
    assert description(figure) == "A title. mine from 1 to 2,000. Horizontal axis: steps. Vertical axis: loss (nats)."


def test_what_is_described_of_a_figure_goes_before_its_panels():
    figure, _ = plt.subplots(1, 2)
    assert description(figure) == "Panel 1 of 2: empty. Panel 2 of 2: empty."
    figures.describe(figure, "Two empty panels.")
    assert description(figure) == "Two empty panels."


def test_labels_are_printed_as_the_field_writes_them():
    assert [figures.label(name) for name in ("dpo", "simpo", "mine")] == ["DPO", "SimPO", "mine"]


def test_every_public_figure_is_tested_here():
    source = Path(__file__).read_text(encoding="utf-8")
    named = {name for name in figures.__all__ if callable(getattr(figures, name))}
    assert {name for name in named if source.count(f"figures.{name}(") == 0} == {"description"}


def test_jupyter_gets_the_text_beside_the_image(monkeypatch):
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.core.pylabtools import select_figure_formats

    shell = InteractiveShell()
    select_figure_formats(shell, "png")
    monkeypatch.setattr("IPython.get_ipython", lambda: shell)
    figures.use_style()
    figures.use_style()
    ax = figures.bars({"dpo": [2.0]}, ylabel="reward")
    data, metadata = shell.display_formatter.format(ax.figure)
    assert "image/png" in data and metadata["image/png"] == {"alt": "Bars: DPO 2. Vertical axis: reward."}


def test_committed_notebooks_keep_the_text_and_no_image_goes_without(monkeypatch, tmp_path):
    import nbformat

    monkeypatch.syspath_prepend(PACKAGE.parent / "tools")
    import notebooks

    v4 = nbformat.v4
    described = {"image/png": {"alt": "Bars: DPO 2.", "width": 3}, "needs_background": "light"}
    outputs = [v4.new_output("display_data", data={"image/png": "QQ=="}, metadata=m) for m in (described, {})]
    book = notebooks.normalised(v4.new_notebook(cells=[v4.new_code_cell("1", outputs=outputs)]))
    assert [output.metadata for output in book.cells[0].outputs] == [{"image/png": {"alt": "Bars: DPO 2."}}, {}]
    path = tmp_path / "lesson.ipynb"
    path.write_text(notebooks.text_of(book), encoding="utf-8")
    assert any("alternative text on 1 of 2 images" in fault for fault in notebooks.faults(path))


def test_the_weight_of_a_pair_falls_as_its_margin_grows():
    figure = figures.plot_dpo_loss(beta=0.1, h=0.0)
    line = figure.axes[1].lines[0]
    x, weight = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    np.testing.assert_allclose(weight, 1 / (1 + np.exp(0.1 * x)), rtol=1e-6)


def test_refusals_are_dots_a_seed_beside_the_corner_that_is_wanted():
    ax = figures.refusals({"DPO": ([0.1, 0.2], [0.7, 0.9]), "SFT": ([0.0, 0.0], [0.1, 0.1])})
    dots = [collection.get_offsets().tolist() for collection in ax.collections]
    assert dots == [[[0.1, 0.7], [0.2, 0.9]], [[0.0, 0.1], [0.0, 0.1]]]
    assert ax.patches[0].get_bbox().x1 == pytest.approx(0.2) and ax.patches[0].get_bbox().y0 == pytest.approx(0.8)
    assert "DPO refuses, harmless and unsafe requests, seed by seed: 0.10 and 0.70, 0.20 and 0.90." in description(
        ax.figure
    )


def test_brevity_is_a_dot_a_seed_and_a_larger_one_for_the_mean():
    ax = figures.brief_and_right({"DPO": ([7.0, 6.0], [0.6, 0.8])}, {"DPO": "dpo"})
    seeds, mean = (collection.get_offsets().tolist() for collection in ax.collections)
    assert seeds == [[7.0, 0.6], [6.0, 0.8]] and mean == [pytest.approx([6.5, 0.7])]
    assert "DPO: 6.5 words, 0.70 right." in description(ax.figure)
