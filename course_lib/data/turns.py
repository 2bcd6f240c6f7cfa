"""Chat messages as text: what a template writes, where each turn of it begins and ends, and what it ends with."""

from __future__ import annotations

import json
import re
import weakref
from typing import NamedTuple

from jinja2 import TemplateError

# The prompt ends without a blank: tokenizers join a blank to the word that follows, so it belongs to the answer.
PLAIN_CHAT_TEMPLATE = (
    "{% if bos_token %}{{ bos_token }}{% endif %}"
    "{% for message in messages %}"
    "{{ '\n\n' if not loop.first }}{{ message['role'] | capitalize + ': ' + message['content'] }}"
    "{% if message['tool_calls'] %}{{ message['tool_calls'] | tojson }}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}"
)


class TurnEnd(NamedTuple):
    """What a template writes around an assistant's words, found by trying it out."""

    lead: str  # blanks between the prompt and the first word of the answer
    tail: str  # all that follows the answer's last word at the end of a dialogue
    token: str | None  # the first special token in it, which ends the turn and is the model's to write
    token_id: int | None  # its id; None: turns end with EOS
    header: str = ""  # what is written before an answer that is asked for, behind the question


NOTHING = TurnEnd("", "", None, None)
_ends: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def is_messages(value) -> bool:
    return isinstance(value, list)


def render(prompt, tokenizer, *, tools: list | str | None = None, answer_next: bool = False) -> str:
    """The text of a prompt: a string as it is, messages by the chat template.

    Raises:
        ValueError: for messages, if the tokenizer has no chat template, or if it refuses them.
    """
    if isinstance(prompt, str):
        return prompt
    if tokenizer.chat_template is None:
        raise ValueError(
            "this tokenizer has no chat template, so chat messages cannot be written as text; load it with "
            "course_lib.load_policy, which sets a plain one, or give prompts and completions as strings"
        )
    messages = [{**message, "content": message.get("content") or ""} for message in prompt]
    options = {"tools": json.loads(tools) if isinstance(tools, str) else tools} if tools else {}
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer_next, **options)
    except TemplateError as error:
        raise ValueError(
            f"the chat template refuses these messages: {error}. Write them as it wants them: where it knows no "
            "system role, for one, the system's words go before the first question"
        ) from error


def turn_end(tokenizer) -> TurnEnd:
    """How the tokenizer's chat template ends an assistant's turn, tried out once and remembered."""
    template = tokenizer.chat_template
    remembered = _ends.get(tokenizer)
    if remembered is None or remembered[0] != template:
        _ends[tokenizer] = remembered = (template, NOTHING if template is None else _try_out(tokenizer))
    return remembered[1]


def _try_out(tokenizer) -> TurnEnd:
    question, answer = [{"role": "user", "content": "ask"}], "reply"
    try:
        asked, before = render(question, tokenizer), render(question, tokenizer, answer_next=True)
        whole = render([*question, {"role": "assistant", "content": answer}], tokenizer)
    except Exception:  # templates raise what they like; what is wrong will be named with the row it is wrong for
        return NOTHING
    at = whole.rfind(answer)
    if at < 0:
        return NOTHING
    between, tail = whole[len(before) : at] if whole.startswith(before) else "", whole[at + len(answer) :]
    lead = between if between.isspace() else ""
    header = before.removeprefix(asked) if before.startswith(asked) else ""
    marks = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    for token_id in tokenizer(tail, add_special_tokens=False)["input_ids"]:
        token = tokenizer.convert_ids_to_tokens(token_id)
        if token in tail and token_id in marks:
            return TurnEnd(lead, tail, token, token_id, header)
    return TurnEnd(lead, tail, None, None, header)


def turn_spans(prompt: list, completions: list, tokenizer, tools: list | None) -> tuple[str, list[list]]:
    """The prompt's text, and each completion as growing texts, each with whether the assistant wrote what it adds.

    Raises:
        ValueError: if the template writes the prompt differently once an answer follows it.
    """
    completions = [[{"role": "assistant", "content": c}] if isinstance(c, str) else c for c in completions]
    answer_next = all(completion[0]["role"] == "assistant" for completion in completions)
    before = render(prompt, tokenizer, tools=tools, answer_next=answer_next)
    return before, [_growing(before, answer_next, prompt, c, tokenizer, tools) for c in completions]


def _growing(before: str, answer_next: bool, prompt: list, completion: list, tokenizer, tools) -> list:
    """Texts that grow from the prompt to the whole, each with whether the assistant says what it adds."""
    whole = _up_to_the_end(render([*prompt, *completion], tokenizer, tools=tools), tokenizer)
    if not whole.startswith(before):
        raise ValueError(
            "the chat template writes the prompt differently once an answer follows it, so the border "
            "between them is unknown; use a template whose rendering only grows"
        )
    answers = sum(message["role"] == "assistant" for message in completion)
    spans = _marked(whole, len(before), answers, answer_next, tokenizer)
    spans = spans or _searched(whole, len(before), prompt, completion, answer_next, tokenizer, tools)
    pieces, place = [], len(before)
    for start, end in spans:
        pieces += [(whole[:start], False)] * (start > place) + [(whole[:end], True)]
        place = end
    return pieces


def _marked(whole: str, place: int, answers: int, answer_next: bool, tokenizer) -> list[tuple[int, int]]:
    """Where so many answers begin and end, by the marks that a template writes around each; empty if it has none."""
    end = turn_end(tokenizer)
    if not end.header or not end.token:
        return []
    starts = [place] * answer_next + [m.end() for m in re.compile(re.escape(end.header)).finditer(whole, place)]
    if not starts or len(starts) != answers:
        return []
    spans = [(a, _behind_its_end(whole, a, tokenizer)) for a in starts[:-1]] + [(starts[-1], len(whole))]
    orderly = all(a < b <= c for (a, b), c in zip(spans, [*starts[1:], len(whole)], strict=True))
    return spans if orderly else []


def _searched(
    whole: str, place: int, prompt: list, completion: list, answer_next: bool, tokenizer, tools
) -> list[tuple[int, int]]:
    """Where the answers begin and end, by their words: for templates that write no marks, or marks that words hold."""
    spans = []
    for i, message in enumerate(completion):
        start = place
        if message["role"] == "assistant" and (i or not answer_next):
            header = render([*prompt, *completion[:i]], tokenizer, tools=tools, answer_next=True)
            start = max(place, len(header)) if whole.startswith(header) else _find(whole, message, place)
        place = _find(whole, message, start) + len(_words(message))
        if message["role"] == "assistant":
            place = len(whole) if i == len(completion) - 1 else _behind_its_end(whole, place, tokenizer)
            spans.append((start, place))
    return spans


def _words(message: dict) -> str:
    return (message.get("content") or "").strip()


def _find(whole: str, message: dict, place: int) -> int:
    """Where a message's words begin; if the template has changed them, the place to go on from."""
    return max(place, whole.find(_words(message), place))


def _behind_its_end(whole: str, place: int, tokenizer) -> int:
    token = turn_end(tokenizer).token
    at = whole.find(token, place) if token else -1
    return at + len(token) if at >= 0 else place


def _up_to_the_end(text: str, tokenizer) -> str:
    """The text without what a template writes behind a turn's end: that is the next turn's, not the model's."""
    end = turn_end(tokenizer)
    words, token, behind = text.rpartition(end.token) if end.token else ("", "", "")
    if token and (not behind.strip() or text.endswith(end.tail)):
        return words + token
    blanks = len(end.tail) - len(end.tail.rstrip())
    return text[: len(text) - blanks] if not end.token and blanks and text.endswith(end.tail) else text
