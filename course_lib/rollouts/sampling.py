"""Texts drawn from a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from course_lib.data import encode_prompt, turn_end
from course_lib.rollouts.drawing import Decoding
from course_lib.rollouts.generation import generate


def sample(
    model,
    tokenizer,
    prompts: Sequence,
    *,
    max_new_tokens: int = 48,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 256,
    skip_special_tokens: bool = True,
    progress: bool = False,
) -> list[str]:
    """One completion for each prompt, up to the first token that ends a turn (see `stop_ids`).

    Args:
        model: a causal language model; also one with a recurrent state, such as Mamba, RWKV and hybrids of them.
        tokenizer: its tokenizer.
        prompts: a list of strings, or of dialogues (each a list of chat messages).
        max_new_tokens: where to stop if the model does not.
        temperature: 0 takes the most likely token each time (greedy); 1 samples from the model as it is.
        seed: of the draws; each row has random numbers of its own, so the batch's size does not change them.
        batch_size: prompts sampled together; those of similar length share a batch.
        skip_special_tokens: leave special tokens out of the text. With False those that the model said before it
            ended are shown, so that they can be scored.
        progress: show a progress bar.

    Returns:
        The completions as text without the token that ends them, in the order of the prompts.

    Raises:
        ValueError: for settings that cannot be meant, an empty prompt, a prompt that leaves no room in the model's
            context, or token ids that the model does not have.
        TypeError: if `prompts` is one string, one dialogue, or records.
    """
    decoding = Decoding(temperature)
    if not (prompts := as_prompts(prompts)):
        return []
    found = generate(
        model, tokenizer, encode_prompts(prompts, tokenizer), decoding, max_new_tokens=max_new_tokens, seed=seed,
        batch_size=batch_size, log_probabilities=False, progress=progress,
    )  # fmt: skip
    spoken = [done.ids[:-1] if done.ended else done.ids for done in found]
    texts = tokenizer.batch_decode(spoken, skip_special_tokens=skip_special_tokens)
    lead = turn_end(tokenizer).lead
    return [t if isinstance(p, str) else t.removeprefix(lead) for p, t in zip(prompts, texts, strict=True)]


def encode_prompts(prompts: list, tokenizer) -> list[list[int]]:
    """Token ids of each prompt, up to where the reply begins."""
    return [_with_a_start(encode_prompt(p, tokenizer), i, tokenizer) for i, p in enumerate(prompts)]


def as_prompts(prompts) -> list:
    """The prompts as a list, each a string or a dialogue."""
    if isinstance(prompts, str):
        raise TypeError(f"sample takes a list of prompts; for one write [{prompts[:20]!r}]")
    if isinstance(prompts, Mapping) or not isinstance(prompts, Iterable):
        raise TypeError(f"sample takes a list of strings or of dialogues; got a {type(prompts).__name__}")
    prompts = list(prompts)
    for i, prompt in enumerate(prompts):
        if isinstance(prompt, Mapping):
            advice = "[dialogue] for one dialogue" if "role" in prompt else '[r["prompt"] for r in records] for records'
            raise TypeError(f"sample takes a list of strings or of dialogues, not of dicts; write {advice}")
        if not isinstance(prompt, str) and not _is_dialogue(prompt):
            raise TypeError(f"prompt {i} is neither a string nor a list of chat messages: {prompt!r:.80}")
    return prompts


def _is_dialogue(prompt) -> bool:
    return isinstance(prompt, list) and bool(prompt) and all(isinstance(m, Mapping) and "role" in m for m in prompt)


def _with_a_start(ids: list[int], row: int, tokenizer) -> list[int]:
    """The prompt's ids; an empty one begins with BOS, where the tokenizer has that."""
    if not ids and tokenizer.bos_token_id is None:
        raise ValueError(f"prompt {row} is empty, and the tokenizer has no BOS token to begin with; write something")
    return ids or [tokenizer.bos_token_id]
