"""The bridge between a model and a loss: right tokens, right side, right sums, on several architectures."""

import pytest
import torch
from transformers import (
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from course_lib import completion_logps, sequence_logps
from course_lib.data import collate_completions
from course_lib.data.tokenization import Encoded

SMALL = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
MODELS = {
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL)),
    "gemma": lambda: GemmaForCausalLM(GemmaConfig(**SMALL, head_dim=8)),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SMALL)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=64, pad_token_id=0)
    ),
}
ROWS = [Encoded([7, 8, 9], [10, 11, 1]), Encoded([3], [4, 1]), Encoded([5, 6, 7, 8], [9, 9, 9, 9, 1])]


@pytest.fixture(params=sorted(MODELS))
def model(request):
    torch.manual_seed(0)
    return MODELS[request.param]().eval()


def plain_logp(model, row: Encoded) -> torch.Tensor:
    """One sequence, no padding, no tricks: the oracle."""
    ids = torch.tensor([[*row.prompt_ids, *row.completion_ids]])
    table = model(input_ids=ids).logits.log_softmax(-1)[0]
    start = len(row.prompt_ids)
    return torch.stack([table[t - 1, ids[0, t]] for t in range(start, ids.shape[1])]).sum()


def test_sequence_logps_equal_one_row_at_a_time(model):
    batch = collate_completions(ROWS, pad_token_id=0)
    torch.testing.assert_close(
        sequence_logps(model, **batch), torch.stack([plain_logp(model, r) for r in ROWS]), atol=1e-4, rtol=1e-5
    )


def test_padding_side_does_not_matter(model):
    both_sides = collate_completions(ROWS, pad_token_id=0)
    width = both_sides["input_ids"].shape[1]
    shifted = {name: torch.zeros_like(t) for name, t in both_sides.items()}
    for i, row in enumerate(ROWS):  # all padding on the right
        n, start = len(row.prompt_ids) + len(row.completion_ids), len(row.prompt_ids)
        assert n <= width
        shifted["input_ids"][i, :n] = torch.tensor([*row.prompt_ids, *row.completion_ids])
        shifted["attention_mask"][i, :n] = 1
        shifted["completion_mask"][i, start:n] = True
    torch.testing.assert_close(
        sequence_logps(model, **both_sides), sequence_logps(model, **shifted), atol=1e-4, rtol=1e-5
    )


def test_pad_equal_to_eos_hides_no_end_of_sequence(model):
    with_other_pad = sequence_logps(model, **collate_completions(ROWS, pad_token_id=0))
    with_eos_as_pad = sequence_logps(model, **collate_completions(ROWS, pad_token_id=1))
    torch.testing.assert_close(with_other_pad, with_eos_as_pad, atol=1e-5, rtol=1e-5)


def test_chunks_change_neither_value_nor_gradient(model):
    batch = collate_completions(ROWS, pad_token_id=0)
    gradients = []
    for chunk_size in (None, 2):
        model.zero_grad()
        total = sequence_logps(model, **batch, chunk_size=chunk_size).sum()
        total.backward()
        gradients.append([total.detach()] + [p.grad.clone() for p in model.parameters() if p.grad is not None])
    for whole, chunked in zip(*gradients, strict=True):
        torch.testing.assert_close(whole, chunked, atol=1e-5, rtol=1e-4)


def test_prompt_tokens_have_no_logp_and_no_mask(model):
    batch = collate_completions(ROWS, pad_token_id=0)
    logps, mask = completion_logps(model, **batch)
    assert torch.equal(mask, batch["completion_mask"]) and logps.dtype == torch.float32
    assert (logps[~mask] == 0).all() and (logps[mask] < 0).all()


def test_average_divides_by_completion_tokens(model):
    batch = collate_completions(ROWS, pad_token_id=0)
    torch.testing.assert_close(
        sequence_logps(model, **batch, average=True), sequence_logps(model, **batch) / torch.tensor([3, 2, 5])
    )


def test_first_token_of_a_row_is_never_scored(model):
    ids = torch.tensor([[3, 4, 1]])
    _, mask = completion_logps(model, ids, torch.ones_like(ids), torch.ones_like(ids, dtype=torch.bool))
    assert mask.tolist() == [[False, True, True]]


def test_a_model_without_logits_to_keep_gives_the_same():
    class Plain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.inner = MODELS["qwen2"]().eval()

        def forward(self, input_ids, attention_mask, position_ids=None):
            return self.inner(input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids)

    plain, batch = Plain(), collate_completions(ROWS, pad_token_id=0)
    torch.testing.assert_close(sequence_logps(plain, **batch), sequence_logps(plain.inner, **batch))


def test_wrong_shapes_and_empty_rows_are_named(model):
    ids = torch.ones(2, 4, dtype=torch.long)
    with pytest.raises(ValueError, match="one shape"):
        completion_logps(model, ids, ids, ids[:, :3])
    with pytest.raises(ValueError, match=r"rows \[1\]"):
        completion_logps(model, ids, ids, torch.tensor([[0, 0, 1, 1], [0, 0, 0, 0]]))
    with pytest.raises(ValueError, match="chunk_size"):
        completion_logps(model, ids, ids, ids, chunk_size=0)
