"""A language model as the judge (RLAIF): asked in words, and read by the probability of its answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from course_lib.data import collate_completions, encode_completion
from course_lib.logprobs import completion_logps, completion_states, device_of, evaluating
from course_lib.models import pad_id, refuse_unknown_ids
from course_lib.rewards.combined import text_of

Question = Callable[[object, str, str], object]


def better_of_two(prompt, one: str, two: str) -> list[dict]:
    """The judge's question in plain words, as a dialogue of one turn."""
    asked = prompt if isinstance(prompt, str) else "\n".join(message["content"] for message in prompt)
    return [
        {
            "role": "user",
            "content": f"Question: {asked}\n\nAnswer one: {one}\n\nAnswer two: {two}\n\n"
            "Which answer is better, one or two? Say only the word.",
        }
    ]


class Judge:
    """A language model that is asked which of two replies is better.

    What it prefers is read from the first token of its answer:

        P(one) = p("one") / (p("one") + p("two"))

    A judge may favour a place whatever stands there. So each pair is asked in both orders, and the log-odds are the
    mean of both; what is left over is its bias.

    Args:
        model: a causal language model.
        tokenizer: its tokenizer.
        question: `(prompt, one, two)` to a dialogue that ends with the question; by default a plain English one.
        answers: the two answers; their first tokens must differ.
        batch_size: questions asked together.

    Its methods raise `ValueError` if the answers begin with the same token.

    Source: Zheng et al. 2023, Judging LLM-as-a-judge, section 3; Lee et al. 2023, RLAIF, section 3.
    """

    def __init__(
        self,
        model,
        tokenizer,
        *,
        question: Question = better_of_two,
        answers: tuple[str, str] = ("one", "two"),
        batch_size: int = 256,
    ):
        self.model, self.tokenizer, self.question = model, tokenizer, question
        self.answers, self.batch_size = answers, batch_size

    def log_odds(self, prompts: Sequence, one: Sequence, two: Sequence) -> Tensor:
        """(B,) ln P(one) - ln P(two), asked in this order alone, nats.

        Raises:
            ValueError: for different numbers of prompts and replies.
        """
        if not len(prompts) == len(one) == len(two):
            raise ValueError(
                f"there are {len(prompts)} prompts, {len(one)} and {len(two)} replies; give as many of each"
            )
        asked = [self.question(p, text_of(a), text_of(b)) for p, a, b in zip(prompts, one, two, strict=True)]
        return self._odds(asked)

    def compare(self, prompts: Sequence, one: Sequence, two: Sequence) -> tuple[Tensor, Tensor]:
        """`(log_odds, bias)`, each (B,): both orders asked.

        log_odds = (forward - backward) / 2          above 0: one is better, wherever it stands
        bias     = (forward + backward) / 2          above 0: the first place is favoured, whoever stands there
        """
        forward, backward = self.log_odds(prompts, one, two), self.log_odds(prompts, two, one)
        return (forward - backward) / 2, (forward + backward) / 2

    def reward(self, opponents: Sequence[Callable[[Sequence], Sequence]] | Callable[[Sequence], Sequence]):
        """A reward function: log-odds, in both orders, against other replies to the same prompts.

        Args:
            opponents: `(prompts)` to as many replies, or several such functions, whose mean is taken: replies of the
                model that training begins with, say.

        Returns:
            A reward function; its attribute `latest` holds the "place_bias" (B,) of its last call, nats.
        """
        several = [opponents] if callable(opponents) else list(opponents)
        if not several:
            raise ValueError("a judge compares with somebody: give at least one opponent")

        def score(prompts: Sequence, completions: Sequence) -> Tensor:
            both = [self.compare(prompts, completions, opponent(prompts)) for opponent in several]
            odds, bias = (torch.stack(column).mean(dim=0) for column in zip(*both, strict=True))
            score.latest = {"place_bias": bias}
            return odds

        score.latest = {}
        return score

    @torch.no_grad()
    def _odds(self, dialogues: list) -> Tensor:
        """ln p(first answer) - ln p(second) behind each dialogue, (B,), from one pass through the model."""
        if not dialogues:
            return torch.zeros(0)
        device, pad = device_of(self.model), pad_id(self.model, self.tokenizer)
        rows = [self._answered(dialogue, self.answers[0]) for dialogue in dialogues]
        first, second = rows[0].completion_ids[0], self._answered(dialogues[0], self.answers[1]).completion_ids[0]
        if first == second:
            raise ValueError(f"the answers {self.answers} begin with the same token, which says nothing; take others")
        refuse_unknown_ids(self.model, {second} | {i for row in rows for i in (*row.prompt_ids, *row.completion_ids)})
        order = sorted(range(len(rows)), key=lambda i: rows[i].length)
        found = torch.zeros(len(rows))
        with evaluating(self.model):
            for start in range(0, len(order), self.batch_size):
                here = order[start : start + self.batch_size]
                batch = collate_completions([rows[i] for i in here], pad)
                batch = {name: tensor.to(device) for name, tensor in batch.items()}
                found[here] = self._difference(batch, first, second).cpu()
        return found

    def _answered(self, dialogue, answer: str):
        """The dialogue with the first token of an answer behind it, encoded."""
        row = encode_completion(dialogue, [{"role": "assistant", "content": answer}], self.tokenizer)
        return row._replace(completion_ids=row.completion_ids[:1], scored=None)

    def _difference(self, batch: dict[str, Tensor], first: int, second: int) -> Tensor:
        states = completion_states(self.model, **batch)
        if states is not None:  # what both answers have in common, their normaliser, falls out
            logits = states.head.logits(states.hidden)
            return logits[:, first] - logits[:, second]
        other = batch | {"input_ids": batch["input_ids"].masked_fill(batch["completion_mask"].bool(), second)}
        one, two = (completion_logps(self.model, **answered)[0].sum(dim=1) for answered in (batch, other))
        return one - two


def judged_pairs(judge: Judge, prompts: Sequence, one: Sequence, two: Sequence, *, tie: float = 0.0) -> list[dict]:
    """Preference records by a judge's word, for a preference trainer or a reward model.

    Args:
        judge: asked in both orders.
        prompts, one, two: B prompts, and two replies to each.
        tie: pairs whose log-odds are not further than this from 0 are left out, nats, at least 0.

    Returns:
        `{"prompt", "chosen", "rejected", "log_odds"}` for each pair that is no tie.

    Raises:
        ValueError: if `tie` is below 0.
    """
    if tie < 0:
        raise ValueError(f"tie is at least 0; got {tie}")
    odds, _ = judge.compare(prompts, one, two)
    records = []
    for prompt, first, second, value in zip(prompts, one, two, odds.tolist(), strict=True):
        if abs(value) > tie:
            chosen, rejected = (first, second) if value > 0 else (second, first)
            records.append({"prompt": prompt, "chosen": chosen, "rejected": rejected, "log_odds": abs(value)})
    return records
