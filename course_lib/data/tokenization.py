"""From records to token ids, with the border between prompt and completion known exactly."""

from __future__ import annotations

import logging
import weakref
from typing import NamedTuple

from course_lib.data.turns import is_messages, render, turn_end, turn_spans

logger = logging.getLogger(__name__)
_warned: weakref.WeakSet = weakref.WeakSet()


class Encoded(NamedTuple):
    """Token ids of a prompt and of the completion that follows it, which ends where the model's turn ends.

    `scored` says which completion tokens count, one boolean each: those that the assistant says. None: all of them.
    """

    prompt_ids: list[int]
    completion_ids: list[int]
    scored: list[bool] | None = None

    @property
    def length(self) -> int:
        """Tokens of prompt and completion together."""
        return len(self.prompt_ids) + len(self.completion_ids)

    @property
    def scored_tokens(self) -> int:
        """How many completion tokens count."""
        return len(self.completion_ids) if self.scored is None else sum(self.scored)


def encode_row(record: dict, tokenizer) -> list[Encoded]:
    """All completions of a record, each with its prompt: chosen and rejected of a pair, one otherwise."""
    tools = record.get("tools")
    if {"prompt", "chosen", "rejected"} <= record.keys():
        return _encode_completions(record["prompt"], [record["chosen"], record["rejected"]], tokenizer, tools)
    if "completion" in record and "prompt" in record:
        return _encode_completions(record["prompt"], [record["completion"]], tokenizer, tools)
    if "text" in record:
        return [encode_text(record["text"], tokenizer)]
    if "prompt" in record:
        return [Encoded(encode_prompt(record["prompt"], tokenizer, tools=tools), [])]
    raise ValueError(
        f"a record with the keys {', '.join(map(repr, record)) or 'none'} cannot be encoded; it needs 'prompt' with "
        "'chosen' and 'rejected', or with 'completion', or alone; or 'text'"
    )


def encode_text(text: str, tokenizer) -> Encoded:
    """Plain text: all of it is trained on but the first token, which nothing predicts."""
    (ids,) = _ids([text], tokenizer, special=True)
    start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    if not ids or ids[0] != start:
        ids = [start, *ids]
    return Encoded(ids[:1], _with_eos(ids[1:], tokenizer))


def encode_prompt(prompt, tokenizer, *, tools: list | None = None) -> list[int]:
    """The ids a model sees before it answers: strings as they are, chat messages through the template."""
    text = render(prompt, tokenizer, tools=tools, answer_next=True)
    return _ids([text], tokenizer, special=isinstance(prompt, str))[0]


def encode_completion(prompt, completion, tokenizer) -> Encoded:
    """Tokenise a prompt with its completion.

    The two are tokenised together where the border falls between two tokens. Where a token would span
    it, each is tokenised alone: so a prompt token never counts as a completion token, whatever the
    tokenizer merges.

    Args:
        prompt: a string, or chat messages (rendered by the tokenizer's chat template).
        completion: in the same form; a string after chat messages is taken as the assistant's reply, and messages
            after a string follow it as the user's message. Of several messages only the assistant's are scored.

    Returns:
        `Encoded`; the completion ends with the token that the chat template writes behind a turn, or with EOS.

    Raises:
        ValueError: if the chat template changes the prompt once an answer follows it.
    """
    return _encode_completions(prompt, [completion], tokenizer)[0]


def turn_end_ids(tokenizer) -> set[int]:
    """Ids that end an assistant's turn: EOS, and the token that the chat template writes there if it has one."""
    return {i for i in (tokenizer.eos_token_id, turn_end(tokenizer).token_id) if i is not None}


def _encode_completions(prompt, completions: list, tokenizer, tools: list | None = None) -> list[Encoded]:
    """As `encode_completion`, for several completions of one prompt, which is tokenised once."""
    if isinstance(prompt, str) and not any(map(is_messages, completions)):
        ends = [[(prompt + completion, True)] for completion in completions]
        before = prompt
    else:
        prompt = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        before, ends = turn_spans(prompt, completions, tokenizer, tools)
    special = isinstance(prompt, str)
    (prompt_ids,) = _ids([before], tokenizer, special=special)
    return [_encoded(before, prompt_ids, pieces, tokenizer, special) for pieces in ends]


def _encoded(before: str, prompt_ids: list[int], pieces: list[tuple[str, bool]], tokenizer, special: bool) -> Encoded:
    """One completion from growing texts, each with whether what it adds counts; the last one is the whole."""
    rows = _ids([text for text, _ in pieces], tokenizer, special=special)
    whole, starts = rows[-1], [prompt_ids, *rows[:-1]]
    if any(whole[: len(start)] != start for start in starts):
        return _encoded_in_pieces(before, prompt_ids, pieces, tokenizer)
    added = [len(row) - len(start) for row, start in zip(rows, starts, strict=True)]
    counts = [(count, counted) for count, (_, counted) in zip(added, pieces, strict=True)]
    return _finished(prompt_ids, whole[len(prompt_ids) :], counts, tokenizer)


def _encoded_in_pieces(before: str, prompt_ids: list[int], pieces: list[tuple[str, bool]], tokenizer) -> Encoded:
    """Where a token would span a border, each piece is tokenised alone, as the continuation of a text."""
    ids, counts = [], []
    for text, counted in pieces:
        piece = _ids_after(text[len(before) :], tokenizer)
        ids, counts, before = ids + piece, [*counts, (len(piece), counted)], text
    return _finished(prompt_ids, ids, counts, tokenizer)


def _finished(prompt_ids: list[int], ids: list[int], counts: list[tuple[int, bool]], tokenizer) -> Encoded:
    """The completion with its end, and with its mask where not all of it counts."""
    end = turn_end(tokenizer).token_id
    ended = ids if end is not None and ids[-1:] == [end] else _with_eos(ids, tokenizer)
    while ended[-2:] == [ended[-1]] * 2 and ended[-1] in turn_end_ids(tokenizer):  # written by a record and a template
        ended = ended[:-1]
    if all(counted for _, counted in counts):
        return Encoded(prompt_ids, ended)
    scored = [counted for count, counted in counts for _ in range(count)]
    return Encoded(prompt_ids, ended, (scored + [True])[: len(ended)])


def _with_eos(ids: list[int], tokenizer) -> list[int]:
    """The ids with one EOS at their end."""
    eos = tokenizer.eos_token_id
    if eos is None:
        raise ValueError("the tokenizer has no EOS token, so a model could never learn to stop; set eos_token")
    return ids if ids[-1:] == [eos] else [*ids, eos]


def _ids(texts: list[str], tokenizer, *, special: bool) -> list[list[int]]:
    """Token ids; with `special` the tokenizer's BOS, once, but never an EOS of its own: `_with_eos` adds that."""
    # one by one: for a few short texts a batch call's threads cost more than they save
    rows = [tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"] for text in texts]
    if special and all(ids[-1:] == [tokenizer.eos_token_id] for ids in rows) and _appends_eos(tokenizer):
        rows = [ids[:-1] for ids in rows]
    bos = tokenizer.bos_token_id
    if special and bos is not None and any(ids[:2] == [bos, bos] for ids in rows) and _adds_bos(tokenizer):
        _warn_of_bos(tokenizer)
        rows = [ids[1:] if ids[:2] == [bos, bos] else ids for ids in rows]
    return rows


def _ids_after(text: str, tokenizer) -> list[int]:
    """Ids of a text that continues another one.

    Many tokenizers put a blank before the first word of a text. Nobody wrote one here, so the text is tokenised behind
    a short word, whose own ids are then taken off.
    """
    for other in ("\n", "=", "a"):
        before, whole = _ids([other, other + text], tokenizer, special=False)
        if whole[: len(before)] == before:
            return whole[len(before) :]
    return _ids([text], tokenizer, special=False)[0]


def _adds_bos(tokenizer) -> bool:
    """Whether the tokenizer begins every text with its BOS."""
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer("a", verbose=False)["input_ids"][:1] == [bos]


def _appends_eos(tokenizer) -> bool:
    ids = tokenizer("a", verbose=False)["input_ids"]
    return len(ids) > 1 and ids[-1] == tokenizer.eos_token_id


def _warn_of_bos(tokenizer) -> None:
    if tokenizer not in _warned:
        _warned.add(tokenizer)
        logger.warning(
            "texts begin with %s, which the tokenizer adds too; one of the two is left out", tokenizer.bos_token
        )
