"""The course's one style: every colour, sizes, and how a method's name is printed."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt

from course_lib.figures.alt_text import write_alt_text
from course_lib.sizing import phases

# Okabe and Ito's colour-blind safe palette, and dark shades of Paul Tol's; a method keeps its colour in every figure.
COLORS = {
    "base": "#999999",
    "sft": "#0072B2",
    "reward": "#F0E442",
    "ppo": "#D55E00",
    "dpo": "#009E73",
    "ipo": "#CC79A7",
    "kto": "#E69F00",
    "simpo": "#56B4E9",
    "cdpo": "#117733",
    "robust": "#882255",
    "length-dpo": "#999933",
    "dpo-mean": "#44AA99",
    "orpo": "#332288",
    "rlhf": "#D55E00",
    "reference": "#0072B2",
    "chosen": "#009E73",
    "rejected": "#D55E00",
    "ink": "#222222",
    "quiet": "#999999",
    "edge": "#666666",
    "faint edge": "#BBBBBB",
    "faint ink": "#8A8A8A",
}


# Kinds of tensors keep their colour too; parts of other names take these in order.
KIND_COLORS = {
    "weights": "#999999",
    "gradients": "#009E73",
    "optimizer": "#56B4E9",
    "update": "#882255",
    "activations": "#E69F00",
    "logits": "#0072B2",
    "gathered weights": "#CC79A7",
    "kv cache": "#D55E00",
    "weight copies": "#F0E442",
}


# Passes without gradients are blue, those that train green, those that sample orange.
PHASE_COLORS = {
    phases.ROLLOUT_PREFILL: "#F0E442",
    phases.ROLLOUT_DECODING: "#D55E00",
    phases.REWARD_SCORING: "#CC79A7",
    phases.REFERENCE_FORWARD: "#0072B2",
    phases.BASELINE_FORWARD: "#88CCEE",
    phases.CRITIC: "#882255",
    phases.POLICY_FORWARD: "#56B4E9",
    phases.RECOMPUTE: "#999933",
    phases.BACKWARD: "#009E73",
    phases.OPTIMIZER: "#E69F00",
    phases.COMMUNICATION: "#999999",
    "alone": "#0072B2",
    "waiting": "#DDDDDD",
}


ROLE_COLORS = {"prompt": "#DDE7F0", "completion": "#BFE5D8", "end": "#F5D9C4", "padding": "#F2F2F2"}
REWARD_PART_COLORS = ["#009E73", "#56B4E9", "#E69F00", "#0072B2", "#F0E442", "#CC79A7", "#D55E00", "#999999", "#444444"]
TIMELINE_COLORS = ["#56B4E9", "#0072B2", "#009E73", "#E69F00", "#CC79A7", "#999999"]
REPLY_TINTS = {"good": "#D9F2E6", "bad": "#FBE3D6"}  # of the colours of chosen and rejected
HELD_TINTS = {"trained": "#BFE5D8", "frozen": "#F2F2F2"}
PART_TINTS = ["#DDE7F0", "#BFE5D8", "#F5D9C4", "#F3E3EE", "#F6F0C4"]
STYLE = {
    "figure.figsize": (6.4, 3.4),
    "figure.dpi": 110,
    "savefig.dpi": 110,
    "savefig.bbox": "tight",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.25,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "axes.prop_cycle": mpl.cycler(color=[COLORS[m] for m in ("sft", "dpo", "ppo", "kto", "ipo", "simpo", "base")]),
    "svg.hashsalt": "course",
}


def use_style() -> None:
    """Draw all figures from here on in the course's style; in Jupyter, write down what each shows."""
    write_alt_text()
    plt.rcParams.update(STYLE)


def label(method: str) -> str:
    """A method's name as figures print it."""
    mixed = {
        "simpo": "SimPO",
        "cdpo": "cDPO",
        "robust": "robust DPO",
        "length-dpo": "length-DPO",
        "dpo-mean": "DPO on token means",
    }
    return (
        method.upper()
        if method in ("sft", "ppo", "dpo", "ipo", "kto", "orpo", "rloo", "grpo")
        else mixed.get(method, method)
    )
