"""The bridge between a model and a loss: right tokens, right side, right sums, on several architectures."""

import threading
from types import SimpleNamespace

import pytest
import torch
from conftest import tiny_llama
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoConfig,
    GraniteConfig,
    Llama4TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MixtralConfig,
    Qwen2Config,
    Qwen3Config,
)

from course_lib import completion_logps, sequence_logps
from course_lib.data import collate_completions, collate_pairs, collate_shared
from course_lib.data.tokenization import Encoded
from course_lib.logprobs import (
    CompletionStates,
    completion_states,
    fits_window,
    linear_logps,
    pair_logps,
    token_logps,
    visible_segments,
    why_no_own_mask,
    why_not_shared,
)

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
CONFIGS = {
    "llama": LlamaConfig(**SMALL),
    "qwen2": Qwen2Config(**SMALL),
    "qwen3": Qwen3Config(**SMALL, head_dim=8),
    "gemma": GemmaConfig(**SMALL, head_dim=8),
    "gemma2": Gemma2Config(**SMALL, head_dim=8, final_logit_softcapping=2.0),
    "gemma3": Gemma3TextConfig(**SMALL, head_dim=8),
    "mistral": MistralConfig(**SMALL),
    "mixtral": MixtralConfig(**SMALL),
    "granite": GraniteConfig(**SMALL, logits_scaling=3.0),
    "gpt2": GPT2Config(
        vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=64, pad_token_id=0, bos_token_id=1, eos_token_id=1
    ),
}


def new(name: str):
    """A small model whose weights are large enough for its context to matter."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[name]).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(5)
    return model


ROWS = [Encoded([7, 8, 9], [10, 11, 1]), Encoded([3], [4, 1]), Encoded([5, 6, 7, 8], [9, 9, 9, 9, 1])]


PAIRS = [
    (Encoded([7, 8, 9], [10, 11, 1]), Encoded([7, 8, 9], [12, 1])),
    (Encoded([3], [4, 1]), Encoded([3], [4, 4, 4, 4, 4, 1])),
    (Encoded([5, 6, 7, 8, 9, 2], [1]), Encoded([5, 6, 7, 8, 9, 2], [30, 1])),
    (Encoded([5, 6], [20, 21, 22, 1]), Encoded([5, 6], [20, 21, 23, 24, 1])),
    (Encoded([5], [20, 21, 1]), Encoded([5], [20, 21, 1, 22, 1])),
]


@pytest.fixture(params=sorted(CONFIGS))
def model(request):
    return new(request.param)


def gradients(model, loss) -> list[torch.Tensor]:
    return torch.autograd.grad(loss, list(model.parameters()), allow_unused=True, materialize_grads=True)


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
            self.inner = new("qwen2")

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


def test_gradients_equal_those_of_one_row_at_a_time(model):
    signs = torch.tensor([1.0, -2.0, 0.5])
    ours = gradients(model, (sequence_logps(model, **collate_completions(ROWS, 0)) * signs).sum())
    plain = gradients(model, (torch.stack([plain_logp(model, r) for r in ROWS]) * signs).sum())
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5 * max(1.0, theirs.abs().max().item()), rtol=1e-4)


@pytest.mark.parametrize("eager", [False, True])
def test_a_shared_prompt_changes_neither_value_nor_gradient(model, eager):
    if eager:
        model.set_attn_implementation("eager")
    assert why_not_shared(model) == ""
    signs = torch.tensor([1.0, -2.0, 0.5, 0.3, 1.0, -1.0, 0.7, -0.4, 0.9, -0.6])
    together = torch.cat(pair_logps(model, **collate_shared(PAIRS, 0)))
    apart = sequence_logps(model, **collate_pairs(PAIRS, 0))
    torch.testing.assert_close(together, apart, atol=1e-4, rtol=1e-5)
    for mine, theirs in zip(*(gradients(model, (x * signs).sum()) for x in (together, apart)), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5 * max(1.0, theirs.abs().max().item()), rtol=1e-4)


class LargestTensor(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that any operation makes."""

    largest = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **kwargs or {})
        for value in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(value, torch.Tensor):
                self.largest = max(self.largest, value.numel())
        return result


def test_no_tensor_of_all_logits_exists_forward_or_backward():
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SMALL | {"vocab_size": 5000, "tie_word_embeddings": True}))
    batch = collate_completions([Encoded([5] * 20, [7] * 40), Encoded([5] * 30, [8] * 40)], 0)
    sequence_logps(model, **batch)  # the first call tries the model out
    with LargestTensor() as seen:
        sequence_logps(model, **batch, chunk_size=4).sum().backward()
    assert seen.largest == 5000 * 32  # the weights themselves; all scored logits would be 80 * 5000


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chunk", [1, 7, 100])
@pytest.mark.parametrize("softcap", [None, 1.5])
def test_chunked_scores_of_hidden_states_equal_the_plain_ones(dtype, chunk, softcap):
    torch.manual_seed(0)
    hidden, weight, bias = (torch.randn(*shape, dtype=dtype, requires_grad=True) for shape in ((20, 8), (50, 8), (50,)))
    targets, signs = torch.randint(50, (20,)), torch.randn(20)
    logits = torch.nn.functional.linear(hidden, weight, bias).float()
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    plain = token_logps(logits, targets)
    ours = linear_logps(hidden, weight, targets, bias=bias, softcap=softcap, chunk_size=chunk)
    tolerance = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.1, "rtol": 0.02}
    torch.testing.assert_close(ours, plain, **tolerance)
    for mine, theirs in zip(
        *(torch.autograd.grad((x * signs).sum(), [hidden, weight, bias]) for x in (ours, plain)), strict=True
    ):
        torch.testing.assert_close(mine, theirs, **tolerance)


def test_a_model_that_scales_its_logits_falls_back_and_says_why(caplog):
    model = new("granite")
    sequence_logps(model, **collate_completions(ROWS, 0))
    sequence_logps(model, **collate_completions(ROWS, 0))
    assert sum("changes its logits" in r.message for r in caplog.records) == 1


def test_adapters_on_the_output_layer_are_never_passed_over():
    model, batch = new("llama"), collate_completions(ROWS, 0)
    before = sequence_logps(model, **batch)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["lm_head"], init_lora_weights=False))
    after = sequence_logps(adapted, **batch)
    plain = torch.stack([plain_logp(adapted, row) for row in ROWS])
    torch.testing.assert_close(after, plain, atol=1e-4, rtol=1e-5)
    assert not torch.allclose(before, after)


def test_a_model_that_ignores_the_mask_is_not_trusted_with_a_shared_prompt():
    class Deaf(LlamaForCausalLM):
        def forward(self, input_ids, attention_mask=None, position_ids=None, **kwargs):
            return super().forward(input_ids=input_ids, position_ids=position_ids, **kwargs)

    torch.manual_seed(0)
    for model in (Deaf(CONFIGS["llama"]), Deaf(CONFIGS["llama"]).bfloat16()):
        assert "does not follow a mask" in why_not_shared(model)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_half_precision_is_not_taken_for_deafness(name):
    assert why_not_shared(new(name).bfloat16()) == ""


def test_logits_scaled_in_half_precision_are_seen(caplog):
    torch.manual_seed(0)
    sequence_logps(AutoModelForCausalLM.from_config(CONFIGS["granite"]).bfloat16(), **collate_completions(ROWS, 0))
    assert any("changes its logits" in r.message for r in caplog.records)


@pytest.mark.parametrize("config", [
    MistralConfig(**SMALL, sliding_window=10),
    GPTNeoConfig(vocab_size=50, hidden_size=32, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]],
                 window_size=10),
    Llama4TextConfig(**SMALL, attention_chunk_size=10, head_dim=8, intermediate_size_mlp=64, num_local_experts=2),
], ids=lambda config: config.model_type)  # fmt: skip
def test_local_attention_must_hold_the_whole_row(config):
    model = SimpleNamespace(config=config, forward=None)
    assert fits_window(model, 10) and not fits_window(model, 11)
    assert fits_window(new("llama"), 10**6)


def test_virtual_tokens_are_refused():
    model = get_peft_model(new("llama"), PromptTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"))
    with pytest.raises(ValueError, match="LoRA"):
        sequence_logps(model, **collate_completions(ROWS, 0))


def test_a_wrapper_that_hands_all_arguments_on_keeps_positions():
    model = new("gpt2")

    class Wrapper(torch.nn.Module):
        def forward(self, **inputs):
            return model(**inputs)

    batch = collate_completions(ROWS, 0)
    torch.testing.assert_close(sequence_logps(Wrapper(), **batch), sequence_logps(model, **batch))


def test_another_thread_may_use_the_model_meanwhile():
    model, batch = new("llama"), collate_completions(ROWS, 0)
    expected, ids, seen = model(batch["input_ids"]).logits, batch["input_ids"], []

    def elsewhere(*_):
        thread = threading.Thread(target=lambda: seen.append(model(ids).logits))
        handle.remove()
        thread.start()
        thread.join()

    sequence_logps(model, **batch)  # which itself runs the model a few times more, the first time
    handle = model.model.norm.register_forward_hook(elsewhere)
    sequence_logps(model, **batch)
    assert torch.equal(seen[0], expected)


def test_scoring_leaves_the_model_as_it_was():
    model = new("llama").train()
    ids = torch.tensor([[3, 4, 5]])
    before = model(input_ids=ids).logits
    why_not_shared(model)
    sequence_logps(model, **collate_completions(ROWS, 0))
    assert torch.equal(model(input_ids=ids).logits, before) and model.training


@pytest.mark.parametrize("side", ["left", "right"])
def test_completion_states_give_log_probabilities_and_entropies_at_their_tokens_places(side):
    model = tiny_llama(50)
    ids, mask, wanted = torch.randint(0, 50, (3, 8)), torch.ones(3, 8, dtype=torch.long), torch.zeros(3, 8).bool()
    mask[0, (slice(0, 2) if side == "left" else slice(6, 8))] = 0
    wanted[:, 3:6] = True
    states = completion_states(model, ids, mask, wanted)
    assert isinstance(states, CompletionStates) and states.hidden.shape == (9, 32)
    expected, _ = completion_logps(model, ids, mask, wanted)
    torch.testing.assert_close(states.spread(states.logps()), expected)
    entropies = states.spread(states.entropies(temperature=0.5))
    assert not entropies[~wanted].any()
    alone = ids[0, mask[0].bool()][None]
    with torch.no_grad():
        logits = model(alone).logits[0] / 0.5
    place = 3 - (2 if side == "left" else 0)
    wanted_entropy = torch.distributions.Categorical(logits=logits[place - 1]).entropy()
    torch.testing.assert_close(entropies[0, 3], wanted_entropy, atol=1e-4, rtol=1e-4)


def test_a_completion_sees_the_common_part_and_itself_alone():
    segments = torch.tensor([[0, 0, 1, 1, 2, -1]])
    seen = visible_segments(segments, tiny_llama(50))[0, 0].int().tolist()
    assert seen == [[1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0],
                    [1, 1, 0, 0, 1, 0], [1, 1, 0, 0, 0, 1]]  # fmt: skip


def test_a_model_that_takes_no_mask_of_its_own_is_known_by_its_looks():
    model = tiny_llama(50)
    assert why_no_own_mask(model) == ""
    model.config._attn_implementation = "flash_attention_2"
    assert "takes no mask of its own" in why_no_own_mask(model)
