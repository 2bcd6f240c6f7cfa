"""Sampling: where it stops, what it refuses and in which words, and models that remember in their own ways."""

import inspect
from itertools import pairwise

import pytest
import torch
from families import model_of
from tokenizers import AddedToken

from course_lib import completion_logps, sample
from course_lib.data import Encoded, collate_completions
from course_lib.rollouts import stop_ids

CHAT = (
    "{% for m in messages %}{{ '<turn> ' + m['role'] + ' ' + m['content'] + ' <end_of_turn>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<turn> ' }}{% endif %}"
)


@pytest.fixture
def llama():
    return model_of("llama")


@pytest.fixture
def plain(letters):
    """The tokenizer of letters, for tests that change it."""
    return type(letters)(
        tokenizer_object=letters.backend_tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    )


def saying(model, *tokens: int):
    """The same model, but what follows any of the tokens is the next of them."""
    own, following = model.forward, dict(pairwise(tokens))

    def forward(input_ids=None, logits_to_keep=0, **inputs):
        output = own(input_ids=input_ids, **inputs)
        for token, then in following.items():
            output.logits[..., then] += 1e4 * (input_ids == token)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        output.logits = output.logits[:, kept]
        return output

    forward.__signature__ = inspect.signature(own)
    model.forward = forward
    return model


@pytest.mark.parametrize("where", ["generation_config", "config", "template"])
def test_sampling_stops_at_every_id_that_ends_a_turn(llama, plain, where):
    end, prompt = 30, "h i"
    if where == "template":
        plain.add_special_tokens({"additional_special_tokens": ["<turn>", "<end_of_turn>"]})
        llama.resize_token_embeddings(len(plain))
        plain.chat_template, end = CHAT, plain.convert_tokens_to_ids("<end_of_turn>")
    else:
        getattr(llama, where).eos_token_id = [2, end]
    assert {2, end} <= stop_ids(llama, plain)
    i, j, k = plain("i j k")["input_ids"]
    assert sample(saying(llama, i, j, k, end), plain, [prompt], temperature=0) == ["j k"]


def test_rows_that_ended_stay_ended_while_others_go_on(llama, letters):
    i, j, k = letters("i j k")["input_ids"]
    model = saying(llama, i, j, k, letters.eos_token_id, k)
    assert sample(model, letters, ["a i", "k", "j"], temperature=0) == ["j k", "", "k"]


def test_a_tokenizer_without_eos_pad_or_bos_samples_to_the_limit(llama, letters):
    bare = type(letters)(tokenizer_object=letters.backend_tokenizer)
    llama.generation_config.eos_token_id = llama.config.eos_token_id = None
    assert stop_ids(llama, bare) == set()
    texts = sample(llama, bare, ["a b c", "d"], temperature=0, max_new_tokens=7)
    assert [len(text.split()) for text in texts] == [7, 7]
    with pytest.raises(ValueError, match="prompt 1 is empty, and the tokenizer has no BOS"):
        sample(llama, bare, ["a", ""])


def test_an_empty_prompt_begins_with_bos(llama, letters):
    assert sample(llama, letters, [""], temperature=0) == sample(llama, letters, ["<bos>"], temperature=0)


def test_a_pad_token_beyond_the_embedding_is_not_needed(llama, plain):
    expected = sample(llama, plain, ["a b c", "d"], temperature=0)
    plain.add_special_tokens({"pad_token": AddedToken("[PAD]")})
    assert plain.pad_token_id >= llama.get_input_embeddings().num_embeddings
    assert sample(llama, plain, ["a b c", "d"], temperature=0) == expected


def test_ids_beyond_the_embedding_are_named(llama, plain):
    plain.add_tokens(["new"])
    with pytest.raises(ValueError, match=r"id 60.*resize_token_embeddings"):
        sample(llama, plain, ["a", "b new"])


def test_a_prompt_must_leave_room_in_the_models_positions(llama, letters):
    assert len(sample(llama, letters, ["a " * 60], max_new_tokens=4)) == 1
    with pytest.raises(ValueError, match="prompt 1 has 61 tokens.* 64 positions"):
        sample(llama, letters, ["a", "a " * 61], max_new_tokens=4)


@pytest.mark.parametrize(("prompts", "advice"), [
    ("Hi", r"write \['Hi'\]"),
    ([{"role": "user", "content": "Hi"}], r"\[dialogue\]"),
    ([{"prompt": "Hi", "chosen": "a", "rejected": "b"}], r'\[r\["prompt"\] for r in records\]'),
    ({"prompt": "Hi"}, "a list of strings or of dialogues; got a dict"),
    (None, "NoneType"),
    (["Hi", 3], "prompt 1 is neither"),
    (["Hi", ["Hi"]], "prompt 1 is neither"),
    ([[]], "prompt 0 is neither"),
])  # fmt: skip
def test_what_is_no_list_of_prompts_is_refused_with_what_to_write(llama, letters, prompts, advice):
    with pytest.raises(TypeError, match=advice):
        sample(llama, letters, prompts)


@pytest.mark.parametrize("setting", [
    {"batch_size": -1}, {"batch_size": 0}, {"batch_size": 2.0}, {"batch_size": True}, {"max_new_tokens": 0},
    {"max_new_tokens": "8"}, {"max_new_tokens": None}, {"temperature": -1}, {"temperature": float("nan")},
    {"temperature": "hot"}, {"temperature": None}, {"seed": None}, {"seed": 0.5},
])  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused_by_name(llama, letters, setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        sample(llama, letters, ["a"], **setting)


def test_prompts_may_come_from_any_iterable_and_keep_their_order(llama, letters):
    prompts = ["a b c", "d", "e f"]
    listed = sample(llama, letters, prompts, temperature=0)
    assert sample(llama, letters, (p for p in prompts), temperature=0, batch_size=1) == listed
    assert sample(llama, letters, []) == []


def test_sampling_leaves_each_module_in_its_mode(llama, letters):
    llama.train()
    llama.model.layers[0].eval()
    modes = [m.training for m in llama.modules()]
    sample(llama, letters, ["a"])
    assert [m.training for m in llama.modules()] == modes


@pytest.mark.parametrize("family", ["mamba", "mamba2", "falcon_mamba", "rwkv", "recurrent_gemma", "jamba"])
def test_recurrent_models_sample_what_their_own_generate_does(family, letters):
    model, prompts = model_of(family), ["a b c d e", "f k", "g h", "i j"]
    theirs = []
    for prompt in prompts:
        ids = letters(prompt, return_tensors="pt")["input_ids"]
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=8)
        theirs.append(letters.decode(out[0, ids.shape[1] :], skip_special_tokens=True))
    assert sample(model, letters, prompts, temperature=0, max_new_tokens=8) == theirs


def test_a_state_left_from_other_rows_is_not_taken_for_that_of_a_prompt_of_one_token(letters):
    model = model_of("recurrent_gemma")
    texts = [sample(model, letters, prompts, temperature=0) for prompts in (["f"], ["a b c d", "f"], ["a b", "f", "g"])]
    assert texts[0][0] == texts[1][1] == texts[2][1]


def test_a_model_whose_cache_forgets_is_sampled_without_one_and_says_so(llama, letters, caplog):
    expected = sample(llama, letters, ["a b c", "d"], temperature=0)
    forgetful = model_of("llama")
    own = forgetful.forward
    forgetful.forward = lambda input_ids, attention_mask=None, **_: own(input_ids, attention_mask=None)
    assert sample(forgetful, letters, ["a b c", "d"], temperature=0) == expected
    assert sample(forgetful, letters, ["a b c", "d"], temperature=0) == expected
    assert sum("without a cache" in r.message for r in caplog.records) == 1


@pytest.mark.parametrize("family", ["rwkv", "recurrent_gemma"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_padding_that_a_state_would_remember_is_moved_behind_the_row(family, dtype):
    model, rows = model_of(family).to(dtype), [Encoded([7, 8, 9], [10, 2]), Encoded([3], [4, 5, 2])]
    together, mask = completion_logps(model, **collate_completions(rows, pad_token_id=0))
    alone = [completion_logps(model, **collate_completions([row], pad_token_id=0)) for row in rows]
    alone = torch.cat([logps[one] for logps, one in alone])
    tolerance = 1e-4 if dtype == torch.float32 else 0.3
    torch.testing.assert_close(together[mask], alone, atol=tolerance, rtol=tolerance / 10)
    assert (together[~mask] == 0).all()


def test_gradients_pass_through_rows_that_were_moved():
    model, rows = model_of("rwkv"), [Encoded([7, 8, 9], [10, 2]), Encoded([3], [4, 5, 2])]

    def gradient(rows):
        logps, _ = completion_logps(model, **collate_completions(rows, pad_token_id=0))
        return torch.autograd.grad(logps.sum(), model.head.weight)[0]

    torch.testing.assert_close(gradient(rows), gradient(rows[:1]) + gradient(rows[1:]), atol=1e-4, rtol=1e-4)
