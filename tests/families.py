"""Tiny random models of many families, made on the spot from whatever the installed transformers knows of them."""

from __future__ import annotations

import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM

BASE = {
    "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
HEAD = {"head_dim": 8}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
SCAN = {"state_size": 8, "num_heads": 8, "head_dim": 8, "n_groups": 2, "expand": 2, "chunk_size": 8}
HYBRID = {"mamba_d_state": 8, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_chunk_size": 8}
LATENT = {
    "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8,
    "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "num_key_value_heads": 4,
}  # fmt: skip
LINEAR = {
    "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
    "layer_types": ["linear_attention", "full_attention"],
}  # fmt: skip
OWN = {
    "apertus": {}, "arcee": {}, "bamba": HYBRID | {"attn_layer_indices": [1]}, "biogpt": {},
    "bitnet": {}, "bloom": {"n_layer": 2, "n_head": 4}, "codegen": {"n_embd": 32, "n_layer": 2, "n_head": 4,
    "rotary_dim": 4, "n_positions": 64, "n_ctx": 64}, "cohere": {}, "cohere2": {}, "ctrl": {"n_embd": 32, "dff": 48,
    "n_layer": 2, "n_head": 4, "n_positions": 64}, "deepseek_v2": LATENT | EXPERTS | {"topk_method": "greedy"},
    "deepseek_v3": LATENT | EXPERTS, "diffllama": {}, "doge": HEAD, "ernie4_5": HEAD, "exaone4": {}, "falcon": {},
    "falcon_h1": HYBRID | {"mamba_d_ssm": 64}, "falcon_mamba": SCAN, "gemma": HEAD, "gemma2": HEAD, "gemma3_text": HEAD,
    "glm": HEAD, "glm4": HEAD, "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "gpt_bigcode": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": 16},
    "gpt_neox": {}, "gpt_neox_japanese": {}, "gpt_oss": HEAD | EXPERTS,
    "gptj": {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": 64}, "granite": {},
    "granitemoe": EXPERTS, "granitemoehybrid": EXPERTS | HYBRID | {"layer_types": ["mamba", "attention"],
    "shared_intermediate_size": 16}, "helium": HEAD, "hunyuan_v1_dense": HEAD,
    "jamba": EXPERTS | {"mamba_d_state": 8, "mamba_dt_rank": 4, "use_mamba_kernels": False, "attn_layer_period": 2,
    "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1}, "jetmoe": EXPERTS | {"kv_channels": 8},
    "lfm2": {"layer_types": ["conv", "full_attention"]}, "llama": {}, "mamba": SCAN, "mamba2": SCAN,
    "minimax": EXPERTS | {"layer_types": ["linear_attention", "full_attention"], "block_size": 8} | HEAD,
    "mistral": {}, "mixtral": EXPERTS, "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4,
    "max_seq_len": 64}, "nemotron": {}, "olmo": {}, "olmo2": {}, "olmo3": {}, "olmo_hybrid": LINEAR, "olmoe": EXPERTS,
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32}, "persimmon": {}, "phi": {},
    "phi3": {"original_max_position_embeddings": 64},
    "phimoe": EXPERTS, "qwen2": {}, "qwen2_moe": EXPERTS | {"shared_expert_intermediate_size": 16}, "qwen3": HEAD,
    "qwen3_moe": HEAD | EXPERTS, "qwen3_next": HEAD | EXPERTS | LINEAR | {"shared_expert_intermediate_size": 16},
    "recurrent_gemma": {"lru_width": 32, "block_types": ["recurrent", "attention"], "attention_window_size": 32} | HEAD,
    "rwkv": {"attention_hidden_size": 32}, "seed_oss": HEAD, "smollm3": {}, "stablelm": {}, "starcoder2": {},
    "vaultgemma": HEAD,
    "xglm": {"d_model": 32, "ffn_dim": 48, "num_layers": 2, "attention_heads": 4},
    "zamba2": HYBRID | {"mamba_ngroups": 1, "n_mamba_heads": 8, "mamba_headdim": 8, "chunk_size": 8,
    "layers_block_type": ["mamba", "hybrid"], "num_mem_blocks": 1, "hybrid_layer_ids": [1]},
}  # fmt: skip


KNOWN = sorted(family for family in OWN if family in CONFIG_MAPPING)


def model_of(family: str, scale: float = 5.0):
    """A random model whose weights are large enough for its context to matter."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **BASE | OWN[family])).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(scale)
    return model
