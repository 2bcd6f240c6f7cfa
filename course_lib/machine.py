"""The machine the course runs on: what it has, how many threads pay off, whether everything is installed."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time

import pandas as pd
import torch

PACKAGES = (
    "torch", "transformers", "peft", "accelerate", "datasets", "bitsandbytes",
    "matplotlib", "ipywidgets", "jupyterlab",
)  # fmt: skip
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
    """What is here and whether it suffices: one row an item, with columns `found` and `ok`."""
    from course_lib.world import CHECKPOINTS

    rows = [("Python", platform.python_version(), True)]
    rows += [_package(name) for name in PACKAGES]
    rows.append(("cores", str(os.cpu_count()), True))
    rows.append(_memory())
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none (the lessons do not need one)"
    rows.append(("GPU", gpu, True))
    for name, folder in CHECKPOINTS.items():
        present = (folder / "model.safetensors").is_file()
        rows.append((name, "shipped" if present else "missing: install the package again", present))
    return pd.DataFrame(rows, columns=["item", "found", "ok"]).set_index("item")


def _package(name: str) -> tuple[str, str, bool]:
    try:
        return name, importlib.metadata.version(name), True
    except importlib.metadata.PackageNotFoundError:
        return name, 'missing: pip install -c constraints.txt -e ".[dev]"', False


def _memory() -> tuple[str, str, bool]:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return "memory", "unknown", True
    gigabytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9
    return "memory", f"{gigabytes:.0f} GB", gigabytes >= 4
