"""Records in, batches out: loading, validation, tokenisation, collation. Second in the flow; imports `world` only."""

from course_lib.data.collation import (
    LengthBuckets,
    collate_completions,
    collate_pairs,
    collate_shared,
    even_parts,
    shared_length,
)
from course_lib.data.loading import load_records
from course_lib.data.records import RecordError, encode_records, find_problems, keep_valid, validate_records
from course_lib.data.tokenization import encode_completion, encode_text

__all__ = [
    "LengthBuckets",
    "RecordError",
    "collate_completions",
    "collate_pairs",
    "collate_shared",
    "encode_completion",
    "encode_records",
    "encode_text",
    "even_parts",
    "find_problems",
    "keep_valid",
    "load_records",
    "shared_length",
    "validate_records",
]
