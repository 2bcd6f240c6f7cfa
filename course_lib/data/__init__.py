"""Records in, batches out: loading, validation, tokenisation, collation. Second in the flow; imports `world` only."""

from course_lib.data.collation import (
    LengthBuckets,
    collate_completions,
    collate_pairs,
    collate_shared,
    collate_shared_ends,
    even_parts,
    shared_length,
)
from course_lib.data.files import looks_local
from course_lib.data.lengths import fit_rows
from course_lib.data.loading import load_records
from course_lib.data.pairs import same_length, shared_words
from course_lib.data.problems import RecordError
from course_lib.data.records import encode_records, find_problems, keep_valid, validate_records
from course_lib.data.tokenization import (
    Encoded,
    encode_completion,
    encode_prompt,
    encode_row,
    encode_text,
    turn_end_ids,
)
from course_lib.data.turns import PLAIN_CHAT_TEMPLATE, turn_end

__all__ = [
    "PLAIN_CHAT_TEMPLATE",
    "Encoded",
    "LengthBuckets",
    "RecordError",
    "collate_completions",
    "collate_pairs",
    "collate_shared",
    "collate_shared_ends",
    "encode_completion",
    "encode_prompt",
    "encode_records",
    "encode_row",
    "encode_text",
    "even_parts",
    "find_problems",
    "fit_rows",
    "keep_valid",
    "load_records",
    "looks_local",
    "same_length",
    "shared_length",
    "shared_words",
    "turn_end",
    "turn_end_ids",
    "validate_records",
]
