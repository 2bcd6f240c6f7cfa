"""Text to token ids, over the published forms of chat templates and the kinds of tokenizers."""

import logging

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from course_lib.data import PLAIN_CHAT_TEMPLATE, encode_completion, encode_prompt, encode_row, encode_text, turn_end_ids

BOS, EOS = "<s>", "</s>"
GENERATE = "{% if add_generation_prompt %}"
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    + GENERATE + "{{ '<|im_start|>assistant\n' }}{% endif %}"
)  # fmt: skip
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' "
    "+ m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    + GENERATE + "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)  # fmt: skip
GEMMA = (
    "{{ bos_token }}{% for m in messages %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    + GENERATE + "{{ '<start_of_turn>model\n' }}{% endif %}"
)  # fmt: skip
ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token + '\n' }}{% endfor %}"
    + GENERATE + "{{ '<|assistant|>\n' }}{% endif %}"
)  # fmt: skip
LLAMA2 = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}{{ ' ' + m['content'] | trim + ' ' + eos_token }}"
    "{% else %}{{ bos_token + '[INST] ' + m['content'] | trim + ' [/INST]' }}{% endif %}{% endfor %}"
)
PHI = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    + GENERATE + "{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)  # fmt: skip
QWEN3 = (  # an empty thought stands in the answers behind the last question, and in no earlier ones
    "{% set ns = namespace(last=0) %}{% for m in messages %}{% if m['role'] == 'user' %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' and loop.index0 > ns.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{{ m['content'] + '<|im_end|>\n' }}{% endfor %}" + GENERATE + "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
BARE = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    + GENERATE + "{{ 'assistant:' }}{% endif %}"
)  # fmt: skip
ENDS = {
    "chatml": (CHATML, "<|im_end|>"), "llama-3": (LLAMA3, "<|eot_id|>"), "gemma": (GEMMA, "<end_of_turn>"),
    "zephyr": (ZEPHYR, EOS), "llama-2": (LLAMA2, EOS), "phi": (PHI, "<|end|>"), "qwen-3": (QWEN3, "<|im_end|>"),
    "bare": (BARE, EOS), "plain": (PLAIN_CHAT_TEMPLATE, EOS),
}  # fmt: skip
SPECIAL = [
    BOS, EOS, "<unk>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>",
    "<start_of_turn>", "<end_of_turn>", "<|end|>", "<|user|>", "<|assistant|>",
]  # fmt: skip
TEXT = [
    "user assistant system model what is it ? yes no blue green",
    "<think> </think>\n\nUser: what\n\nAssistant: yes",
] * 9
USER = [{"role": "user", "content": "what is it?"}]
TURNS = [
    {"role": "assistant", "content": "yes blue"},
    {"role": "user", "content": "no green?"},
    {"role": "assistant", "content": "what yes"},
]


def make_tokenizer(kind: str, template: str | None = None) -> PreTrainedTokenizerFast:
    if kind == "byte-level":
        core, trainer = Tokenizer(models.BPE()), trainers.BpeTrainer
        core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    elif kind == "metaspace":
        core, trainer = Tokenizer(models.BPE(unk_token="<unk>")), trainers.BpeTrainer
        core.pre_tokenizer, core.decoder = pre_tokenizers.Metaspace(prepend_scheme="first"), decoders.Metaspace()
    else:
        core, trainer = Tokenizer(models.WordPiece(unk_token="<unk>")), trainers.WordPieceTrainer
        core.pre_tokenizer, core.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    alphabet = {"initial_alphabet": pre_tokenizers.ByteLevel.alphabet()} if kind == "byte-level" else {}
    core.train_from_iterator(TEXT, trainer(vocab_size=500, special_tokens=SPECIAL, **alphabet))
    core.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, bos_token=BOS, eos_token=EOS, unk_token="<unk>")
    tokenizer.chat_template = template
    return tokenizer


KINDS = ("byte-level", "metaspace", "wordpiece")


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.mark.parametrize("name", ENDS)
def test_a_completion_ends_where_the_templates_turn_ends(kind, name):
    template, end = ENDS[name]
    tokenizer = make_tokenizer(kind, template)
    ids = encode_completion(USER, "yes", tokenizer).completion_ids
    assert tokenizer.convert_ids_to_tokens(ids)[-1] == end
    assert sum(i in turn_end_ids(tokenizer) for i in ids) == 1
    assert tokenizer.convert_tokens_to_ids([end, EOS])[0] in turn_end_ids(tokenizer)
    assert tokenizer.decode(ids, skip_special_tokens=True).split()[-1] == "yes"


@pytest.mark.parametrize("name", ENDS)
def test_only_the_assistants_turns_are_scored(kind, name):
    template, end = ENDS[name]
    tokenizer = make_tokenizer(kind, template)
    row = encode_completion(USER, TURNS, tokenizer)
    assert len(row.scored) == len(row.completion_ids)
    counted = [i for i, scored in zip(row.completion_ids, row.scored, strict=True) if scored]
    text = tokenizer.decode(counted, skip_special_tokens=True).replace("<think>\n\n</think>\n\n", " ")
    words = [w for w in text.split() if w.isalpha() and w != "think"]
    assert " ".join(words) in ("yes blue what yes", "yes bluewhat yes")
    ends = 1 if name == "bare" else 2  # the bare template ends no turn; EOS stands behind the last
    assert counted.count(tokenizer.convert_tokens_to_ids(end)) == ends
    assert row.scored_tokens == len(counted) < row.length


def test_an_end_of_turn_written_by_hand_stands_there_once(kind):
    tokenizer = make_tokenizer(kind, ZEPHYR)
    assert encode_completion(USER, "yes" + EOS, tokenizer) == encode_completion(USER, "yes", tokenizer)
    assert encode_completion("what", " yes" + EOS + EOS, tokenizer) == encode_completion("what", " yes", tokenizer)


def test_a_single_turn_and_strings_are_scored_whole(kind):
    tokenizer = make_tokenizer(kind, CHATML)
    for row in (encode_completion(USER, TURNS[:1], tokenizer), encode_completion("what", " yes", tokenizer)):
        assert row.scored is None and row.scored_tokens == len(row.completion_ids)


def test_one_bos_and_one_warning(kind, caplog):
    tokenizer = make_tokenizer(kind)
    tokenizer.name_or_path = kind
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert encode_prompt(BOS + "what is", tokenizer).count(tokenizer.bos_token_id) == 1
            assert encode_text(BOS + "what is", tokenizer).prompt_ids == [tokenizer.bos_token_id]
    assert len(caplog.records) == 1
    assert encode_completion("what", " yes", tokenizer).prompt_ids.count(tokenizer.bos_token_id) == 1


@pytest.mark.parametrize("name", ["llama-3", "gemma", "llama-2", "plain"])
def test_a_template_that_writes_bos_gets_no_second(kind, name):
    tokenizer = make_tokenizer(kind, ENDS[name][0])
    ids = encode_prompt(USER, tokenizer)
    assert ids[0] == tokenizer.bos_token_id and ids.count(ids[0]) == 1


def test_the_plain_template_leaves_the_blank_to_the_answer(kind):
    tokenizer = make_tokenizer(kind, PLAIN_CHAT_TEMPLATE)
    row = encode_completion(USER, "yes", tokenizer)
    first = tokenizer.convert_ids_to_tokens(row.completion_ids)[0]
    assert first == {"byte-level": "Ġyes", "metaspace": "▁yes", "wordpiece": "yes"}[kind]
    assert tokenizer.convert_ids_to_tokens(row.prompt_ids)[-1].endswith(":")


def test_a_string_before_messages_is_the_users_message(kind):
    tokenizer = make_tokenizer(kind, CHATML)
    assert encode_completion("what is it?", TURNS[:1], tokenizer) == encode_completion(USER, TURNS[:1], tokenizer)


def test_tools_reach_the_template_and_calls_without_content_render():
    template = "{% if tools %}{{ tools[0]['name'] }}{% endif %}" + CHATML
    tokenizer = make_tokenizer("byte-level", template)
    call = [{"role": "assistant", "content": None, "tool_calls": [{"name": "green"}]}]
    for tools in ([{"name": "blue"}], '[{"name": "blue"}]'):
        (row,) = encode_row({"prompt": USER, "completion": call, "tools": tools}, tokenizer)
        assert tokenizer.decode(row.prompt_ids).startswith("blue")
        assert tokenizer.convert_ids_to_tokens(row.completion_ids) == ["<|im_end|>"]


def test_a_row_of_unknown_shape_is_named(tokenizer):
    with pytest.raises(ValueError, match="'instruction'.*needs 'prompt'"):
        encode_row({"instruction": "a", "output": "b"}, tokenizer)
