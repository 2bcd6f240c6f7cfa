"""The list of lessons: number, short title, part. Lessons whose notebook exists are ready."""

from __future__ import annotations

from pathlib import Path

LESSONS = [
    ("00", "Start here", "Foundations"),
    ("01", "Log-probs\nand SFT", "Foundations"),
    ("02", "Preferences and\nreward model", "Foundations"),
    ("03", "The objective\nboth share", "Foundations"),
    ("04", "DPO from\nscratch", "Direct methods"),
    ("05", "How DPO\nfails", "Direct methods"),
    ("06", "IPO, KTO,\nSimPO", "Direct methods"),
    ("07", "Policy gradients\nto PPO", "RLHF"),
    ("08", "Four models\nin one loop", "RLHF"),
    ("09", "Reward\nhacking", "RLHF"),
    ("10", "Learning\nonline", "RLHF"),
    ("11", "Several\nobjectives", "Beyond"),
    ("12", "Landscapes", "Beyond"),
    ("13", "Memory", "Scale"),
    ("14", "Speed and\nDeepSpeed", "Scale"),
    ("15", "Evaluation", "Choosing"),
    ("16", "Head to\nhead", "Choosing"),
    ("17", "Capstone", "Choosing"),
    ("18", "A real\nmodel", "Choosing"),
]
OPTIONAL = ("18",)  # lessons that need a model which has to be fetched once, and are skipped where it is not


def ready(folder: Path | str = ".") -> list[str]:
    """Numbers of the lessons whose notebooks lie in `folder`."""
    return sorted(path.name[:2] for path in Path(folder).glob("[0-9][0-9]_*.ipynb"))
