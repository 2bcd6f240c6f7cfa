"""Where a turn ends, whose words count, and where texts begin: over templates and kinds of tokenizers."""

import copy
import logging

import pytest
import torch
from conftest import tiny_llama
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from course_lib import SFTTrainer, completion_logps
from course_lib.data import (
    PLAIN_CHAT_TEMPLATE,
    Encoded,
    collate_completions,
    collate_shared,
    encode_completion,
    encode_prompt,
    encode_row,
    encode_text,
    load_records,
    tokenization,
    turn_end_ids,
)
from course_lib.logprobs import pair_logps
from course_lib.trainers import TrainingConfig

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
LLAMA_2 = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token }}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content | trim }} </s>{% endif %}{% endfor %}"
)
QWEN_3 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_ENDS = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
TEMPLATES = {  # the template, and the token that ends a turn in it
    "chatml": (CHATML, "<|im_end|>"),
    "llama-3": (LLAMA_3, "<|eot_id|>"),
    "gemma": (GEMMA, "<end_of_turn>"),
    "zephyr": (ZEPHYR, "</s>"),
    "llama-2": (LLAMA_2, "</s>"),
    "qwen-3": (QWEN_3, "<|im_end|>"),
    "no ends": (NO_ENDS, "</s>"),
    "plain": (PLAIN_CHAT_TEMPLATE, "</s>"),
}
MARKS = [
    "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<start_of_turn>",
    "<end_of_turn>", "<|user|>", "<|assistant|>",
]  # fmt: skip
TEXT = ["assistant user system: the sky is blue and so is the sea", "[INST] what is it? [/INST] yes no model"] * 5


def byte_level():
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return core, trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())


def metaspace():
    core = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                      decoders.Strip(" ", 1, 0)])  # fmt: skip
    alphabet = sorted(set("".join(TEXT) + "\n:?[]/<|>_"))
    return core, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, special_tokens=["<unk>"])


def word_level():
    core = Tokenizer(models.WordLevel(unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    core.decoder = decoders.WordPiece(prefix="##")
    return core, trainers.WordLevelTrainer(special_tokens=["<unk>"])


@pytest.fixture(scope="module", params=[byte_level, metaspace, word_level], ids=lambda make: make.__name__)
def bare(request):
    """A tokenizer that puts its BOS before every text, as Llama's do, and has no template yet."""
    core, trainer = request.param()
    core.train_from_iterator(TEXT, trainer)
    core.add_special_tokens([AddedToken(t, special=True) for t in ("<s>", "</s>", *MARKS)])
    core.post_processor = TemplateProcessing("<s> $A", special_tokens=[("<s>", core.token_to_id("<s>"))])
    unknown = {"unk_token": "<unk>"} if core.token_to_id("<unk>") is not None else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="</s>", **unknown
    )


@pytest.fixture(params=TEMPLATES)
def spoken(request, bare):
    """A tokenizer with a template, and the token that ends a turn there."""
    tokenizer = copy.deepcopy(bare)
    tokenizer.chat_template, end = TEMPLATES[request.param]
    return tokenizer, end


def user(text):
    return {"role": "user", "content": text}


def says(text):
    return {"role": "assistant", "content": text}


def test_a_completion_ends_with_the_template_s_own_end_of_turn_and_nothing_behind_it(spoken):
    tokenizer, end = spoken
    encoded = encode_completion([user("what is it?")], [says("yes")], tokenizer)
    assert tokenizer.convert_ids_to_tokens(encoded.completion_ids[-1]) == end
    assert sum(i in turn_end_ids(tokenizer) for i in encoded.completion_ids) == 1
    assert encoded.scored is None
    said = tokenizer.decode(encoded.completion_ids, skip_special_tokens=True)
    assert said.split()[-1] == "yes" and not said.endswith("\n")


def test_the_ends_of_a_turn_are_the_template_s_and_eos(spoken):
    tokenizer, end = spoken
    assert turn_end_ids(tokenizer) == {tokenizer.convert_tokens_to_ids(end), tokenizer.eos_token_id}


def test_prompt_and_completion_are_what_the_template_writes(spoken):
    tokenizer, end = spoken
    messages = [user("the sky?"), says("is blue")]
    encoded = encode_completion(messages[:1], messages[1:], tokenizer)
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
    written = encoded.prompt_ids + encoded.completion_ids
    known = ids[: len(written) - 1]
    if tokenizer.convert_tokens_to_ids(end) in ids:
        known = ids[: len(written)]
    assert written[: len(known)] == known


def test_a_template_s_prompt_begins_with_one_bos_or_none(spoken):
    tokenizer, _ = spoken
    ids = encode_prompt([user("the sky?")], tokenizer)
    assert ids.count(tokenizer.bos_token_id) == int("bos_token" in tokenizer.chat_template)


DIALOGUE = [user("what is it?"), says("the sky"), user("is it blue?"), says("yes"), user("and the sea?"), says("no")]


def words_that_count(encoded: Encoded, tokenizer) -> str:
    scored = encoded.scored or [True] * len(encoded.completion_ids)
    ids = [i for i, counts in zip(encoded.completion_ids, scored, strict=True) if counts]
    return tokenizer.decode(ids, skip_special_tokens=True)


def test_only_the_assistant_s_turns_count(spoken):
    tokenizer, end = spoken
    encoded = encode_completion(DIALOGUE[:1], DIALOGUE[1:], tokenizer)
    said = words_that_count(encoded, tokenizer)
    assert "".join(said.replace("<think>", "").replace("</think>", "").split()).replace("/", "") == "theskyyesno"
    ends = [i for i, counts in zip(encoded.completion_ids, encoded.scored, strict=True) if counts]
    own = tokenizer.convert_tokens_to_ids(end)
    assert ends.count(own) == (3 if own in tokenizer(end * 2, add_special_tokens=False)["input_ids"]
                               and end in tokenizer.apply_chat_template(DIALOGUE, tokenize=False) else 1)  # fmt: skip


def test_sides_that_part_at_the_user_s_turn_count_the_assistant_s_words_alone(spoken):
    tokenizer, _ = spoken
    if "loop.last" in tokenizer.chat_template:
        pytest.skip("this template takes the thought out of an answer once a question follows it")
    record = {
        "prompt": DIALOGUE[:2],
        "chosen": [user("is it blue?"), says("yes")],
        "rejected": [user("and the sea?"), says("no")],
    }
    chosen, rejected = encode_row(record, tokenizer)
    assert chosen.prompt_ids == rejected.prompt_ids
    assert words_that_count(chosen, tokenizer).split()[-1] == "yes"
    assert words_that_count(rejected, tokenizer).split()[-1] == "no"


def test_a_string_before_messages_is_the_user_s(spoken):
    tokenizer, _ = spoken
    assert encode_completion("the sky?", [says("blue")], tokenizer) == encode_completion(
        [user("the sky?")], [says("blue")], tokenizer
    )


def test_rendered_prompts_have_one_bos_and_one_warning(bare, caplog):
    tokenization._warned.clear()
    with caplog.at_level(logging.WARNING):
        rows = [encode_prompt(text, bare) for text in ("<s>the sky", "<s>the sea", "the sky")]
        text = encode_text("<s>the sky", bare)
    assert all(row.count(bare.bos_token_id) == 1 and row[0] == bare.bos_token_id for row in rows)
    assert text.prompt_ids == [bare.bos_token_id] and bare.bos_token_id not in text.completion_ids
    assert caplog.text.count("one of the two is left out") == 1


def test_the_plain_template_begins_with_the_tokenizer_s_bos_and_ends_without_a_blank(bare):
    tokenizer = copy.deepcopy(bare)
    tokenizer.chat_template = PLAIN_CHAT_TEMPLATE
    prompt = encode_prompt([user("what is it?")], tokenizer)
    assert prompt[0] == tokenizer.bos_token_id and prompt.count(tokenizer.bos_token_id) == 1
    encoded = encode_completion([user("what is it?")], [says("yes")], tokenizer)
    written = tokenizer.decode(encoded.prompt_ids + encoded.completion_ids, skip_special_tokens=True)
    as_one_text = tokenizer("<s>User: what is it?\n\nAssistant: yes", add_special_tokens=False)["input_ids"]
    assert written.strip() == tokenizer.decode(as_one_text, skip_special_tokens=True).strip()
    assert not tokenizer.decode(prompt[-1:]).endswith(" ")


def test_tools_reach_the_template_and_calls_without_words_are_read(bare):
    tokenizer = copy.deepcopy(bare)
    tokenizer.chat_template = (
        "{% if tools %}system: {{ tools[0].function.name }}\n{% endif %}"
        "{% for m in messages %}{{ m.role }}: {{ m.content }}"
        "{% for call in m.tool_calls or [] %}<call>{{ call.function.name }}</call>{% endfor %}</s>\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    call = {"type": "function", "function": {"name": "sky", "arguments": {}}}
    record = {
        "prompt": [user("what is it?")],
        "completion": [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "blue"}, says("yes")],
        "tools": [{"type": "function", "function": {"name": "sky"}}],
    }
    (row,) = load_records([record], "sft")
    assert row == record
    (encoded,) = encode_row(row, tokenizer)
    assert tokenizer.decode(encoded.prompt_ids).replace(" ", "").startswith("system:sky")
    said = words_that_count(encoded, tokenizer).replace(" ", "")
    assert said.index("sky") < said.index("yes") and "blue" not in said


def test_sft_on_a_dialogue_trains_on_the_last_answer_or_on_all_of_them(tokenizer):
    rows = [{"messages": [user("hi"), says("hello there."), user("sky?"), says("blue.")]}] * 2
    counts = {}
    for turns in ("last", "all"):
        records = load_records(rows, "sft", turns=turns)
        config = TrainingConfig(progress=False, batch_size=2)
        trainer = SFTTrainer(tiny_llama(len(tokenizer)), tokenizer, records, config)
        counts[turns] = trainer.train().rows[0]["num_tokens"] / 2
    said = [len(encode_completion([user("x")], [says(t)], tokenizer).completion_ids) for t in ("hello there.", "blue.")]
    assert counts == {"last": said[1], "all": sum(said)}


def some_rows():
    return [
        (Encoded([1, 2, 3], [4, 5, 6, 7, 8], [True, True, False, False, True]), Encoded([1, 2, 3], [4, 9, 5])),
        (Encoded([2, 3], [4, 5, 6], [True, False, True]), Encoded([2, 3], [4, 5, 7, 8], [True, False, False, True])),
    ]


def by_hand(model, row: Encoded) -> float:
    """The sum over the tokens that count, from a plain forward pass over one row."""
    ids = torch.tensor([row.prompt_ids + row.completion_ids])
    logps = model(ids).logits.float().log_softmax(-1)[0]
    start, counted = len(row.prompt_ids), row.scored or [True] * len(row.completion_ids)
    picked = [logps[start + j - 1, row.completion_ids[j]] for j in range(len(row.completion_ids)) if counted[j]]
    return sum(picked).item()


def test_words_that_do_not_count_are_in_no_score_whatever_the_layout():
    model, pairs = tiny_llama(20), some_rows()
    expected = [by_hand(model, row) for side in zip(*pairs, strict=True) for row in side]
    batch = collate_completions([row for side in zip(*pairs, strict=True) for row in side], 0)
    assert completion_logps(model, **batch)[0].sum(1).tolist() == pytest.approx(expected, abs=1e-4)
    shared = torch.cat(pair_logps(model, **collate_shared(pairs, 0)))
    assert shared.tolist() == pytest.approx(expected, abs=1e-4)


def test_lengths_and_counts_of_an_encoded_row():
    row = Encoded([1, 2], [3, 4, 5], [True, False, True])
    assert (row.length, row.scored_tokens, Encoded([1], [2, 3]).scored_tokens) == (5, 2, 2)
