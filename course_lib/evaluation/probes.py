"""Probes of knowledge: what a model still knows, asked the same way before and after alignment."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import torch

from course_lib.logprobs import device_of, evaluating, position_ids
from course_lib.world.facts import FACTS, SUMS
from course_lib.world.language import answer_sentence


@torch.inference_mode()
def cloze_accuracy(model, tokenizer, kind: str) -> float:
    """Share of plain statements whose value the model completes rightly, word by word, without any chat format.

    "a banana is ___" counts as known if `yellow` is the most likely next token. Base, SFT and aligned models
    are asked in the same words, so the figures compare; all in evaluation mode.

    Args:
        model: a model with Pocket World's tokenizer.
        tokenizer: that tokenizer.
        kind: "facts" (450 of them) or "sums" (100, up to 18).

    Raises:
        ValueError: for another kind.
    """
    if kind not in ("facts", "sums"):
        raise ValueError(f"kind is 'facts' or 'sums'; got {kind!r}")
    if kind == "facts":
        cases = [(f.statement(), f.value) for f in FACTS]
    else:
        cases = [(answer_sentence(pair), str(sum(pair))) for pair in SUMS]
    before = [tokenizer(text[: text.rindex(value)].strip())["input_ids"] for text, value in cases]
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
    """Share of facts and of sums known, one row a model."""
    return pd.DataFrame(
        {name: {k: cloze_accuracy(model, tokenizer, k) for k in ("facts", "sums")} for name, model in models.items()}
    ).T
