"""Rollouts for training: token ids and their log-probabilities, as they were drawn. Nothing tokenises text again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from course_lib.data import turn_end
from course_lib.rollouts.drawing import Decoding
from course_lib.rollouts.generation import Completion, generate
from course_lib.rollouts.merging import merged_adapters
from course_lib.rollouts.sampling import as_prompts, encode_prompts


@dataclass
class Rollout:
    """B = n * len(prompts) completions, those of a prompt one after another.

    Attributes:
        prompts: B prompts as they were given.
        prompt_ids: B lists of token ids.
        completions: B `Completion`s: ids, log-probabilities, and whether they ended.
        texts: B completions as text, without what ended them.
        n: completions of each prompt.
        decoding: the distribution that they were drawn from.
    """

    prompts: list
    prompt_ids: list[list[int]]
    completions: list[Completion]
    texts: list[str]
    n: int
    decoding: Decoding

    def __len__(self) -> int:
        return len(self.completions)

    @property
    def ended(self) -> Tensor:
        """(B,) booleans; a completion that did not end was cut off at the limit, and has no EOS."""
        return torch.tensor([completion.ended for completion in self.completions])

    @property
    def lengths(self) -> Tensor:
        """(B,) completion tokens, the one that ended it included."""
        return torch.tensor([len(completion.ids) for completion in self.completions])

    def batch(self, pad: int, rows: Sequence[int] | None = None) -> dict[str, Tensor]:
        """Padded tensors (B, T): prompts end, and completions begin, in one column.

        `input_ids`, `attention_mask`, `completion_mask`, and zero outside the completions `logps` (of the distribution
        drawn from) and `plain_logps`.
        """
        rows = range(len(self)) if rows is None else rows
        picked = [(self.prompt_ids[i], self.completions[i]) for i in rows]
        before, after = max(len(p) for p, _ in picked), max(len(c.ids) for _, c in picked)
        table: dict[str, list] = {"input_ids": [], "attention_mask": [], "completion_mask": []}
        table |= {"logps": [], "plain_logps": []}
        for prompt, done in picked:
            left, right, length = before - len(prompt), after - len(done.ids), len(done.ids)
            table["input_ids"].append([pad] * left + prompt + done.ids + [pad] * right)
            table["attention_mask"].append([0] * left + [1] * (len(prompt) + length) + [0] * right)
            table["completion_mask"].append([False] * before + [True] * length + [False] * right)
            for name in ("logps", "plain_logps"):
                table[name].append([0.0] * before + getattr(done, name) + [0.0] * right)
        return {name: torch.tensor(values) for name, values in table.items()}


def roll_out(
    model,
    tokenizer,
    prompts: Sequence,
    *,
    n: int = 1,
    max_new_tokens: int = 48,
    decoding: Decoding | None = None,
    seed: int = 0,
    first: int = 0,
    batch_size: int = 256,
    stop_strings: Sequence[str] = (),
    encoded: Sequence[list[int]] | None = None,
    progress: bool = False,
) -> Rollout:
    """Draw `n` completions of each prompt, with the log-probability of every token.

    Args:
        model: a causal language model; LoRA adapters are folded in meanwhile.
        tokenizer: its tokenizer.
        prompts: strings or dialogues.
        n: completions of each prompt; the prompt is computed once.
        max_new_tokens: where a completion is cut off.
        decoding: temperature, top-k and top-p; by default the model's own distribution.
        seed: of the draws; each row has random numbers of its own, whatever the batch's size.
        first: the number of the first prompt among those that the seed draws for, where these are some of them.
        batch_size: completions drawn together.
        stop_strings: a completion also ends once its text holds one of these.
        encoded: the prompts' token ids, where they are known already.
        progress: show a progress bar.

    Raises:
        ValueError: for settings that cannot be meant, greedy decoding among them (it has no probabilities to learn
            from), an empty prompt, a prompt that leaves no room in the context, or ids that the model does not have.
        TypeError: if `prompts` is one string, one dialogue, or records.
    """
    decoding, prompts, encoded = as_asked(prompts, tokenizer, decoding, encoded)

    def ends(ids: list[int]) -> bool:
        text = tokenizer.decode(ids)
        return any(stop in text for stop in stop_strings)

    with merged_adapters(model):
        found = generate(
            model, tokenizer, encoded, decoding, n=n, max_new_tokens=max_new_tokens, seed=seed, first=first,
            batch_size=batch_size, ends=ends if stop_strings else None, progress=progress,
        )  # fmt: skip
    return as_rollout(prompts, encoded, found, tokenizer, n, decoding, stop_strings)


def as_asked(prompts: Sequence, tokenizer, decoding: Decoding | None, encoded: Sequence[list[int]] | None) -> tuple:
    """The distribution, the prompts and their ids, with what is not given filled in (errors as in `roll_out`)."""
    decoding = decoding or Decoding()
    if decoding.greedy:
        raise ValueError("a rollout is drawn, and at temperature 0 nothing is; use `sample` for greedy replies")
    if not (prompts := as_prompts(prompts)):
        raise ValueError("there are no prompts to roll out")
    return decoding, prompts, encode_prompts(prompts, tokenizer) if encoded is None else list(encoded)


def as_rollout(
    prompts: list, encoded: list, found: list[Completion], tokenizer, n: int, decoding: Decoding, stop_strings: Sequence
) -> Rollout:
    """Completions with their prompts and as text, those of a prompt one after another."""
    repeated = [prompt for prompt in prompts for _ in range(n)]
    spoken = [done.ids[:-1] if done.ended and not stop_strings else done.ids for done in found]
    texts = tokenizer.batch_decode(spoken, skip_special_tokens=True)
    lead = turn_end(tokenizer).lead
    texts = [t if isinstance(p, str) else t.removeprefix(lead) for p, t in zip(repeated, texts, strict=True)]
    return Rollout(repeated, [ids for ids in encoded for _ in range(n)], found, texts, n, decoding)
