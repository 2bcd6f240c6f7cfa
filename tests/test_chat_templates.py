"""Chat templates laid out as models publish them: what is prompt, what counts, and where a turn ends, token for token.

Each family stands here twice: as a Jinja template, and as a Python function that writes the same text in pieces and
says which of them are the assistant's. The second is what the tokens are held against.
"""

import copy
import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from course_lib.data import RecordError, encode_completion, encode_prompt, encode_row, load_records, validate_records

# fmt: off
LLAMA_3 = """
{{- bos_token }}{% set ns = namespace(start=0, system='') %}
{%- if messages[0].role == 'system' %}{% set ns.system = messages[0].content | trim %}{% set ns.start = 1 %}{% endif %}
{{- '<|start_header_id|>system<|end_header_id|>\n\n' }}{% if tools %}{{ 'Environment: ipython\n' }}{% endif %}
{{- 'Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n' + ns.system + '<|eot_id|>' }}
{%- for m in messages[ns.start:] %}
    {%- if m.role == 'tool' %}
        {{- '<|start_header_id|>ipython<|end_header_id|>\n\n' + m.content | tojson + '<|eot_id|>' }}
    {%- else %}
        {{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' }}
        {%- for tool in tools or [] if loop.first %}{{ tool | tojson(indent=4) + '\n\n' }}{% endfor %}
        {%- if m.tool_calls %}
            {%- set call = m.tool_calls[0].function %}
            {{- '{"name": "' + call.name + '", "parameters": ' + call.arguments | tojson + '}' }}
        {%- else %}{{ m.content | trim }}{% endif %}
        {{- '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"""

QWEN_CALLS = """
{%- macro calls(m, content) %}
    {%- for call in m.tool_calls or [] %}
        {{- ('\n' if content or not loop.first else '') + '<tool_call>\n{"name": "' + call.function.name }}
        {{- '", "arguments": ' + call.function.arguments | tojson + '}\n</tool_call>' }}
    {%- endfor %}
{%- endmacro %}
{%- macro listed() %}
    {{- '# Tools\n\n<tools>' }}{% for tool in tools %}{{ '\n' + tool | tojson }}{% endfor %}{{ '\n</tools>' }}
{%- endmacro %}"""
QWEN_TOOL = """
    {%- if m.role == 'tool' %}
        {%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}
        {{- '\n<tool_response>\n' + m.content + '\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\n' }}{% endif %}"""
QWEN_2_5 = QWEN_CALLS + """
{%- set said = messages[0].content if messages[0].role == 'system' else 'You are a helpful assistant.' %}
{{- '<|im_start|>system\n' + said }}{% if tools %}{{ '\n\n' + listed() }}{% endif %}{{ '<|im_end|>\n' }}
{%- for m in messages %}""" + QWEN_TOOL + """
    {%- elif not (m.role == 'system' and loop.first) %}
        {{- '<|im_start|>' + m.role + '\n' + m.content + calls(m, m.content) + '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""
QWEN_3 = QWEN_CALLS + """
{%- set given = messages[0].content if messages[0].role == 'system' else '' %}
{%- if tools %}{{ '<|im_start|>system\n' + (given + '\n\n' if given else '') + listed() + '<|im_end|>\n' }}
{%- elif messages[0].role == 'system' %}{{ '<|im_start|>system\n' + given + '<|im_end|>\n' }}{% endif %}
{%- set ns = namespace(last=-1) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}""" + QWEN_TOOL + """
    {%- elif m.role == 'assistant' %}
        {%- set content = m.content.split('</think>')[-1].lstrip('\n') if '</think>' in m.content else m.content %}
        {%- set thought = m.content.split('</think>')[0].split('<think>')[-1].strip('\n')
                          if '</think>' in m.content else '' %}
        {{- '<|im_start|>assistant\n' }}
        {%- if loop.index0 > ns.last and (loop.last or thought) %}
            {{- '<think>\n' + thought + '\n</think>\n\n' + content.lstrip('\n') }}
        {%- else %}{{ content }}{% endif %}
        {{- calls(m, content) + '<|im_end|>\n' }}
    {%- elif not (m.role == 'system' and loop.first) %}
        {{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}
{%- endif %}"""

GEMMA_TURNS = """
{%- for m in messages[ns.start:] %}
    {%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {{- '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' }}
    {{- (ns.first if loop.first else '') + m.content | trim + '<end_of_turn>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""
GEMMA_2 = """{{- bos_token }}{% set ns = namespace(start=0, first='') %}
{%- if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}""" + GEMMA_TURNS
GEMMA_3 = """{{- bos_token }}{% set ns = namespace(start=0, first='') %}
{%- if messages[0].role == 'system' %}
    {%- set ns.start = 1 %}{% set ns.first = messages[0].content + '\n\n' %}
{%- endif %}""" + GEMMA_TURNS
ZEPHYR = """
{%- for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}
{%- if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}"""
# fmt: on


def as_json(value) -> str:
    return json.dumps(value, ensure_ascii=False)


def llama_3(messages, tools):
    system = ""
    if messages[0]["role"] == "system":
        system, messages = messages[0]["content"].strip(), messages[1:]
    start = "Environment: ipython\n" if tools else ""
    date = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
    yield f"<s><|start_header_id|>system<|end_header_id|>\n\n{start}{date}{system}<|eot_id|>", False
    for i, m in enumerate(messages):
        role = "ipython" if m["role"] == "tool" else m["role"]
        yield f"<|start_header_id|>{role}<|end_header_id|>\n\n", False
        words = as_json(m["content"]) if role == "ipython" else m.get("content", "").strip()
        for call in m.get("tool_calls", []):
            function = call["function"]
            words = f'{{"name": "{function["name"]}", "parameters": {as_json(function["arguments"])}}}'
        if i == 0:
            words = "".join(json.dumps(tool, indent=4, ensure_ascii=False) + "\n\n" for tool in tools) + words
        yield words + "<|eot_id|>", role == "assistant"


def qwen_calls(m, content):
    found = []
    for call in m.get("tool_calls", []):
        name, arguments = call["function"]["name"], as_json(call["function"]["arguments"])
        found.append(f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>')
    return ("\n" if found and content else "") + "\n".join(found)


def qwen_tools(tools):
    return "# Tools\n\n<tools>" + "".join("\n" + as_json(tool) for tool in tools) + "\n</tools>"


def qwen(messages, tools, says):
    for i, m in enumerate(messages):
        if m["role"] == "tool":
            first = i == 0 or messages[i - 1]["role"] != "tool"
            last = i == len(messages) - 1 or messages[i + 1]["role"] != "tool"
            yield "<|im_start|>user" * first + f"\n<tool_response>\n{m['content']}\n</tool_response>", False
            yield "<|im_end|>\n" * last, False
        elif not (m["role"] == "system" and i == 0):
            yield f"<|im_start|>{m['role']}\n", False
            yield says(i, m) + "<|im_end|>", m["role"] == "assistant"
            yield "\n", False


def qwen_2_5(messages, tools):
    system = messages[0]["content"] if messages[0]["role"] == "system" else "You are a helpful assistant."
    yield f"<|im_start|>system\n{system}{(chr(10) * 2 + qwen_tools(tools)) if tools else ''}<|im_end|>\n", False
    yield from qwen(messages, tools, lambda i, m: m.get("content", "") + qwen_calls(m, m.get("content", "")))


def qwen_3(messages, tools):
    system = [messages[0]["content"]] if messages[0]["role"] == "system" else []
    parts = [part for part in system if part or not tools] + ([qwen_tools(tools)] if tools else [])
    if parts:
        yield f"<|im_start|>system\n{(chr(10) * 2).join(parts)}<|im_end|>\n", False
    last = max([i for i, m in enumerate(messages) if m["role"] == "user"], default=-1)

    def says(i, m):
        content = m.get("content", "")
        if m["role"] != "assistant":
            return content
        thought, mark, answer = content.rpartition("</think>")
        content = answer.lstrip("\n") if mark else content
        thought = content_of_thought(thought + mark)
        if i > last and (i == len(messages) - 1 or thought):
            return f"<think>\n{thought}\n</think>\n\n" + content.lstrip("\n") + qwen_calls(m, content)
        return content + qwen_calls(m, content)

    yield from qwen(messages, tools, says)


def content_of_thought(text):
    return text.split("</think>")[0].split("<think>")[-1].strip("\n") if text else ""


def gemma(messages, tools):
    yield "<s>", False
    system = ""
    if messages[0]["role"] == "system":
        system, messages = messages[0]["content"] + "\n\n", messages[1:]
    for i, m in enumerate(messages):
        yield f"<start_of_turn>{'model' if m['role'] == 'assistant' else m['role']}\n", False
        yield system * (i == 0) + m["content"].strip() + "<end_of_turn>", m["role"] == "assistant"
        yield "\n", False


def zephyr(messages, tools):
    for m in messages:
        yield f"<|{m['role']}|>\n", False
        yield m["content"] + "</s>", m["role"] == "assistant"
        yield "\n", False


FAMILIES = {  # the template, who writes the same, and whether it knows the roles system and tool
    "llama-3": (LLAMA_3, llama_3, True, True),
    "qwen-2.5": (QWEN_2_5, qwen_2_5, True, True),
    "qwen-3": (QWEN_3, qwen_3, True, True),
    "gemma-2": (GEMMA_2, gemma, False, False),
    "gemma-3": (GEMMA_3, gemma, True, False),
    "zephyr": (ZEPHYR, zephyr, True, False),
}
MARKS = [
    "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<start_of_turn>",
    "<end_of_turn>",
]  # fmt: skip
TEXT = ["user assistant system model tool: what is the sky? It is blue.", "\n\n<think>\nno\n</think>\n\n yes a b i"] * 9


@pytest.fixture(scope="module")
def bare():
    """A byte-level tokenizer, which gives back every text, and puts BOS before texts as those of Llama and Gemma do."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=360, initial_alphabet=alphabet))
    core.add_special_tokens([AddedToken(mark, special=True) for mark in ("<s>", "</s>", *MARKS)])
    core.add_tokens([AddedToken(mark, special=False) for mark in ("<think>", "</think>", "<tool_call>")])  # as Qwen3's
    core.post_processor = TemplateProcessing("<s> $A", special_tokens=[("<s>", core.token_to_id("<s>"))])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="</s>")


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, bare):
    """(tokenizer, who writes the same, knows system, knows tools)"""
    template, writes, *known = FAMILIES[request.param]
    tokenizer = copy.deepcopy(bare)
    tokenizer.chat_template = template
    return tokenizer, writes, *known


def user(text):
    return {"role": "user", "content": text}


def says(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


def expected(writes, prompt, completion, tools=()) -> tuple[str, list[tuple[str, bool]]]:
    """The prompt's text and the pieces of the completion, up to the end of the assistant's last turn."""
    pieces = list(writes([*prompt, *completion], list(tools)))
    ours = [i for i, (_, assistant) in enumerate(pieces) if assistant]
    before = sum(m["role"] == "assistant" for m in prompt)
    first, last = ours[before], ours[-1]
    return "".join(text for text, _ in pieces[:first]), pieces[first : last + 1]


def hold(tokenizer, writes, prompt, completion, tools=()) -> None:
    """The row's tokens against what the family's layout says of its text."""
    record = {"prompt": prompt, "completion": completion} | ({"tools": list(tools)} if tools else {})
    (row,) = encode_row(record, tokenizer)
    text, pieces = expected(writes, prompt, completion, tools)
    rendered = tokenizer.apply_chat_template([{"content": ""} | m for m in [*prompt, *completion]], tokenize=False,
                                             tools=list(tools) or None)  # fmt: skip
    whole = text + "".join(piece for piece, _ in pieces)
    assert rendered.startswith(whole) and rendered[len(whole) :].strip() == ""  # both writers agree
    ids = row.prompt_ids + row.completion_ids
    assert tokenizer.decode(row.prompt_ids) == text and tokenizer.decode(ids) == whole
    assert row.prompt_ids == encode_prompt(prompt, tokenizer, tools=list(tools) or None)
    scored = row.scored or [True] * len(row.completion_ids)
    runs, before = [], False
    for token, counts in zip(row.completion_ids, scored, strict=True):
        if counts and not before:
            runs.append([])
        if counts:
            runs[-1].append(token)
        before = counts
    assert [tokenizer.decode(run) for run in runs] == [piece for piece, assistant in pieces if assistant]
    assert ids.count(tokenizer.bos_token_id) == whole.count("<s>") <= 1
    in_one = tokenizer(whole, add_special_tokens=False)["input_ids"]
    if in_one[: len(row.prompt_ids)] == row.prompt_ids:  # no token of the whole spans the border
        assert ids == in_one or any(not counts for counts in scored)


DIALOGUE = [user("what is it?"), says("the sky"), user("is it blue?"), says("yes"), user("and now?"), says("no")]


def test_one_turn_is_split_where_the_answer_begins(family):
    hold(*family[:2], DIALOGUE[:1], DIALOGUE[1:2])


def test_of_many_turns_the_last_answer_counts(family):
    hold(*family[:2], DIALOGUE[:5], DIALOGUE[5:])


def test_of_many_turns_every_answer_counts(family):
    (record,) = load_records([{"messages": DIALOGUE}], "sft", turns="all")
    hold(*family[:2], record["prompt"], record["completion"])


def test_a_system_message_is_the_prompt_s_or_refused(family):
    tokenizer, writes, knows_system, _ = family
    prompt = [system("be brief"), *DIALOGUE[:1]]
    if knows_system:
        hold(tokenizer, writes, prompt, DIALOGUE[1:2])
        hold(tokenizer, writes, prompt, DIALOGUE[1:])


WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
CALLS = {"role": "assistant", "content": "", "tool_calls": [CALL]}
COLD = {"role": "tool", "name": "weather", "content": "-4 degrees"}


def test_tool_calls_count_and_what_tools_say_does_not(family):
    tokenizer, writes, _, knows_tools = family
    if not knows_tools:
        pytest.skip("the family's template knows no tools")
    hold(tokenizer, writes, [user("cold?")], [CALLS], [WEATHER])
    hold(tokenizer, writes, [user("cold?"), CALLS, COLD], [says("yes")], [WEATHER])
    hold(tokenizer, writes, [system("be brief"), user("cold?")], [CALLS, COLD, says("yes")], [WEATHER])
    turns = [CALLS, COLD, says("yes"), user("sure?"), CALLS, COLD, says("no")]
    hold(tokenizer, writes, [user("cold?")], turns, [WEATHER])


CHARACTERS = st.sampled_from("ai \n?.<>|/_é") | st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"])
OFTEN = st.sampled_from(["assistant", "model", "user\n", " i", "sky is", "<think>", "\n\nno"])
WORDS = (st.text(CHARACTERS, max_size=12) | OFTEN).filter(str.strip)
TURNS = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4)


@given(turns=TURNS, begin=WORDS | st.none(), from_first=st.booleans())
@example(turns=[("a", "assistant"), ("assistant", "i"), ("i", "a")], begin="a", from_first=True)
@example(turns=[("x", "\nno"), ("y", " yes ")], begin=None, from_first=True)
@settings(max_examples=60, deadline=None)
def test_any_dialogue_is_split_and_counted_as_its_layout_says(family, turns, begin, from_first):
    tokenizer, writes, knows_system, _ = family
    dialogue = [message for asked, said in turns for message in (user(asked), says(said))]
    if begin and knows_system:
        dialogue = [system(begin), *dialogue]
    first = next(i for i, m in enumerate(dialogue) if m["role"] == "assistant") if from_first else len(dialogue) - 1
    hold(tokenizer, writes, dialogue[:first], dialogue[first:])


def thinks(thought, text):
    return says(f"<think>\n{thought}\n</think>\n\n{text}")


def speaker(bare, name):
    tokenizer = copy.deepcopy(bare)
    tokenizer.chat_template = FAMILIES[name][0]
    return tokenizer


THOUGHTFUL = [user("what?"), thinks("hm", "i"), user("sure?"), thinks("well", "a"), user("so?"), thinks("ah", "no")]


def test_qwen_3_keeps_the_last_answer_s_thought_and_strips_those_before(bare):
    tokenizer, writes = speaker(bare, "qwen-3"), FAMILIES["qwen-3"][1]
    hold(tokenizer, writes, THOUGHTFUL[:1], THOUGHTFUL[1:2])
    hold(tokenizer, writes, THOUGHTFUL[:5], THOUGHTFUL[5:])
    row = encode_completion(THOUGHTFUL[:5], THOUGHTFUL[5:], tokenizer)
    assert tokenizer.decode(row.completion_ids) == "<think>\nah\n</think>\n\nno<|im_end|>"
    assert "<think>" not in tokenizer.decode(row.prompt_ids)


def test_qwen_3_counts_every_answer_without_the_thoughts_that_its_template_strips(bare):
    tokenizer, writes = speaker(bare, "qwen-3"), FAMILIES["qwen-3"][1]
    hold(tokenizer, writes, THOUGHTFUL[:1], THOUGHTFUL[1:])


def test_qwen_3_answers_without_a_thought_have_an_empty_one_at_the_end_alone(bare):
    tokenizer = speaker(bare, "qwen-3")
    row = encode_completion(DIALOGUE[:1], DIALOGUE[1:], tokenizer)
    said = [i for i, counts in zip(row.completion_ids, row.scored, strict=True) if counts]
    assert tokenizer.decode(said) == "the sky<|im_end|>yes<|im_end|><think>\n\n</think>\n\nno<|im_end|>"


def test_qwen_3_keeps_thoughts_between_tool_calls_of_one_answer_and_strips_those_of_earlier_ones(bare):
    tokenizer, writes = speaker(bare, "qwen-3"), FAMILIES["qwen-3"][1]
    call = thinks("ask", "") | {"tool_calls": [CALL]}
    one = [call, COLD, thinks("cold", "yes")]
    hold(tokenizer, writes, [user("cold?")], one, [WEATHER])
    hold(tokenizer, writes, [user("cold?")], [*one, user("sure?"), *one], [WEATHER])


@given(turns=st.lists(st.tuples(WORDS, WORDS, WORDS | st.none(), st.booleans()), min_size=1, max_size=3))
@example(turns=[("x", "a", "t", False), ("assistant", "i", "u", True), ("y", "a", "v", True)])
@settings(max_examples=100, deadline=None)
def test_any_thoughts_and_calls_of_qwen_3_are_counted_as_its_layout_says(bare, turns):
    tokenizer, writes = speaker(bare, "qwen-3"), FAMILIES["qwen-3"][1]
    dialogue = []
    for asked, said, thought, calls in turns:
        answer = says(said) if thought is None or "think>" in thought + said else thinks(thought, said)
        dialogue += [user(asked), *([answer | {"tool_calls": [CALL]}, COLD] if calls else []), answer]
    hold(tokenizer, writes, dialogue[:1], dialogue[1:], [WEATHER])
    hold(tokenizer, writes, dialogue[:-1], dialogue[-1:], [WEATHER])


def test_gemma_2_refuses_a_system_message_in_one_clear_error(bare):
    tokenizer = speaker(bare, "gemma-2")
    prompt = [system("be brief"), user("hi")]
    with pytest.raises(ValueError, match="chat template.*System role not supported"):
        encode_prompt(prompt, tokenizer)
    with pytest.raises(RecordError, match="row 0: cannot be tokenised .*System role not supported"):
        validate_records([{"prompt": prompt, "completion": [says("yes")]}], "sft", tokenizer=tokenizer)


def test_gemma_3_puts_the_system_message_before_the_first_question(bare):
    tokenizer = speaker(bare, "gemma-3")
    ids = encode_prompt([system("be brief"), user("hi")], tokenizer)
    assert tokenizer.decode(ids) == "<s><start_of_turn>user\nbe brief\n\nhi<end_of_turn>\n<start_of_turn>model\n"


def test_turns_that_a_template_refuses_are_named_with_its_reason(bare):
    tokenizer = speaker(bare, "gemma-3")
    with pytest.raises(ValueError, match="Conversation roles must alternate"):
        encode_completion([user("hi"), user("there")], [says("yes")], tokenizer)
