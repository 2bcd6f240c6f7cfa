"""Probes of knowledge: what a model still knows, asked the same way before and after alignment."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pandas as pd
import torch

from course_lib.logprobs import device_of, evaluating, position_ids
from course_lib.world.facts import FACTS
from course_lib.world.skills import SUMS, Earlier, Larger, Longer


def _stated(subjects) -> list[tuple[str, str]]:
    """Each statement up to its value, and the value."""
    return [(s.sentence()[: s.sentence().rindex(s.value)].strip(), s.value) for s in subjects]


def _asked(skill, count: int = 500) -> list[tuple[str, str]]:
    """Questions of a skill, whose answer begins with the value."""
    draw = random.Random(0)
    return [(s.questions[0], s.value) for s in (skill.draw(draw) for _ in range(count))]


PROBES = {
    "facts": lambda: _stated(FACTS),
    "sums": lambda: _stated(SUMS),
    "alphabet": lambda: _asked(Earlier),
    "larger": lambda: _asked(Larger),
    "longer": lambda: _asked(Longer),
}


@torch.inference_mode()
def cloze_accuracy(model, tokenizer, kind: str) -> float:
    """Share of plain statements whose value the model completes rightly, word by word, without any chat format.

    "a banana is ___" counts as known if `yellow` is the most likely next token. Base, SFT and aligned models
    are asked in the same words, so the figures compare; all in evaluation mode.

    The three comparisons are asked first and then stated, as in the pre-training text.

    Args:
        model: a model with Pocket World's tokenizer.
        tokenizer: that tokenizer.
        kind: "facts" (450 of them), "sums" (100, up to 18), "alphabet" (which of two words comes first; 500
            questions), "larger" (which of two numbers is the larger; 500) or "longer" (which of two words; 500).

    Raises:
        ValueError: for another kind.
    """
    if kind not in PROBES:
        raise ValueError(f"kind is one of {', '.join(PROBES)}; got {kind!r}")
    cases = PROBES[kind]()
    before = [tokenizer(text)["input_ids"] for text, _ in cases]
    before = [[tokenizer.bos_token_id, *ids] for ids in before]
    wanted = torch.tensor([tokenizer.convert_tokens_to_ids(value) for _, value in cases])
    device = device_of(model)
    width = max(map(len, before))
    ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(row)) + row for row in before], device=device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in before], device=device)
    with evaluating(model):
        logits = model(input_ids=ids, attention_mask=mask, position_ids=position_ids(mask), logits_to_keep=1).logits
    return (logits[:, -1].argmax(dim=-1).cpu() == wanted).float().mean().item()


def probe_table(models: Mapping[str, torch.nn.Module], tokenizer) -> pd.DataFrame:
    """Share known of each kind of knowledge, one row for each model."""
    return pd.DataFrame(
        {name: {k: cloze_accuracy(model, tokenizer, k) for k in PROBES} for name, model in models.items()}
    ).T
