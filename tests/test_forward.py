"""Asking any model: through its wrappers, in evaluation mode, for the logits that are wanted."""

import pytest
import torch
from families import model_of
from peft import LoraConfig, get_peft_model

from course_lib.data import Encoded
from course_lib.logprobs import alike, all_logits, device_of, evaluating, takes, unwrapped, why_pairs_not_shared

IDS = torch.tensor([[3, 7, 8, 9]])


@pytest.fixture
def llama():
    return model_of("llama")


class Wrapper(torch.nn.Module):
    """As DistributedDataParallel holds a model."""

    def __init__(self, module):
        super().__init__()
        self.module = module


def test_the_model_is_found_inside_its_wrappers(llama):
    adapted = get_peft_model(llama, LoraConfig(r=2, target_modules=["q_proj"]))
    assert unwrapped(llama) is unwrapped(Wrapper(llama)) is unwrapped(Wrapper(Wrapper(adapted))) is llama


def test_the_device_is_that_of_the_weights():
    assert device_of(torch.nn.Linear(2, 2, device="meta")) == torch.device("meta")


def test_what_forward_takes_is_seen_through_wrappers(llama):
    assert takes(Wrapper(llama), "position_ids") and not takes(Wrapper(llama), "token_type_ids")
    assert not takes(model_of("rwkv"), "position_ids")


@pytest.mark.parametrize("family", ["llama", "rwkv"])
def test_logits_at_some_positions_are_those_of_all_positions(family):
    model, columns = model_of(family), torch.tensor([1, 3])
    torch.testing.assert_close(all_logits(model, columns, input_ids=IDS), all_logits(model, input_ids=IDS)[:, columns])


def test_evaluation_mode_ends_with_each_module_in_its_own_mode_even_after_an_error(llama):
    llama.train()
    llama.model.norm.eval()
    with pytest.raises(RuntimeError), evaluating(llama):
        assert not any(module.training for module in llama.modules())
        raise RuntimeError
    assert llama.training and llama.lm_head.training and not llama.model.norm.training


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding_is_alike_and_a_change_is_not(dtype):
    logits = torch.randn(4, 8, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert alike(logits, logits) and alike(logits * (1 + torch.finfo(dtype).eps), logits)
    assert not alike(logits + 0.5, logits)


def test_pairs_share_prompts_only_where_every_model_and_prompt_allows_it(llama):
    pair = (Encoded([3, 4], [5, 2]), Encoded([3, 4], [6, 2]))
    assert why_pairs_not_shared([llama, llama], [pair]) == ""
    assert why_pairs_not_shared([llama, model_of("rwkv")], [pair])
    assert "empty" in why_pairs_not_shared([llama], [pair, (Encoded([], [5, 2]), Encoded([], [6, 2]))])
