"""Interactive forms of the course's figures, for JupyterLab; each lesson shows a static figure beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import display
from torch import Tensor

from course_lib import exact
from course_lib.evaluation import gold_report
from course_lib.figures import COLORS, memory_bars, policy_bars, roofline_plot, time_bars
from course_lib.memory import estimate_memory
from course_lib.rollouts import sample
from course_lib.sizing import ARCHITECTURES, GPUS
from course_lib.sizing.settings import CHOICES
from course_lib.speed import estimate_throughput


def reply_explorer(models: Mapping[str, tuple], prompts: Sequence) -> ipywidgets.Widget:
    """Choose a model, a prompt, a temperature and a seed; see the reply and its gold reward part by part."""

    def show(model: str, prompt: int, temperature: float, seed: int):
        policy, tokenizer = models[model]
        reply = sample(policy, tokenizer, [prompts[prompt]], temperature=temperature, seed=seed)
        print("prompt:", prompts[prompt][-1]["content"])
        print("reply: ", reply[0])
        parts = gold_report([prompts[prompt]], reply).iloc[0]
        display(parts[parts != 0].to_frame("gold reward").T.round(2))

    return ipywidgets.interactive(
        show,
        model=ipywidgets.ToggleButtons(options=list(models)),
        prompt=ipywidgets.Dropdown(options=[(p[-1]["content"], i) for i, p in enumerate(prompts)]),
        temperature=ipywidgets.FloatSlider(value=0, min=0, max=1.5, step=0.1, continuous_update=False),
        seed=ipywidgets.IntSlider(value=0, min=0, max=20, continuous_update=False),
    )


def plot_dpo_loss(beta: float = 0.1, h: float = 0.0) -> plt.Figure:
    """DPO's loss and a pair's weight, sigmoid(-beta h), against the difference of log-ratios `h`, one pair marked."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
    x = np.linspace(-60, 60, 400)
    margin = beta * x
    left.plot(x, np.logaddexp(0, -margin), color=COLORS["dpo"])
    left.plot(h, np.logaddexp(0, -beta * h), "o", color=COLORS["ink"])
    left.axhline(np.log(2), color=COLORS["quiet"], linestyle=":", label="ln 2, where training starts")
    left.set(xlabel="difference of log-ratios h (nats)", ylabel="loss (nats)", ylim=(0, 6.5))
    left.legend()
    right.plot(x, 1 / (1 + np.exp(margin)), color=COLORS["dpo"])
    right.plot(h, 1 / (1 + np.exp(beta * h)), "o", color=COLORS["ink"])
    right.set(xlabel="difference of log-ratios h (nats)", ylabel="weight of the pair", ylim=(0, 1.05))
    figure.suptitle(f"beta = {beta:.2f}", x=0.07, ha="left")
    figure.tight_layout()
    return figure


def dpo_loss_explorer() -> ipywidgets.Widget:
    """Sliders for beta and one pair's difference of log-ratios over `plot_dpo_loss`."""

    def show(beta: float, h: float):
        plot_dpo_loss(beta, h)
        plt.show()

    return ipywidgets.interactive(
        show,
        beta=ipywidgets.FloatSlider(value=0.1, min=0.02, max=1.0, step=0.02, continuous_update=False),
        h=ipywidgets.FloatSlider(value=0.0, min=-60, max=60, step=2, continuous_update=False),
    )


def plot_next_token(tokens: Sequence[str], probabilities: pd.DataFrame, position: int) -> plt.Figure:
    """The model's most likely next tokens after `tokens[:position]`, the true next one in colour."""
    row = probabilities.iloc[position - 1].nlargest(8)[::-1]
    figure, axes = plt.subplots(figsize=(6, 2.8))
    colors = [COLORS["chosen"] if t == tokens[position] else COLORS["quiet"] for t in row.index]
    axes.barh(row.index, row.to_numpy(), color=colors)
    axes.set(xlim=(0, 1), xlabel="probability")
    truth = probabilities.iloc[position - 1][tokens[position]]
    axes.set_title(
        f"after “… {' '.join(tokens[max(0, position - 5) : position])}”: ln p({tokens[position]}) = {np.log(truth):.2f}"
    )
    return figure


def next_token_explorer(tokens: Sequence[str], probabilities: pd.DataFrame) -> ipywidgets.Widget:
    """A slider through the positions of one sequence over `plot_next_token`."""

    def show(position: int):
        plot_next_token(tokens, probabilities, position)
        plt.show()

    slider = ipywidgets.IntSlider(value=1, min=1, max=len(tokens) - 1, continuous_update=False)
    return ipywidgets.interactive(show, position=slider)


def plot_optimum(replies: Sequence[str], ref_logps: Tensor, rewards: Tensor, beta: float) -> plt.Figure:
    """RLHF's optimum at `beta` beside the reference, and where it lies among all policies' reward and KL."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.4), width_ratios=(1, 1.1))

    def reward_and_kl(logps: Tensor) -> tuple[Tensor, Tensor]:
        return exact.kl_divergence(logps, ref_logps.expand_as(logps)), (logps.exp() * rewards).sum(-1)

    best = exact.optimal_policy(ref_logps, rewards, beta=beta)
    policy_bars(replies, {"reference": ref_logps.exp(), "RLHF optimum": best.exp()}, ax=left)
    left.set(xlim=(0, 1), title=f"beta = {beta:.2g}")
    others = np.random.default_rng(0).dirichlet(np.full(len(replies), 0.6), 1500)
    right.scatter(*reward_and_kl(ref_logps.new_tensor(np.log(others + 1e-12))), s=3, color=COLORS["quiet"], alpha=0.4)
    right.plot([], [], ".", color=COLORS["quiet"], label="random policies")
    sweep = [reward_and_kl(exact.optimal_policy(ref_logps, rewards, beta=b)) for b in np.geomspace(0.01, 100, 200)]
    right.plot(*np.array(sweep).T, color=COLORS["rlhf"], label="optimum of each beta")
    kl, reward = (float(x) for x in reward_and_kl(best))
    right.axline(
        (kl, reward), slope=beta, color=COLORS["ink"], linewidth=0.9, linestyle="--", label="equal J: slope beta"
    )
    right.plot(kl, reward, "o", color=COLORS["ink"])
    right.set(xlabel="KL to the reference (nats)", ylabel="expected reward (reward units)")
    right.set_xlim(-0.1, 0.1 - ref_logps.min().item())
    right.set_ylim(rewards.min().item() - 0.75, rewards.max().item() + 0.15)
    right.legend(loc="lower right")
    figure.tight_layout()
    return figure


def optimum_explorer(replies: Sequence[str], ref_logps: Tensor, rewards: Tensor) -> ipywidgets.Widget:
    """A slider for beta over `plot_optimum`."""

    def show(beta: float):
        plot_optimum(replies, ref_logps, rewards, beta)
        plt.show()

    slider = ipywidgets.FloatLogSlider(value=0.5, min=-2, max=2, step=0.1, continuous_update=False)
    return ipywidgets.interactive(show, beta=slider)


def loss_family_explorer(draw: Callable[[float, float], plt.Figure]) -> ipywidgets.Widget:
    """Sliders for beta and for the share of labels taken for wrong over `draw(beta, label_smoothing)`."""

    def show(beta: float, label_smoothing: float):
        draw(beta, label_smoothing)
        plt.show()

    return ipywidgets.interactive(
        show,
        beta=ipywidgets.FloatSlider(value=0.1, min=0.05, max=0.5, step=0.05, continuous_update=False),
        label_smoothing=ipywidgets.FloatSlider(value=0.3, min=0.05, max=0.45, step=0.05, continuous_update=False),
    )


def plot_memory(model: str, algorithm: str, **settings) -> plt.Figure:
    """A training step's memory phase by phase, by what it holds; settings as in `estimate_memory`."""
    found = estimate_memory(model, algorithm, **settings)
    axes = memory_bars(found.table(), xlabel="memory of one GPU (GB)")
    axes.set_title(f"{model}, {algorithm}: peak {found.peak / 1e9:.1f} GB, {found.phase}")
    return axes.figure


def memory_explorer() -> ipywidgets.Widget:
    """Choose a model, a method and what saves memory; see where each phase's bytes go, and what fits."""

    def show(model: str, algorithm: str, batch_size: int, sequence_length: int, lora_rank: int, gpus: int, **settings):
        settings |= {"batch_size": batch_size, "sequence_length": sequence_length, "lora_rank": lora_rank or None}
        settings |= {"gpus": gpus, "zero_stage": 3 if gpus > 1 else 0}
        plot_memory(model, algorithm, **settings)
        plt.show()
        found = estimate_memory(model, algorithm, **settings)
        print("fits:", ", ".join(found.gpus_that_fit) or "no GPU in the table")
        print("\n".join(found.advice))

    def chosen(name: str, value) -> ipywidgets.Widget:
        return ipywidgets.Dropdown(options=CHOICES[name], value=value)

    return ipywidgets.interactive(
        show,
        model=ipywidgets.Dropdown(options=list(ARCHITECTURES), value="llama-3-8b"),
        algorithm=chosen("algorithm", "dpo"),
        batch_size=ipywidgets.IntSlider(value=1, min=1, max=32, continuous_update=False),
        sequence_length=ipywidgets.SelectionSlider(options=[2**i for i in range(7, 16)], value=1024),
        lora_rank=ipywidgets.SelectionSlider(options=[0, 4, 8, 16, 32, 64, 128], value=0),
        gpus=ipywidgets.SelectionSlider(options=[1, 2, 4, 8, 16, 32, 64], value=1),
        optimizer=chosen("optimizer", "adamw-fp32"),
        precision=chosen("precision", "bf16"),
        logits=chosen("logits", "full"),
        gradient_checkpointing=ipywidgets.Checkbox(value=False),
    )


def plot_speed(model: str, algorithm: str, **settings) -> plt.Figure:
    """A step's phases under the roofline, and the time that each takes; settings as in `estimate_throughput`."""
    found = estimate_throughput(model, algorithm, **settings)
    s = found.settings
    figure, (upper, lower) = plt.subplots(2, figsize=(7.2, 5.4), height_ratios=(4, 1))
    shares = (s.utilization, s.bandwidth_utilization)
    roofline_plot(found.table(), peak=found.peak_flops, bandwidth=s.machine.bandwidth, utilization=shares, ax=upper)
    upper.set_title(f"{model}, {algorithm}, {s.gpu}: {found.tokens_per_second:,.0f} tokens a second and GPU")
    time_bars(found.table()[["seconds"]].T, xlabel="time of a step (s)", ax=lower)
    lower.set_yticks([])
    lower.get_legend().remove()
    figure.tight_layout()
    return figure


def speed_explorer() -> ipywidgets.Widget:
    """Choose a model, a method, a GPU and how many; see what bounds each phase, and how long it takes."""

    def show(gpus: int, lora_rank: int, **settings):
        settings |= {"gpus": gpus, "zero_stage": 3 if gpus > 1 else 0, "lora_rank": lora_rank or None}
        plot_speed(**settings)
        plt.show()
        print(estimate_throughput(**settings))

    return ipywidgets.interactive(
        show,
        model=ipywidgets.Dropdown(options=list(ARCHITECTURES), value="llama-3-8b"),
        algorithm=ipywidgets.Dropdown(options=CHOICES["algorithm"], value="ppo"),
        gpu=ipywidgets.Dropdown(options=list(GPUS), value="H100-80GB"),
        gpus=ipywidgets.SelectionSlider(options=[2**i for i in range(13)], value=1),
        batch_size=ipywidgets.SelectionSlider(options=[2**i for i in range(10)], value=8),
        sequence_length=ipywidgets.SelectionSlider(options=[2**i for i in range(7, 16)], value=1024),
        lora_rank=ipywidgets.SelectionSlider(options=[0, 4, 8, 16, 32, 64, 128], value=0),
        gradient_checkpointing=ipywidgets.Checkbox(value=False),
        utilization=ipywidgets.FloatSlider(value=0.4, min=0.05, max=1, step=0.05, continuous_update=False),
        bandwidth_utilization=ipywidgets.FloatSlider(value=0.7, min=0.05, max=1, step=0.05, continuous_update=False),
    )
