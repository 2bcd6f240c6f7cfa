"""Packed rows: nothing is lost, nothing is seen that should not be, and prompts stand there once."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, GemmaConfig, GPT2Config, LlamaConfig, Qwen2Config

from course_lib.data import Encoded, collate_completions
from course_lib.logprobs import (
    Packed,
    PackedRows,
    completion_logps,
    head_of,
    pack,
    pack_texts,
    packed_inputs,
    packed_states,
    spread,
)
from course_lib.models import critic_of, packed_rewards, sequence_rewards

SMALL = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0,
}  # fmt: skip
CONFIGS = {
    "llama": LlamaConfig(**SMALL), "qwen2": Qwen2Config(**SMALL), "gemma": GemmaConfig(**SMALL, head_dim=8),
    "gpt2": GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=128),
}  # fmt: skip

PROMPTS = st.lists(st.integers(3, 49), min_size=1, max_size=12)
TEXTS = st.lists(
    st.tuples(st.integers(0, 3), st.lists(st.integers(1, 49), min_size=1, max_size=20)), min_size=1, max_size=10
)


def model_of(name: str, attention: str = "sdpa"):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation=attention).eval()


def batch_of(prompts, texts) -> dict[str, torch.Tensor]:
    return collate_completions([Encoded(prompts[p % len(prompts)], done) for p, done in texts], 0)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_log_probabilities_are_those_of_padded_rows(name, attention):
    model = model_of(name, attention)
    torch.manual_seed(1)
    prompts = [torch.randint(3, 50, (n,)).tolist() for n in (5, 2, 9)]
    texts = [(i % 3, torch.randint(1, 50, (n,)).tolist()) for i, n in enumerate((4, 1, 7, 30, 2, 2, 11))]
    batch = batch_of(prompts, texts)
    batch["completion_mask"][0, -4:] &= torch.tensor([True, False, True, False])  # holes, and an end that is not scored
    packed = pack(**batch)
    states = packed_states(model, packed)
    expected, mask = completion_logps(model, **batch)
    found = states.spread(states.logps())
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    assert isinstance(packed, Packed) and len(packed.target) == mask.sum()


@given(prompts=st.lists(PROMPTS, min_size=1, max_size=3), texts=TEXTS, width=st.integers(1, 70))
@settings(max_examples=60, deadline=None)
def test_every_token_stands_in_a_packed_row_once_and_prompts_are_not_repeated_without_need(prompts, texts, width):
    rows, stands = pack_texts([(prompts[p % len(prompts)], done) for p, done in texts], width)
    assert isinstance(rows, PackedRows)
    flat = rows.input_ids.flatten().tolist()
    places = [place for stand in stands for place in stand[1:]]
    assert len(set(places)) == len(places) == sum(len(done) for _, done in texts)
    for (p, done), (before, *after) in zip(texts, stands, strict=True):
        prompt = prompts[p % len(prompts)]
        assert [flat[place] for place in after] == done
        assert flat[before - len(prompt) + 1 : before + 1] == prompt
    roomy, _ = pack_texts([(prompts[p % len(prompts)], done) for p, done in texts], 500)
    used = {tuple(prompts[p % len(prompts)]) for p, _ in texts}
    assert (roomy.group >= 0).sum() == len(places) + sum(map(len, used))


def test_what_stands_beside_a_text_changes_nothing():
    model = model_of("llama")
    prompt, done, others = [5, 6, 7], [8, 9, 10, 2], [(0, [11, 12]), (1, [13] * 6), (0, [14])]
    alone = batch_of([prompt, [20, 21]], [(0, done)])
    beside = batch_of([prompt, [20, 21]], [*others, (0, done)])
    one, many = (packed_states(model, pack(**batch)).logps() for batch in (alone, beside))
    torch.testing.assert_close(one, many[-4:], atol=1e-5, rtol=1e-5)


def test_a_group_of_completions_computes_its_prompt_once():
    prompt = list(range(3, 33))
    batch = batch_of([prompt], [(0, [40, 41, 2])] * 8)
    assert (pack(**batch).rows.group >= 0).sum() == 30 + 8 * 2
    padding = packed_inputs(pack(**batch).rows, model_of("llama"))["attention_mask"][0, 0]
    assert padding.any(dim=-1).all()  # a row that sees nothing would be NaN


def test_gradients_are_those_of_padded_rows():
    prompts, texts = [[5, 6, 7], [8, 9]], [(0, [10, 11, 2]), (1, [12, 2]), (0, [13, 14, 15, 2])]
    batch, found = batch_of(prompts, texts), []
    for packs in (True, False):
        model = model_of("llama")
        states = packed_states(model, pack(**batch)) if packs else None
        logps = states.logps() if packs else completion_logps(model, **batch)[0]
        (logps.sum() ** 2).backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(*found, atol=1e-4, rtol=1e-4)


def test_a_critic_reads_packed_rows_as_padded_ones():
    model = model_of("llama")
    critic = critic_of(model)
    torch.nn.init.normal_(critic.head.weight)
    batch = batch_of([[5, 6, 7], [8, 9]], [(0, [10, 11, 2]), (1, [12, 2]), (0, [13, 14, 15, 2])])
    packed = pack(**batch)
    padded = critic(batch["input_ids"], batch["attention_mask"]).masked_fill(~batch["completion_mask"], 0.0)
    torch.testing.assert_close(critic.of_packed(packed), padded, atol=1e-5, rtol=1e-5)
    ones = spread(packed, lambda hidden: torch.ones(len(hidden)), torch.zeros(*packed.rows.input_ids.shape, 32))
    assert torch.equal(ones.bool(), batch["completion_mask"])


def test_rewards_of_packed_texts_are_those_of_each_alone():
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(LlamaConfig(**SMALL, num_labels=1)).eval()
    texts = [([5, 6], [7, 2]), ([5, 6], [8, 9, 10, 2]), ([], [11, 12, 2]), ([13], [2])]
    rows, stands = pack_texts(texts)
    found = packed_rewards(model, rows, torch.tensor([stand[-1] for stand in stands]))
    for reward, (prompt, done) in zip(found, texts, strict=True):
        ids = torch.tensor([prompt + done])
        torch.testing.assert_close(
            reward[None], sequence_rewards(model, ids, torch.ones_like(ids)), atol=1e-5, rtol=1e-5
        )


def test_a_replaced_output_layer_leaves_no_states_to_score():
    model = model_of("llama")
    model.lm_head = torch.nn.Sequential(model.lm_head)
    assert head_of(model) is None and packed_states(model, pack(**batch_of([[5]], [(0, [6, 2])]))) is None
