"""How the next token is chosen: temperature, top-k, top-p, and random numbers that belong to a row alone."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real

import torch
from torch import Tensor


@dataclass(frozen=True)
class Decoding:
    """The distribution that tokens are drawn from.

    Args:
        temperature: divides the logits; 0 takes the most likely token each time (greedy).
        top_k: only this many most likely tokens can be drawn; None: all.
        top_p: of those, the fewest most likely that hold this share of the probability; 1: all.

    Raises:
        ValueError: for settings that cannot be meant.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float = 1.0

    def __post_init__(self):
        if not isinstance(self.temperature, Real) or not 0 <= self.temperature < float("inf"):
            raise ValueError(f"need temperature >= 0 and finite; got {self.temperature!r}")
        if self.top_k is not None and (not isinstance(self.top_k, Integral) or self.top_k < 1):
            raise ValueError(f"top_k is a whole number, at least 1, or None; got {self.top_k!r}")
        if not isinstance(self.top_p, Real) or not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is a share above 0 and at most 1; got {self.top_p!r}")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    @property
    def plain(self) -> bool:
        """Whether tokens are drawn from the model's own distribution."""
        return self.temperature == 1 and self.top_k is None and self.top_p == 1

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """ln of the probabilities drawn from, (..., V) in fp32; -inf where a token cannot be drawn."""
        logits = logits.float() / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            least = logits.topk(self.top_k, dim=-1).values[..., -1:]
            logits = logits.masked_fill(logits < least, float("-inf"))
        if self.top_p < 1:
            ordered, places = logits.sort(dim=-1, descending=True)
            before = ordered.softmax(dim=-1).cumsum(dim=-1) - ordered.softmax(dim=-1)
            ordered = ordered.masked_fill(before >= self.top_p, float("-inf"))
            logits = torch.empty_like(logits).scatter_(-1, places, ordered)
        return logits.log_softmax(dim=-1)

    def draw(self, logits: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B,) and their log-probabilities under the distribution drawn from, by one uniform number a row.

        The token is the first whose cumulated probability passes the row's number: it depends on the row alone.
        """
        if self.greedy:
            tokens = logits.argmax(dim=-1)
            return tokens, torch.zeros(len(tokens), device=logits.device)
        logps = self.log_probabilities(logits)
        cumulated = logps.double().exp().cumsum(dim=-1)
        tokens = torch.searchsorted(cumulated, uniforms[:, None] * cumulated[:, -1:], right=True)[:, 0]
        last = (logps > float("-inf")).int().cumsum(dim=-1).argmax(dim=-1)  # rounding never draws what has no chance
        tokens = torch.minimum(tokens, last)
        return tokens, logps.gather(-1, tokens[:, None])[:, 0]


def row_uniforms(seed: int, rows: Sequence[int], count: int) -> Tensor:
    """`count` uniform numbers for each row, (B, count) in fp64, that depend on the seed and the row's number alone."""
    return torch.stack([_numbers(seed, row, count) for row in rows])


def row_seed(seed: int, row: int) -> int:
    """A row's own seed, at least 0 and below 2^63."""
    digest = hashlib.blake2b(f"{seed}-{row}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def _numbers(seed: int, row: int, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(row_seed(seed, row))
    return torch.rand(count, generator=generator, dtype=torch.float64)
