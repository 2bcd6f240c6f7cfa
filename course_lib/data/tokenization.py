"""From records to token ids, with the border between prompt and completion known exactly."""

from __future__ import annotations

import logging
from typing import NamedTuple

logger = logging.getLogger(__name__)

COMPLETION_KEYS = ("chosen", "rejected", "completion")


class Encoded(NamedTuple):
    """Token ids of a prompt and of the completion that follows it; the completion ends with EOS."""

    prompt_ids: list[int]
    completion_ids: list[int]


def encode_row(record: dict, tokenizer) -> list[Encoded]:
    """All completions of a record, each with its prompt: two for a pair, one otherwise."""
    if "text" in record and "completion" not in record:
        return [encode_text(record["text"], tokenizer)]
    if not any(key in record for key in COMPLETION_KEYS):
        return [Encoded(encode_prompt(record["prompt"], tokenizer), [])]
    return [encode_completion(record["prompt"], record[key], tokenizer) for key in COMPLETION_KEYS if key in record]


def encode_text(text: str, tokenizer) -> Encoded:
    """Plain text: all of it is trained on but the first token, which nothing predicts."""
    ids = _ids(text, tokenizer, special=True)
    if not ids or (tokenizer.bos_token_id is not None and ids[0] != tokenizer.bos_token_id):
        ids = [tokenizer.bos_token_id or tokenizer.eos_token_id, *ids]
    return Encoded(ids[:1], _end(ids[1:], tokenizer))


def encode_prompt(prompt, tokenizer) -> list[int]:
    """The ids a model sees before it answers: strings as they are, chat messages through the template."""
    if isinstance(prompt, str):
        return _ids(prompt, tokenizer, special=True)
    return _ids(_render(prompt, tokenizer, generation_prompt=True), tokenizer, special=False)


def encode_completion(prompt, completion, tokenizer) -> Encoded:
    """Tokenise a prompt with its completion.

    The two are tokenised together where the border falls between two tokens. Where a token would span
    it, each is tokenised alone, which is also what the model sees when it generates: so a prompt token
    never counts as a completion token, whatever the tokenizer merges.

    Args:
        prompt: a string, or chat messages (rendered by the tokenizer's chat template).
        completion: in the same form as the prompt.

    Returns:
        `Encoded`; the completion ends with exactly one EOS.

    Raises:
        ValueError: if the chat template changes the prompt once an answer follows it.
    """
    prompt_ids = encode_prompt(prompt, tokenizer)
    if isinstance(prompt, str):
        full, border, special = prompt + completion, len(prompt), True
    else:
        before = _render(prompt, tokenizer, generation_prompt=True)
        full, special = _render([*prompt, *completion], tokenizer, generation_prompt=False), False
        if not full.startswith(before):
            raise ValueError(
                "the chat template writes the prompt differently once an answer follows it, so the border "
                "between them is unknown; use a template whose rendering only grows"
            )
        border = len(before)
    ids = _ids(full, tokenizer, special=special)
    if special and ids and ids[-1] == tokenizer.eos_token_id:
        ids = ids[:-1]  # some tokenizers append EOS themselves; it is added once, below
        prompt_ids = prompt_ids[:-1] if prompt_ids[-1] == tokenizer.eos_token_id else prompt_ids
    if ids[: len(prompt_ids)] == prompt_ids:
        completion_ids = ids[len(prompt_ids) :]
    else:
        completion_ids = _ids(full[border:], tokenizer, special=False)
    return Encoded(prompt_ids, _end(completion_ids, tokenizer))


def _end(ids: list[int], tokenizer) -> list[int]:
    """Cut what a template writes after the last EOS (often a line break), and see that there is one EOS."""
    eos = tokenizer.eos_token_id
    if eos is None:
        raise ValueError("the tokenizer has no EOS token, so a model could never learn to stop; set eos_token")
    if eos in ids[-3:]:
        return ids[: len(ids) - ids[::-1].index(eos)]
    return [*ids, eos]


def _ids(text: str, tokenizer, *, special: bool) -> list[int]:
    return tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"]


def _render(messages: list[dict], tokenizer, *, generation_prompt: bool) -> str:
    if tokenizer.chat_template is None:
        raise ValueError(
            "this tokenizer has no chat template, so chat messages cannot be written as text; load it with "
            "course_lib.load_policy, which sets a plain one, or give prompts and completions as strings"
        )
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation_prompt)
