"""Ids that a model can take, and references of each kind."""

import copy

import pytest
import torch
from families import model_of

from course_lib.models import Reference, pad_id, reference_of, refuse_unknown_ids


@pytest.fixture
def llama():
    return model_of("llama")


def test_rows_are_padded_with_pad_else_eos_else_the_first_id(llama, letters):
    tokenizer = copy.deepcopy(letters)
    tokenizer.pad_token = "a"
    assert pad_id(llama, tokenizer) == tokenizer.convert_tokens_to_ids("a")
    tokenizer.pad_token = None
    assert pad_id(llama, tokenizer) == tokenizer.eos_token_id != 0
    tokenizer.eos_token = None
    assert pad_id(llama, tokenizer) == 0


def test_a_pad_token_that_the_model_never_had_is_not_used(llama, letters):
    tokenizer = copy.deepcopy(letters)
    tokenizer.add_special_tokens({"pad_token": "<new>"})
    llama.resize_token_embeddings(tokenizer.pad_token_id)
    assert pad_id(llama, tokenizer) == tokenizer.eos_token_id


def test_an_id_beyond_the_embedding_is_refused_by_number(llama):
    size = llama.get_input_embeddings().num_embeddings
    refuse_unknown_ids(llama, [0, size - 1])
    refuse_unknown_ids(llama, [])
    with pytest.raises(ValueError, match=f"the id {size}, .* ends at {size - 1}.*resize_token_embeddings"):
        refuse_unknown_ids(llama, [0, size])


def test_a_copied_reference_stays_where_training_began(llama):
    reference = reference_of(llama, kind="copy")
    assert isinstance(reference, Reference)
    with torch.no_grad():
        llama.lm_head.weight += 1
    with reference.scoring(llama) as model:
        assert model is not llama and not torch.equal(model.lm_head.weight, llama.lm_head.weight)
        assert not torch.is_grad_enabled() and not any(p.requires_grad for p in model.parameters())
