"""Adapters go where text trains them, and 4 bits are counted: what is built is what was estimated."""

import pytest
import torch
from conftest import tiny_llama
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from course_lib import PreferenceConfig, PreferenceTrainer, estimate_memory, load_policy
from course_lib.models import save_pretrained
from course_lib.models.adapters import add_lora, quantized_share
from course_lib.world import preference_records

SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 4}  # fmt: skip
pytest.importorskip("bitsandbytes")


def vision_language(size):
    vision = CLIPVisionConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
                              image_size=8, patch_size=4)  # fmt: skip
    text = LlamaConfig(vocab_size=size, **SMALL)
    return LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_index=7))


def adapted(model) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def test_adapters_of_a_vision_language_model_lie_on_its_language_model_alone():
    names = adapted(add_lora(vision_language(300), 4))
    assert names and not [n for n in names if "vision" in n or "projector" in n]
    for layer in ("q_proj", "o_proj", "gate_proj", "down_proj"):
        assert any(layer in name for name in names), layer


def test_adapters_of_a_text_model_lie_on_all_linear_layers_but_the_head():
    names = adapted(add_lora(tiny_llama(300), 4))
    assert {n.split(".")[-4] for n in names} == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"
    }  # fmt: skip


MOE = {
    "mixtral": lambda n: MixtralForCausalLM(MixtralConfig(vocab_size=n, num_local_experts=4, **SMALL)),
    "qwen3-moe": lambda n: Qwen3MoeForCausalLM(
        Qwen3MoeConfig(
            vocab_size=n, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=64, head_dim=16, **SMALL
        )
    ),
}


@pytest.mark.parametrize("name", MOE)
def test_a_model_that_is_hardly_in_4_bits_says_so_with_the_share_and_keeps_the_dtype(name, tokenizer, tmp_path, caplog):
    save_pretrained(MOE[name](len(tokenizer)), tokenizer, tmp_path)
    policy, _ = load_policy(str(tmp_path), lora_rank=4, quantization="nf4", dtype=torch.bfloat16, device="cpu")
    share = quantized_share(policy)
    assert share < 0.5 and f"only {share:.0%} of the layers' weights are in 4 bits" in caplog.text
    wide = {p.dtype for n, p in policy.named_parameters() if "lora_" not in n and not hasattr(p, "quant_state")}
    assert wide == {torch.bfloat16}


def test_experts_without_adapters_are_said_to_have_none(caplog):
    model = add_lora(MOE["mixtral"](300), 4)
    assert "experts" in caplog.text and "no adapters" in caplog.text
    assert all("self_attn" in name for name in adapted(model)), "PEFT would put them on the experts as well"


def test_a_dense_model_in_4_bits_is_all_in_4_bits_without_a_word(tokenizer, tmp_path, caplog):
    save_pretrained(tiny_llama(len(tokenizer)), tokenizer, tmp_path)
    policy, _ = load_policy(str(tmp_path), quantization="nf4", device="cpu")
    assert quantized_share(policy) == 1.0 and "4 bits" not in caplog.text


def held_bytes(model) -> int:
    """Bytes of all weights, and of what bitsandbytes keeps to read those in 4 bits."""
    total = 0
    for parameter in model.parameters():
        total += parameter.numel() * parameter.element_size()
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            total += sum(t.numel() * t.element_size() for t in (state.absmax, state.code, state.offset))
            total += sum(t.numel() * t.element_size() for t in (state.state2.absmax, state.state2.code))
    return total


@pytest.mark.parametrize(("dtype", "precision"), [(torch.bfloat16, "bf16"), (torch.float32, "fp32")])
@pytest.mark.parametrize("tied", [False, True])
def test_the_loader_holds_the_bytes_that_are_estimated_for_qlora(tokenizer, tmp_path, dtype, precision, tied):
    from transformers import LlamaForCausalLM

    config = LlamaConfig(vocab_size=len(tokenizer), tie_word_embeddings=tied, **SMALL)
    save_pretrained(LlamaForCausalLM(config), tokenizer, tmp_path)
    policy, _ = load_policy(str(tmp_path), lora_rank=4, quantization="nf4", dtype=dtype, device="cpu")
    found = estimate_memory(config, "sft", precision=precision, quantization="nf4", lora_rank=4)
    assert held_bytes(policy) == pytest.approx(found.by_kind["weights"], rel=1e-6)


def test_a_router_s_own_loss_is_said_not_to_be_added(tokenizer, caplog):
    model = MOE["mixtral"](len(tokenizer))
    model.config.output_router_logits, model.config.router_aux_loss_coef = True, 10.0
    PreferenceTrainer(model, tokenizer, preference_records(4), PreferenceConfig(progress=False))
    assert "router_aux_loss_coef=10" in caplog.text
