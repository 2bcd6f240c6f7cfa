"""Chat messages as text: what a template writes, where each turn of it begins and ends, and what it ends with."""

from __future__ import annotations

import weakref
from typing import NamedTuple

PLAIN_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '\n\n' if not loop.first }}{{ message['role'] | capitalize + ': ' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}"
)  # no blank at the end: it belongs to the first word of the answer, as tokenizers have it


class TurnEnd(NamedTuple):
    """What a template writes around an assistant's words, found by trying it out."""

    lead: str  # blanks between the prompt and the first word of the answer
    tail: str  # all that follows the answer's last word at the end of a dialogue
    token: str | None  # the first special token in it, which ends the turn and is the model's to write
    token_id: int | None  # its id; None: turns end with EOS


NOTHING = TurnEnd("", "", None, None)
_ends: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def is_messages(value) -> bool:
    return isinstance(value, list)


def plain_template(begin: str) -> str:
    """A chat template for tokenizers without one; `begin` is what every text of theirs begins with."""
    return "{{ " + repr(begin) + " }}" + PLAIN_CHAT_TEMPLATE if begin else PLAIN_CHAT_TEMPLATE


def render(prompt, tokenizer, *, tools: list | None = None, answer_next: bool = False) -> str:
    """The text of a prompt: a string as it is, messages by the chat template.

    Raises:
        ValueError: for messages, if the tokenizer has no chat template.
    """
    if isinstance(prompt, str):
        return prompt
    if tokenizer.chat_template is None:
        raise ValueError(
            "this tokenizer has no chat template, so chat messages cannot be written as text; load it with "
            "course_lib.load_policy, which sets a plain one, or give prompts and completions as strings"
        )
    messages = [{**message, "content": message.get("content") or ""} for message in prompt]
    options = {} if tools is None else {"tools": tools}
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=answer_next, **options)


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
        before = render(question, tokenizer, answer_next=True)
        whole = render([*question, {"role": "assistant", "content": answer}], tokenizer)
    except Exception:  # templates raise what they like; what is wrong will be named with the row it is wrong for
        return NOTHING
    at = whole.rfind(answer)
    if at < 0:
        return NOTHING
    between, tail = whole[len(before) : at] if whole.startswith(before) else "", whole[at + len(answer) :]
    lead = between if between.isspace() else ""
    for token_id in tokenizer(tail, add_special_tokens=False)["input_ids"]:
        token = tokenizer.convert_ids_to_tokens(token_id)
        if token in tail and _is_special(tokenizer, token_id):
            return TurnEnd(lead, tail, token, token_id)
    return TurnEnd(lead, tail, None, None)


def _is_special(tokenizer, token_id: int) -> bool:
    added = tokenizer.added_tokens_decoder.get(token_id)
    return token_id in tokenizer.all_special_ids or (added is not None and added.special)


def turn_spans(prompt: list, completions: list, tokenizer, tools: list | None) -> tuple[str, list[list]]:
    """The prompt's text, and each completion as growing texts, each with whether the assistant wrote what it adds.

    Raises:
        ValueError: if the template writes what came before differently once more follows it.
    """
    completions = [[{"role": "assistant", "content": c}] if isinstance(c, str) else c for c in completions]
    answer_next = all(completion[0]["role"] == "assistant" for completion in completions)
    before = render(prompt, tokenizer, tools=tools, answer_next=answer_next)
    return before, [_growing(before, answer_next, prompt, c, tokenizer, tools) for c in completions]


def _growing(before: str, answer_next: bool, prompt: list, completion: list, tokenizer, tools) -> list:
    whole, pieces = render([*prompt, *completion], tokenizer, tools=tools), []
    for i, message in enumerate(completion):
        if message["role"] != "assistant":
            continue
        so_far, last = [*prompt, *completion[:i]], i == len(completion) - 1
        if i or not answer_next:  # what others said since, up to where the assistant begins
            pieces.append((render(so_far, tokenizer, tools=tools, answer_next=True), False))
        said = whole if last else render([*so_far, message], tokenizer, tools=tools)
        pieces.append((_up_to_the_end(said, tokenizer), True))
    texts = [before, *(text for text, _ in pieces), whole]
    if not all(later.startswith(earlier) for earlier, later in zip(texts, texts[1:], strict=False)):
        raise ValueError(
            "the chat template writes the prompt differently once an answer follows it, so the border "
            "between them is unknown; use a template whose rendering only grows"
        )
    return pieces


def _up_to_the_end(text: str, tokenizer) -> str:
    """The text without what a template writes behind a turn's end: that is the next turn's, not the model's."""
    end = turn_end(tokenizer)
    if end.token is not None:
        words, token, behind = text.rpartition(end.token)
        return words + token if token and not behind.strip() else text
    blanks = len(end.tail) - len(end.tail.rstrip())
    return text[: len(text) - blanks] if blanks and text.endswith(end.tail) else text
