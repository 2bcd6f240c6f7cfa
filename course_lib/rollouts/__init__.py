"""Text and tokens drawn from a model: `sample` gives texts, `roll_out` token ids with their log-probabilities.

`stepping` finds the fastest way to the next token that a model allows, `drawing` chooses the token, `generation` puts
both together for a batch whose finished rows leave; `vllm` lets another engine draw. Imports data, logprobs and models;
evaluation and trainers use it.
"""

from course_lib.rollouts.drawing import Decoding
from course_lib.rollouts.merging import merged_adapters
from course_lib.rollouts.rollout import Rollout, roll_out
from course_lib.rollouts.sampling import sample
from course_lib.rollouts.stepping import stop_ids
from course_lib.rollouts.vllm import VLLMRollouts

__all__ = ["Decoding", "Rollout", "VLLMRollouts", "merged_adapters", "roll_out", "sample", "stop_ids"]
