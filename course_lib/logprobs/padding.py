"""Whether padding before a row changes its scores, and a way round it.

Attention masks padding out. A state that runs through the row, as in Mamba or RWKV, has seen the padding; so have
absolute positions that the model counts by itself. Padding behind a row is safe in every causal model.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from course_lib.logprobs.forward import all_logits, evaluating, unwrapped, with_positions

_matters: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()  # found out once a model


def padding_matters(model, ids: Tensor) -> bool:
    """Whether padding on the left changes the scores of what follows; tried once on a few of these token ids (N,)."""
    inner = unwrapped(model)
    if inner not in _matters:
        _matters[inner] = _tried(model, ids.repeat(6)[:6])
    return _matters[inner]


def real_first(attention_mask: Tensor) -> Tensor:
    """For each row the columns of its real tokens, then those of padding, each in order: (B, T), for `gather`."""
    return attention_mask.logical_not().long().argsort(dim=1, stable=True)


def alike(ours: Tensor, plain: Tensor) -> bool:
    """Whether two computations of the same logits differ by rounding only."""
    slack = torch.finfo(plain.dtype).eps ** 0.6  # 7e-5 in fp32, 0.05 in bf16: what a few layers' rounding adds up to
    return bool((ours - plain).abs().max() <= slack * plain.float().std())


@torch.no_grad()
def _tried(model, ids: Tensor) -> bool:
    padded = torch.cat([ids.flip(0)[:4], ids])[None]
    mask = torch.ones_like(padded).index_fill(1, torch.arange(4, device=ids.device), 0)
    alone = {"input_ids": ids[None], "attention_mask": torch.ones_like(ids[None])}
    with evaluating(model):
        after_padding = all_logits(model, input_ids=padded, attention_mask=mask, **with_positions(model, mask))[:, 4:]
        return not alike(after_padding, all_logits(model, **alone))
