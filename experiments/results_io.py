"""Reading and writing of experiment results: one JSON file an experiment, with the machine beside the figures."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

import torch

FOLDER = Path(__file__).parent / "results"


def add_seed(name: str, result: dict) -> None:
    """Put one seed's result into `results/NAME.json`, in place of an earlier one of the same seed."""
    path = FOLDER / f"{name}.json"
    seeds = json.loads(path.read_text())["seeds"] if path.exists() else []
    seeds = sorted([s for s in seeds if s["seed"] != result["seed"]] + [result], key=lambda s: s["seed"])
    path.write_text(json.dumps({"machine": machine(), "seeds": seeds}, indent=1) + "\n")


def seeds(name: str) -> list[dict]:
    """The seeds' results of an experiment."""
    return json.loads((FOLDER / f"{name}.json").read_text())["seeds"]


def verdict(outcomes: list[bool]) -> str:
    """What a claim comes to if it may or may not show in each seed."""
    return "holds" if all(outcomes) else "refuted" if not any(outcomes) else "depends on the seed"


def machine() -> dict:
    """What the figures were measured on."""
    return {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
