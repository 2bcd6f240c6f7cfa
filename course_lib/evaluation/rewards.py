"""How good a reward function is on held-out pairs: which it ranks rightly, and how far to trust its confidence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from course_lib.world import task_of


def reward_report(
    score: Callable[[Sequence, Sequence], Tensor],
    pairs: Sequence[dict],
    *,
    kind: Callable[[object], str] = lambda prompt: task_of(prompt).kind,
) -> pd.DataFrame:
    """One row for each pair: both rewards, what Bradley-Terry makes of them, and whether the order is right.

        probability = sigmoid(r(chosen) - r(rejected))

    Args:
        score: a reward function.
        pairs: `{"prompt", "chosen", "rejected"}`.
        kind: a name for what a prompt asks; by default Pocket World's. `report.groupby("kind").right.mean()` is the
            accuracy kind by kind.

    Returns:
        Columns `kind`, `chosen`, `rejected` (rewards), `probability`, and `right` (a tie is not).

    Raises:
        ValueError: if there are no pairs.
    """
    if not pairs:
        raise ValueError("there are no pairs to score; give at least one")
    prompts = [pair["prompt"] for pair in pairs]
    chosen, rejected = (score(prompts, [pair[side] for pair in pairs]).float() for side in ("chosen", "rejected"))
    return pd.DataFrame(
        {
            "kind": [kind(prompt) for prompt in prompts],
            "chosen": chosen.numpy(),
            "rejected": rejected.numpy(),
            "probability": torch.sigmoid(chosen - rejected).numpy(),
            "right": (chosen > rejected).numpy(),
        }
    )


def calibration(report: pd.DataFrame, *, bins: int = 5) -> pd.DataFrame:
    """How often the reply that a reward function prefers is the chosen one, by how sure it says it is.

    Sureness is the larger of a pair's two probabilities, from one half to 1, in `bins` equal intervals; a pair that is
    ranked rightly counts as 1. A calibrated function is right in 80% of the pairs of which it is 80% sure.

    Returns:
        Columns `sure` (mean of the bin), `right` (share), `n`; bins without pairs are left out.

    Raises:
        ValueError: for fewer than one bin.
    """
    if bins < 1:
        raise ValueError(f"bins is at least 1; got {bins}")
    sure = report.probability.where(report.probability >= 0.5, 1 - report.probability)
    edges = np.linspace(0.5, 1.0, bins + 1)[1:-1]
    table = pd.DataFrame({"sure": sure, "right": report.right.astype(float)}).groupby(np.digitize(sure, edges))
    return table.agg(sure=("sure", "mean"), right=("right", "mean"), n=("right", "size")).reset_index(drop=True)


def calibration_error(report: pd.DataFrame, *, bins: int = 5) -> float:
    """The mean distance between sureness and share ranked rightly, each bin by its number of pairs.

    Source: Guo et al. 2017, On calibration of modern neural networks, section 2 (expected calibration error).
    """
    table = calibration(report, bins=bins)
    return float(((table.sure - table.right).abs() * table.n).sum() / table.n.sum())
