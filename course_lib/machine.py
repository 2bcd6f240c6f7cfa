"""The machine the course runs on: what it has, how many threads pay off, whether everything is installed."""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import shutil
import time
from pathlib import Path

import pandas as pd
import torch

PACKAGES = (
    "torch", "transformers", "peft", "accelerate", "datasets", "bitsandbytes",
    "matplotlib", "ipywidgets", "jupyterlab",
)  # fmt: skip
OPTIONAL = {
    "deepspeed": "for several GPUs with ZeRO", "gguf": "for course fetch smollm2", "vllm": "for faster rollouts",
    "tensorboard": "for trackers=[tensorboard]",
}  # fmt: skip
DISK = 5e9  # bytes that a run's checkpoints should find free
ROUNDS, CLEARLY = 8, 0.8  # of the measurement of threads, and how much of one thread's time more may take


def pick_threads() -> int:
    """Set torch to the number of threads that is fastest now, and return it.

    On a busy two-core machine two threads can be many times slower than one, because each waits for the
    other; so the choice is measured, in a few tenths of a second, and more threads than one must win clearly: they
    gain less on a quiet machine than they lose on a busy one. The environment variable `COURSE_THREADS` overrides it.
    """
    if fixed := os.environ.get("COURSE_THREADS"):
        torch.set_num_threads(int(fixed))
        return int(fixed)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    candidates = sorted({1, max(1, cores // 2), cores})
    seconds = {threads: 0.0 for threads in candidates}
    for _ in range(ROUNDS):
        for threads in candidates:  # in turn, so that a short quiet moment favours none
            seconds[threads] += _seconds_with(threads)
    best = min(candidates, key=seconds.get)
    best = best if seconds[best] < CLEARLY * seconds[1] else 1
    torch.set_num_threads(best)
    return best


def _seconds_with(threads: int) -> float:
    """Time of a few matrix products of the course model's size; the slow ones count, for they are the harm."""
    torch.set_num_threads(threads)
    x, w = torch.randn(1024, 128), torch.randn(128, 352)
    (x @ w).relu().sum()
    start = time.perf_counter()
    for _ in range(20):
        (x @ w).relu().sum()
    return time.perf_counter() - start


def description() -> dict:
    """What figures are measured on, to be written beside them: cores, torch's threads, GPU (or None), versions."""
    return {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def doctor() -> pd.DataFrame:
    """What is here and whether it suffices: one row an item, with columns `found`, `ok` and `advice`."""
    rows = [("Python", platform.python_version(), True, "")]
    rows += [_package(name, needed=True) for name in PACKAGES] + [_package(name, needed=False) for name in OPTIONAL]
    rows += [_cores(), _memory(), _disk(), *_gpu(), _bitsandbytes(), _tool("bwrap"), *_models()]
    return pd.DataFrame(rows, columns=["item", "found", "ok", "advice"]).set_index("item")


Row = tuple[str, str, bool, str]


def _package(name: str, *, needed: bool) -> Row:
    try:
        return name, importlib.metadata.version(name), True, ""
    except importlib.metadata.PackageNotFoundError:
        if needed:
            return name, "missing", False, 'pip install -c constraints.txt -e ".[dev]"'
        return name, "not installed (optional)", True, f"{OPTIONAL[name]}: pip install {name}"


def _cores() -> Row:
    cores, threads = os.cpu_count() or 1, pick_threads()
    advice = "" if threads > 1 or cores == 1 else "one is fastest here now; COURSE_THREADS=N says otherwise"
    return "cores", f"{cores}, torch uses {threads} threads", True, advice


def _memory() -> Row:
    found = memory_bytes()
    shown = "unknown" if math.isinf(found) else f"{found / 1e9:.0f} GB"
    return "memory", shown, found >= 4e9, "" if found >= 4e9 else "the lessons need 4 GB: close other programs"


def _disk() -> Row:
    free = shutil.disk_usage(Path.cwd()).free
    advice = "" if free >= DISK else "make room, or run in a folder on another disk"
    return "free disk", f"{free / 1e9:.0f} GB here", free >= DISK, advice


def _gpu() -> list[Row]:
    if not torch.cuda.is_available():
        return [("GPU", "none", True, "the lessons do not need one; hub models do")]
    found = torch.cuda.get_device_properties(0)
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    several = torch.cuda.device_count()
    return [
        ("GPU", f"{several} x {found.name}, {found.total_memory / 2**30:.0f} GiB", True, ""),
        ("bf16", "yes" if bf16 else "no", True, "" if bf16 else "leave training.mixed_precision=no, or use fp32"),
    ]


def _bitsandbytes() -> Row:
    """Whether 4-bit weights can be multiplied here, tried out."""
    try:
        from bitsandbytes.nn import Linear4bit

        device = "cuda" if torch.cuda.is_available() else "cpu"
        layer = Linear4bit(64, 64, compute_dtype=torch.float32, quant_type="nf4").to(device)
        layer(torch.ones(1, 64, device=device))
        return "4-bit weights", f"work on the {'GPU' if device == 'cuda' else 'CPU'}", True, ""
    except Exception as error:  # a broken CUDA setup raises what it likes
        return "4-bit weights", f"do not work: {error!r:.60}", True, "QLoRA needs them: install bitsandbytes anew"


def _tool(name: str) -> Row:
    if shutil.which(name):
        return "bubblewrap", "installed", True, ""
    return "bubblewrap", "not installed (optional)", True, "for course grade, on Linux: apt install bubblewrap"


def _models() -> list[Row]:
    from course_lib.models import smollm2_folder
    from course_lib.world import CHECKPOINTS

    rows = []
    for name, folder in CHECKPOINTS.items():
        present = (folder / "model.safetensors").is_file()
        advice = "" if present else "install the package again"
        rows.append((name, "shipped" if present else "missing", present, advice))
    fetched = (smollm2_folder() / "config.json").is_file()
    rows.append(("smollm2", "fetched" if fetched else "not fetched (optional)", True,
                 "" if fetched else "for real-model runs: course fetch smollm2"))  # fmt: skip
    return rows


def memory_bytes() -> float:
    """The machine's memory; infinity where the system does not say."""
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return math.inf
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
