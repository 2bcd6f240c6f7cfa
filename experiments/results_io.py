"""Reading and writing of experiment results: one JSON file an experiment, with the machine beside the figures."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

import torch

FOLDER = Path(__file__).parent / "results"


def write(name: str, results: dict) -> Path:
    machine = {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    path = FOLDER / f"{name}.json"
    text = json.dumps({"machine": machine | {"python": platform.python_version()}, **results}, indent=1)
    path.write_text(text + "\n")
    return path
