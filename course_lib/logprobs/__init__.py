"""Log-probabilities of completions: the only bridge between a model and a loss, and where speed and memory are won."""

from course_lib.logprobs.completions import CompletionStates, completion_logps, completion_states, sequence_logps
from course_lib.logprobs.forward import all_logits, device_of, evaluating, head_of, position_ids, takes, unwrapped
from course_lib.logprobs.head import linear_logps, token_logps
from course_lib.logprobs.packed import Packed, PackedRows, pack, pack_texts, packed_inputs, packed_states, spread
from course_lib.logprobs.padding import alike
from course_lib.logprobs.shared import (
    LEAK,
    fits_window,
    pair_logps,
    visible_segments,
    why_no_own_mask,
    why_not_shared,
    why_pairs_not_shared,
)

__all__ = [
    "LEAK",
    "CompletionStates",
    "Packed",
    "PackedRows",
    "all_logits",
    "alike",
    "completion_logps",
    "completion_states",
    "device_of",
    "evaluating",
    "fits_window",
    "head_of",
    "linear_logps",
    "pack",
    "pack_texts",
    "packed_inputs",
    "packed_states",
    "pair_logps",
    "position_ids",
    "sequence_logps",
    "spread",
    "takes",
    "token_logps",
    "unwrapped",
    "visible_segments",
    "why_no_own_mask",
    "why_not_shared",
    "why_pairs_not_shared",
]
