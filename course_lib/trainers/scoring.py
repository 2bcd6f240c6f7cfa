"""A reward function asked about a rollout, with every way in which it can fail told apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from course_lib.rollouts import Rollout
from course_lib.trainers.parts import TrainingError

RewardFunction = Callable[[Sequence, Sequence], Tensor]


def scores_of(rollout: Rollout, reward: RewardFunction) -> Tensor:
    """(B,) the reward of each completion, on the CPU.

    Raises:
        TrainingError: if the reward function raises, or gives another shape or a value that is not finite.
    """
    completions = [
        text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
        for prompt, text in zip(rollout.prompts, rollout.texts, strict=True)
    ]
    try:
        scores = torch.as_tensor(reward(rollout.prompts, completions), dtype=torch.float32, device="cpu").detach()
    except Exception as error:
        raise TrainingError(
            f"the reward function failed: {error!r}, on {len(rollout)} completions of which the first answers "
            f"{rollout.prompts[0]!r:.200}. The weights are kept"
        ) from error
    if scores.shape != (len(rollout),):
        raise TrainingError(
            f"the reward function gave shape {tuple(scores.shape)} for {len(rollout)} completions; it must give "
            "one number for each, shape (B,). The weights are kept"
        )
    if not scores.isfinite().all():
        row = int((~scores.isfinite()).nonzero()[0, 0])
        raise TrainingError(
            f"the reward function gave {scores[row].item()} for the prompt {rollout.prompts[row]!r:.200} and the "
            f"completion {rollout.texts[row]!r:.200}. The weights are kept"
        )
    return scores
