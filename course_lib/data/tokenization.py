"""From records to token ids, with the border between prompt and completion known exactly."""

from __future__ import annotations

import logging
from typing import NamedTuple

logger = logging.getLogger(__name__)


class Encoded(NamedTuple):
    """Token ids of a prompt and of the completion that follows it; the completion ends with EOS."""

    prompt_ids: list[int]
    completion_ids: list[int]


def encode_row(record: dict, tokenizer) -> list[Encoded]:
    """All completions of a record, each with its prompt: chosen and rejected of a pair, one otherwise."""
    if "chosen" in record and "rejected" in record:
        return _encode_completions(record["prompt"], [record["chosen"], record["rejected"]], tokenizer)
    if "completion" in record:
        return [encode_completion(record["prompt"], record["completion"], tokenizer)]
    if "text" in record:
        return [encode_text(record["text"], tokenizer)]
    return [Encoded(encode_prompt(record["prompt"], tokenizer), [])]


def encode_text(text: str, tokenizer) -> Encoded:
    """Plain text: all of it is trained on but the first token, which nothing predicts."""
    (ids,) = _ids([text], tokenizer, special=True)
    start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    if not ids or ids[0] != start:
        ids = [start, *ids]
    return Encoded(ids[:1], _end(ids[1:], tokenizer))


def encode_prompt(prompt, tokenizer) -> list[int]:
    """The ids a model sees before it answers: strings as they are, chat messages through the template."""
    return _ids([_render(prompt, tokenizer)], tokenizer, special=isinstance(prompt, str))[0]


def encode_completion(prompt, completion, tokenizer) -> Encoded:
    """Tokenise a prompt with its completion.

    The two are tokenised together where the border falls between two tokens. Where a token would span
    it, each is tokenised alone: so a prompt token never counts as a completion token, whatever the
    tokenizer merges.

    Args:
        prompt: a string, or chat messages (rendered by the tokenizer's chat template).
        completion: in the same form; a string after chat messages is taken as the assistant's reply.

    Returns:
        `Encoded`; the completion ends with an EOS.

    Raises:
        ValueError: if the chat template changes the prompt once an answer follows it.
    """
    return _encode_completions(prompt, [completion], tokenizer)[0]


def _encode_completions(prompt, completions: list, tokenizer) -> list[Encoded]:
    """As `encode_completion`, for several completions of one prompt, which is rendered once."""
    before = _render(prompt, tokenizer)
    whole = [_render(prompt, tokenizer, completion) for completion in completions]
    if not all(text.startswith(before) for text in whole):
        raise ValueError(
            "the chat template writes the prompt differently once an answer follows it, so the border "
            "between them is unknown; use a template whose rendering only grows"
        )
    prompt_ids, *rows = _ids([before, *whole], tokenizer, special=isinstance(prompt, str))
    encoded = []
    for text, ids in zip(whole, rows, strict=True):
        if ids[: len(prompt_ids)] == prompt_ids:
            completion_ids = ids[len(prompt_ids) :]
        else:
            completion_ids = _ids_after(text[len(before) :], tokenizer)
        encoded.append(Encoded(prompt_ids, _end(completion_ids, tokenizer)))
    return encoded


def _end(ids: list[int], tokenizer) -> list[int]:
    """See that the ids end with EOS; blanks that a template writes after its own EOS are cut."""
    eos = tokenizer.eos_token_id
    if eos is None:
        raise ValueError("the tokenizer has no EOS token, so a model could never learn to stop; set eos_token")
    if eos in ids[-4:]:
        after = len(ids) - ids[::-1].index(eos)
        if not tokenizer.decode(ids[after:]).strip():
            return ids[:after]
    return [*ids, eos]


def _ids(texts: list[str], tokenizer, *, special: bool) -> list[list[int]]:
    """Token ids; with `special` the tokenizer's BOS, but never an EOS of its own: `_end` adds that."""
    # one by one: for a few short texts a batch call's threads cost more than they save
    rows = [tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"] for text in texts]
    if special and all(ids[-1:] == [tokenizer.eos_token_id] for ids in rows) and _appends_eos(tokenizer):
        rows = [ids[:-1] for ids in rows]
    return rows


def _ids_after(text: str, tokenizer) -> list[int]:
    """Ids of a text that goes on where another one ended: tokenizers that put a blank before a text put none here."""
    for other in ("\n", "=", "a"):
        before, whole = _ids([other, other + text], tokenizer, special=False)
        if whole[: len(before)] == before:
            return whole[len(before) :]
    return _ids([text], tokenizer, special=False)[0]


def _appends_eos(tokenizer) -> bool:
    ids = tokenizer("a", verbose=False)["input_ids"]
    return len(ids) > 1 and ids[-1] == tokenizer.eos_token_id


def _render(prompt, tokenizer, completion=None) -> str:
    """The text of a prompt, up to where the answer begins, or of both; messages go through the chat template."""
    if isinstance(prompt, str):
        return prompt if completion is None else prompt + completion
    if tokenizer.chat_template is None:
        raise ValueError(
            "this tokenizer has no chat template, so chat messages cannot be written as text; load it with "
            "course_lib.load_policy, which sets a plain one, or give prompts and completions as strings"
        )
    if isinstance(completion, str):
        completion = [{"role": "assistant", "content": completion}]
    messages = prompt if completion is None else [*prompt, *completion]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=completion is None)
