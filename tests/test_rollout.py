"""Rollouts: what was drawn, with what probability, and that nothing else decides it."""

import copy

import pytest
import torch
from conftest import tiny_llama

from course_lib import completion_logps, load_policy, sample, world
from course_lib.data import encode_prompt
from course_lib.rollouts import Decoding, Rollout, merged_adapters, roll_out
from course_lib.rollouts.drawing import row_uniforms
from course_lib.rollouts.stepping import Cached, CachedUnpadded, Roomy, Whole

PROMPTS = [world.user(text) for text in ("what color is a banana?", "add 2 and 3.", "hello. how do i burn a twig?")]


@pytest.fixture(scope="module")
def model(tokenizer):
    return tiny_llama(len(tokenizer))


def logps_of(model, rollout, pad):
    batch = rollout.batch(pad)
    logps, mask = completion_logps(model, batch["input_ids"], batch["attention_mask"], batch["completion_mask"])
    return batch, logps, mask


def test_log_probabilities_are_those_of_a_plain_pass(model, tokenizer):
    rollout = roll_out(model, tokenizer, PROMPTS, n=3, max_new_tokens=9)
    batch, logps, mask = logps_of(model, rollout, tokenizer.pad_token_id)
    torch.testing.assert_close(batch["logps"], logps, atol=1e-5, rtol=1e-5)
    assert torch.equal(batch["logps"], batch["plain_logps"]) and mask.sum() == rollout.lengths.sum()
    assert not batch["logps"][~mask].any()


@pytest.mark.parametrize("decoding", [Decoding(0.5), Decoding(1.3, top_k=5), Decoding(1.0, top_p=0.6)], ids=str)
def test_log_probabilities_are_of_the_distribution_drawn_from(model, tokenizer, decoding):
    rollout = roll_out(model, tokenizer, PROMPTS, n=4, max_new_tokens=6, decoding=decoding, seed=5)
    batch = rollout.batch(tokenizer.pad_token_id)
    with torch.no_grad():
        logits = model(batch["input_ids"], attention_mask=batch["attention_mask"],
                       position_ids=(batch["attention_mask"].cumsum(1) - 1).clamp(min=0)).logits  # fmt: skip
    of = decoding.log_probabilities(logits[:, :-1]).gather(-1, batch["input_ids"][:, 1:, None])[..., 0]
    mask = batch["completion_mask"][:, 1:]
    torch.testing.assert_close(batch["logps"][:, 1:][mask], of[mask], atol=1e-5, rtol=1e-5)
    assert of[mask].isfinite().all() and (batch["plain_logps"][:, 1:][mask] != of[mask]).any()


def test_a_draw_depends_on_neither_neighbours_nor_the_batch(model, tokenizer):
    together = roll_out(model, tokenizer, PROMPTS * 3, n=2, max_new_tokens=8, seed=3)
    apart = roll_out(model, tokenizer, PROMPTS * 3, n=2, max_new_tokens=8, seed=3, batch_size=2)
    assert [c.ids for c in together.completions] == [c.ids for c in apart.completions]
    fewer = roll_out(model, tokenizer, PROMPTS * 2, n=2, max_new_tokens=8, seed=3)
    assert [c.ids for c in fewer.completions] == [c.ids for c in together.completions[:12]]
    other = roll_out(model, tokenizer, PROMPTS * 3, n=2, max_new_tokens=8, seed=4)
    assert [c.ids for c in other.completions] != [c.ids for c in together.completions]


def test_what_a_prompt_says_in_a_group_it_says_alone(model, tokenizer):
    group = roll_out(model, tokenizer, PROMPTS[:1], n=4, max_new_tokens=8, seed=1)
    alone = roll_out(model, tokenizer, PROMPTS[:1] * 4, max_new_tokens=8, seed=1)
    assert [c.ids for c in group.completions] == [c.ids for c in alone.completions]


@pytest.mark.parametrize("way", [Roomy, Cached, CachedUnpadded, Whole])
def test_every_way_to_the_next_token_draws_the_same(model, tokenizer, monkeypatch, way):
    from course_lib.rollouts import generation

    usual = roll_out(model, tokenizer, PROMPTS, n=2, max_new_tokens=7, seed=2)
    monkeypatch.setattr(generation, "stepping_of", lambda *args: way)
    other = roll_out(model, tokenizer, PROMPTS, n=2, max_new_tokens=7, seed=2)
    assert [c.ids for c in other.completions] == [c.ids for c in usual.completions]


def test_a_completion_that_is_cut_off_has_no_end_and_one_that_ends_has_one(tokenizer):
    policy, _ = load_policy("pocket-world-sft", device="cpu")
    rollout = roll_out(policy, tokenizer, PROMPTS, n=4, max_new_tokens=12)
    assert 0 < rollout.ended.sum() < len(rollout)
    for completion in rollout.completions:
        assert (completion.ids[-1] == tokenizer.eos_token_id) == completion.ended
        assert completion.ended or len(completion.ids) == 12
        assert tokenizer.eos_token_id not in completion.ids[:-1]


def test_texts_are_what_was_drawn_without_its_end(tokenizer):
    policy, _ = load_policy("pocket-world-sft", device="cpu")
    rollout = roll_out(policy, tokenizer, PROMPTS, n=2)
    for text, completion in zip(rollout.texts, rollout.completions, strict=True):
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == completion.ids[:-1]
    assert rollout.prompts[:2] == [PROMPTS[0]] * 2 and rollout.prompt_ids[1] == encode_prompt(PROMPTS[0], tokenizer)


def test_a_stop_string_ends_a_completion(tokenizer):
    policy, _ = load_policy("pocket-world-sft", device="cpu")
    rollout = roll_out(policy, tokenizer, PROMPTS, n=4, stop_strings=["."])
    assert rollout.ended.all()
    assert all("." not in text[:-1] and text.endswith(".") for text in rollout.texts if "." in text)


def test_frequencies_are_the_models_probabilities():
    decoding = Decoding()
    logits = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).log().expand(20_000, 4)
    tokens, logps = decoding.draw(logits, row_uniforms(0, range(20_000), 1)[:, 0])
    shares = tokens.bincount(minlength=4) / len(tokens)
    torch.testing.assert_close(shares, torch.tensor([0.1, 0.2, 0.3, 0.4]), atol=0.01, rtol=0)
    torch.testing.assert_close(logps.exp(), logits[0].exp()[tokens])


def test_what_top_k_and_top_p_leave_out_is_never_drawn():
    logits = torch.tensor([[0.5, 0.25, 0.15, 0.1]]).log()
    for decoding, left in ((Decoding(top_k=2), [0.5, 0.25, 0, 0]), (Decoding(top_p=0.6), [0.5, 0.25, 0, 0]),
                           (Decoding(top_p=0.5), [0.5, 0, 0, 0])):  # fmt: skip
        expected = torch.tensor(left) / sum(left)
        torch.testing.assert_close(decoding.log_probabilities(logits).exp()[0], expected)
        for number in (0.0, 0.9999999999):
            tokens, _ = decoding.draw(logits, torch.tensor([number], dtype=torch.float64))
            assert expected[tokens.item()] > 0


@pytest.mark.parametrize("wrong", [{"temperature": -1}, {"temperature": float("inf")}, {"top_k": 0}, {"top_p": 0}])
def test_decodings_that_cannot_be_meant_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Decoding(**wrong)


def test_a_rollout_is_drawn_and_has_prompts(model, tokenizer):
    with pytest.raises(ValueError, match="use `sample`"):
        roll_out(model, tokenizer, PROMPTS, decoding=Decoding(0))
    with pytest.raises(ValueError, match="no prompts"):
        roll_out(model, tokenizer, [])
    with pytest.raises(ValueError, match="n is a whole number"):
        roll_out(model, tokenizer, PROMPTS, n=0)


def test_rows_of_a_rollout_make_a_batch_of_their_own(model, tokenizer):
    rollout = roll_out(model, tokenizer, PROMPTS, n=2, max_new_tokens=5)
    assert isinstance(rollout, Rollout) and len(rollout) == 6
    some = rollout.batch(tokenizer.pad_token_id, rows=[4, 1])
    whole = rollout.batch(tokenizer.pad_token_id)
    for here, there in ((0, 4), (1, 1)):
        mask, other = some["completion_mask"][here], whole["completion_mask"][there]
        assert torch.equal(some["input_ids"][here][mask], whole["input_ids"][there][other])
        assert torch.equal(some["logps"][here][mask], whole["logps"][there][other])


@pytest.fixture
def adapted(tokenizer):
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    adapted = get_peft_model(tiny_llama(len(tokenizer)), LoraConfig(r=4, target_modules="all-linear"))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    return adapted.eval()


def test_adapters_are_folded_in_while_a_model_samples_and_taken_out_to_the_last_bit(adapted, tokenizer):
    before = copy.deepcopy(adapted.state_dict())
    ids = torch.tensor([encode_prompt(PROMPTS[0], tokenizer)])
    with torch.no_grad():
        beside = adapted(ids).logits
        with merged_adapters(adapted):
            torch.testing.assert_close(adapted(ids).logits, beside, atol=1e-4, rtol=1e-4)
            assert all(layer.merged for layer in adapted.modules() if hasattr(layer, "lora_A"))
        assert torch.equal(adapted(ids).logits, beside)
    assert all(torch.equal(tensor, before[name]) for name, tensor in adapted.state_dict().items())


def test_adapters_that_are_off_stay_off(adapted, tokenizer):
    ids = torch.tensor([encode_prompt(PROMPTS[0], tokenizer)])
    with torch.no_grad(), adapted.disable_adapter():
        off = adapted(ids).logits
        with merged_adapters(adapted):
            assert torch.equal(adapted(ids).logits, off)


def test_a_failure_while_sampling_leaves_no_adapter_in_the_weights(adapted):
    before = copy.deepcopy(adapted.state_dict())
    with pytest.raises(KeyboardInterrupt), merged_adapters(adapted):
        raise KeyboardInterrupt
    assert all(torch.equal(tensor, before[name]) for name, tensor in adapted.state_dict().items())


def test_greedy_replies_are_those_of_transformers(tokenizer):
    policy, _ = load_policy("pocket-world-sft", device="cpu")
    rows = [encode_prompt(prompt, tokenizer) for prompt in PROMPTS]
    theirs = [policy.generate(torch.tensor([row]), do_sample=False, max_new_tokens=20)[0, len(row) :] for row in rows]
    texts = tokenizer.batch_decode(theirs, skip_special_tokens=True)
    assert sample(policy, tokenizer, PROMPTS, temperature=0, max_new_tokens=20) == [text.strip() for text in texts]
