"""Token ids that a model can take: what to pad with, and a clear word about ids beyond its embedding."""

from __future__ import annotations

from collections.abc import Iterable

from course_lib.logprobs import unwrapped


def pad_id(model, tokenizer) -> int:
    """An id to pad with. Padding is masked everywhere, so any id that the model has will do.

    The tokenizer's pad token where the model knows it, otherwise its EOS, otherwise 0.
    """
    known = _vocabulary_size(model)
    for token_id in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token_id is not None and 0 <= token_id < known:
            return token_id
    return 0


def refuse_unknown_ids(model, ids: Iterable[int]) -> None:
    """See that all ids have a row in the model's embedding.

    Raises:
        ValueError: naming the largest one that has none.
    """
    largest, known = max(ids, default=0), _vocabulary_size(model)
    if largest >= known:
        raise ValueError(
            f"the tokenizer gives the id {largest}, and the model's embedding ends at {known - 1}: the tokenizer has "
            "tokens that the model never had. Call model.resize_token_embeddings(len(tokenizer)), or load the "
            "tokenizer that belongs to the model"
        )


def _vocabulary_size(model) -> int:
    return unwrapped(model).get_input_embeddings().num_embeddings  # its weight has no rows where it is sharded
