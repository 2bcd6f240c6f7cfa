"""Sampling: the tokens that the model's own `generate` gives, ends where it ends, and clear words for bad input."""

import copy

import pytest
import torch
from conftest import tiny_llama
from test_turns import TEMPLATES, says, user
from transformers import (
    FalconMambaConfig,
    FalconMambaForCausalLM,
    JambaConfig,
    JambaForCausalLM,
    Mamba2Config,
    Mamba2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    RwkvConfig,
    RwkvForCausalLM,
)

from course_lib import completion_logps, sample
from course_lib.data import encode_prompt
from course_lib.rollouts import stop_ids


def rough(model):
    """Weights large enough that every prompt has an answer of its own."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def generated(model, tokenizer, prompt, n=12):
    """What the model's own `generate` writes, greedily."""
    ids = torch.tensor([encode_prompt(prompt, tokenizer)])
    out = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=n, do_sample=False, pad_token_id=0,
        eos_token_id=sorted(stop_ids(model, tokenizer)),
    )  # fmt: skip
    return tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


PROMPTS = ["what is it?", "the answer is yes and the", "no no no", "is it yes? the answer"]


def state_space(size):
    small = {"vocab_size": size, "hidden_size": 32, "num_hidden_layers": 2}
    heads = {"num_heads": 4, "head_dim": 16, "n_groups": 2}
    jamba = {
        "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "num_experts": 2,
        "attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False, "mamba_d_state": 8,
    }  # fmt: skip
    return {
        "mamba": lambda: MambaForCausalLM(MambaConfig(**small, state_size=8)),
        "mamba2": lambda: Mamba2ForCausalLM(Mamba2Config(**small, **heads, state_size=8)),
        "falcon-mamba": lambda: FalconMambaForCausalLM(FalconMambaConfig(**small, state_size=8)),
        "jamba": lambda: JambaForCausalLM(JambaConfig(**small, **jamba)),
    }


@pytest.mark.parametrize("name", ["mamba", "mamba2", "falcon-mamba", "jamba"])
def test_models_with_a_state_sample_what_their_own_generate_does(name, bpe_tokenizer):
    model = rough(state_space(len(bpe_tokenizer))[name]())
    expected = [generated(model, bpe_tokenizer, prompt) for prompt in PROMPTS]
    assert sample(model, bpe_tokenizer, PROMPTS, temperature=0, max_new_tokens=12) == expected
    assert len(set(expected)) > 1


@pytest.fixture
def rwkv(bpe_tokenizer):
    sizes = {"hidden_size": 32, "attention_hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    return rough(RwkvForCausalLM(RwkvConfig(vocab_size=len(bpe_tokenizer), context_length=64, **sizes)))


def test_a_model_whose_steps_disagree_with_one_pass_is_refused_by_name(rwkv, bpe_tokenizer):
    with pytest.raises(ValueError, match="RwkvForCausalLM cannot be sampled here"):
        sample(rwkv, bpe_tokenizer, PROMPTS)


def test_padding_on_the_left_changes_no_score_of_a_recurrent_model(rwkv):
    ids = torch.arange(2, 10)[None]
    ones, completion = torch.ones_like(ids), torch.arange(8)[None] >= 4
    alone = completion_logps(rwkv, ids, ones, completion)[0]
    padded = [torch.cat([t.new_zeros(1, 3), t], dim=1) for t in (ids, ones, completion)]
    logps, mask = completion_logps(rwkv, *padded)
    torch.testing.assert_close(logps[:, 3:], alone)
    assert mask[:, 3:].equal(completion) and not logps[:, :3].any()


def test_sampling_stops_at_every_end_that_the_model_s_own_config_names(bpe_tokenizer):
    model = rough(tiny_llama(len(bpe_tokenizer)))
    free = sample(model, bpe_tokenizer, PROMPTS, temperature=0, max_new_tokens=20)
    ids = [bpe_tokenizer(text)["input_ids"] for text in free]
    end = ids[0][3]
    model.generation_config.eos_token_id = [bpe_tokenizer.eos_token_id, end]
    assert stop_ids(model, bpe_tokenizer) >= {bpe_tokenizer.eos_token_id, end}
    stopped = sample(model, bpe_tokenizer, PROMPTS, temperature=0, max_new_tokens=20)
    first = sample(model, bpe_tokenizer, PROMPTS[:1], temperature=0, max_new_tokens=20)[0]
    assert first == stopped[0] == bpe_tokenizer.decode(ids[0][: ids[0].index(end)])


@pytest.mark.parametrize("template", TEMPLATES)
def test_sampling_stops_at_the_template_s_end_of_a_turn(template, bpe_tokenizer):
    tokenizer = copy.deepcopy(bpe_tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>", "<|eot_id|>", "<end_of_turn>", "</s>"]})
    tokenizer.bos_token = "<eos>"
    tokenizer.chat_template, end = TEMPLATES[template]
    if template in ("plain", "no ends"):
        end = "<eos>"
    model = says_then_ends(tokenizer, "yes", end)
    assert sample(model, tokenizer, [[user("what is it?")]], temperature=0, max_new_tokens=30) == ["yes"]


def says_then_ends(tokenizer, word, end):
    """A model that says one word after any prompt, then ends its turn, then would ramble on."""
    ids = tokenizer(word)["input_ids"]
    order = [*ids, tokenizer.convert_tokens_to_ids(end), *tokenizer("no no no")["input_ids"] * 3]
    model = tiny_llama(len(tokenizer))
    start = []

    def forward(input_ids, attention_mask=None, past_key_values=None, position_ids=None, **kwargs):
        start.append(input_ids.shape[1]) if not start or input_ids.shape[1] > 1 else None
        logits = torch.zeros(len(input_ids), 1, len(tokenizer))
        place = min(attention_mask.shape[1] - start[-1], len(order) - 1)
        logits[:, -1, order[place]] = 9.0
        return type("Output", (), {"logits": logits, "past_key_values": past_key_values})()

    model.forward = forward
    from course_lib import rollouts

    rollouts._steps_alike[model] = True
    return model


@pytest.mark.parametrize(
    ("prompts", "what"),
    [
        ("Hi", r"list of prompts; write \['Hi'\]"),
        ([user("hi")], r"\[dialogue\]"),
        ([{"prompt": "hi"}], r'record\["prompt"\]'),
        ([3], "prompt 0 is a int"),
        (["a", None], "prompt 1 is a NoneType"),
    ],
)
def test_what_are_no_prompts_is_refused_with_what_to_write(prompts, what, tiny_model, bpe_tokenizer):
    with pytest.raises(TypeError, match=what):
        sample(tiny_model, bpe_tokenizer, prompts)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"batch_size": -1}, "batch_size"), ({"batch_size": 1.5}, "batch_size"), ({"max_new_tokens": 0}, "max_new"),
        ({"temperature": -1}, "temperature"), ({"temperature": float("nan")}, "temperature"), ({"seed": None}, "seed"),
        ({"max_new_tokens": 400}, "256 positions"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused(options, what, tiny_model, bpe_tokenizer):
    with pytest.raises(ValueError, match=what):
        sample(tiny_model, bpe_tokenizer, ["hi"], **options)


def test_no_prompts_give_no_completions(tiny_model, bpe_tokenizer):
    assert sample(tiny_model, bpe_tokenizer, []) == []


def test_an_empty_prompt_begins_with_bos_or_is_refused(tiny_model, tokenizer, bpe_tokenizer):
    assert len(sample(tiny_model, tokenizer, [""], max_new_tokens=4)) == 1
    with pytest.raises(ValueError, match="prompt 1 is empty"):
        sample(tiny_model, bpe_tokenizer, ["the", ""])


def test_a_tokenizer_without_pad_or_eos_samples_to_the_limit(bpe_tokenizer):
    tokenizer = copy.deepcopy(bpe_tokenizer)
    tokenizer.pad_token = tokenizer.eos_token = None
    model = rough(tiny_llama(len(tokenizer)))
    model.generation_config.eos_token_id = model.config.eos_token_id = None
    texts = sample(model, tokenizer, PROMPTS, temperature=0, max_new_tokens=5)
    assert [sample(model, tokenizer, [p], temperature=0, max_new_tokens=5)[0] for p in PROMPTS] == texts


def test_ids_that_the_model_never_had_are_named(bpe_tokenizer):
    tokenizer = copy.deepcopy(bpe_tokenizer)
    tokenizer.add_tokens(["yesyesyes"])
    with pytest.raises(ValueError, match="resize_token_embeddings"):
        sample(tiny_llama(len(bpe_tokenizer)), tokenizer, ["yesyesyes"])


def test_a_pad_token_that_the_model_never_had_is_replaced(bpe_tokenizer):
    tokenizer = copy.deepcopy(bpe_tokenizer)
    model = rough(tiny_llama(len(bpe_tokenizer)))
    expected = sample(model, tokenizer, PROMPTS, temperature=0)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert sample(model, tokenizer, PROMPTS, temperature=0) == expected


def test_a_dialogue_and_its_reply_go_round(tokenizer, sft_policy):
    policy, own = sft_policy
    reply = sample(policy, own, [[user("what color is a banana?")]], temperature=0)[0]
    assert reply and not reply.startswith(" ")
    again = sample(policy, own, [[user("what color is a banana?"), says(reply), user("why?")]], temperature=0)
    assert isinstance(again[0], str)
