"""Reading how a model is built from its transformers config; a family that is not known is held against the model."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from math import prod

from course_lib.sizing.shapes import Architecture

logger = logging.getLogger(__name__)
FAMILY_OF = {  # transformers' model type: whose code it is
    "llama": "llama", "mistral": "llama", "qwen2": "llama", "qwen3": "llama", "gemma": "gemma", "gemma2": "gemma2",
    "gemma3_text": "gemma3", "phi3": "phi3", "gpt2": "gpt2", "mixtral": "mixtral", "qwen3_moe": "qwen3-moe",
    "gpt_oss": "gpt-oss",
}  # fmt: skip


def from_config(config) -> Architecture:
    """The numbers of a transformers config; of a model that sees or hears too, those of its language model.

    A family outside `FAMILY_OF` is read as a Llama, and held against the model that transformers builds without data.

    Raises:
        ValueError: for heads that do not divide, or a family whose weights are not those of a Llama of this config.
    """
    text = config.get_text_config()
    if text is not config:
        logger.warning("%s models see or hear too: counted is the language model alone", config.model_type)
    if text.model_type in FAMILY_OF:
        return _read(text, FAMILY_OF[text.model_type])
    return _held_against_the_model(text)


def _read(config, family: str) -> Architecture:
    hidden, heads, layers = (_of(config, n) for n in ("hidden_size", "num_attention_heads", "num_hidden_layers"))
    sizes = {"vocab_size": config.vocab_size, "hidden_size": hidden, "num_hidden_layers": layers}
    if min(sizes.values()) < 1:
        raise ValueError(f"a model has at least one of each; got {sizes}")
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head_size = getattr(config, "head_dim", None) or hidden // heads
    if heads % kv_heads or (getattr(config, "head_dim", None) is None and hidden % heads):
        raise ValueError(
            f"the heads do not divide: hidden size {hidden}, {heads} heads, {kv_heads} key-value heads; the heads "
            "must be a multiple of the key-value heads, and divide the hidden size"
        )
    window = getattr(config, "sliding_window", None) or 0
    kinds = getattr(config, "layer_types", None) or ["sliding_attention" if window else "full_attention"] * layers
    gpt2, bias = family == "gpt2", bool(getattr(config, "attention_bias", False)) and family not in ("phi3", "mixtral")
    return Architecture(
        getattr(config, "name_or_path", "") or config.model_type,
        config.vocab_size,
        hidden,
        layers,
        heads,
        kv_heads,
        head_size,
        (config.n_inner or 4 * hidden) if gpt2 else _of(config, "intermediate_size"),
        family=family,
        tied=bool(config.tie_word_embeddings),
        qkv_bias=gpt2 or bias or config.model_type == "qwen2",
        out_bias=gpt2 or (bool(getattr(config, "attention_out_bias", bias)) and bias),
        mlp_bias=gpt2 or (family == "llama" and bool(getattr(config, "mlp_bias", False))),
        qk_norm=config.model_type in ("qwen3", "qwen3_moe", "gemma3_text"),
        rotary_size=_turned(config, head_size),
        score_cap=family == "gemma2" and bool(config.attn_logit_softcapping),
        logit_cap=bool(getattr(config, "final_logit_softcapping", None)),
        window=window if "sliding_attention" in kinds else 0,
        sliding_layers=kinds[:layers].count("sliding_attention"),
        positions=config.n_positions if gpt2 else 0,
        **_experts(config, family, layers),
    )


def _of(config, name: str) -> int:
    found = getattr(config, name, None)
    if not isinstance(found, int):
        raise ValueError(f"it has no {name}")
    return found


def _turned(config, head_size: int) -> int | None:
    """The part of a head that positions turn, where it is not the whole."""
    rope = getattr(config, "rope_parameters", None) or {}
    share = rope.get("partial_rotary_factor", getattr(config, "partial_rotary_factor", None)) or 1
    return None if share == 1 else int(head_size * share)


def _experts(config, family: str, layers: int) -> dict:
    if family not in ("mixtral", "qwen3-moe", "gpt-oss"):
        return {}
    qwen = family == "qwen3-moe"
    experts = config.num_experts if qwen else config.num_local_experts
    plain, every = (config.mlp_only_layers or [], config.decoder_sparse_step) if qwen else ([], 1)
    return {
        "experts": experts,
        "experts_per_token": config.num_experts_per_tok,
        "expert_size": config.moe_intermediate_size if qwen else config.intermediate_size,
        "dense_layers": tuple(i for i in range(layers) if i in plain or (i + 1) % every or not experts),
    }


def _held_against_the_model(config) -> Architecture:
    """A family that is not known, if all its weights have the shapes of a Llama's, with norms on queries or without."""
    kind, known = config.model_type, ", ".join(FAMILY_OF)
    try:
        plain, real = _read(config, "llama"), _shapes_of_the_model(config)
    except (ValueError, AttributeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"models of type {kind!r} are not counted here, and their config does not tell how they are built "
            f"({reason}); known are {known}. Give its number of parameters instead (its states alone)"
        ) from error
    for arch in (plain, replace(plain, qk_norm=True), replace(plain, qkv_bias=True, out_bias=False)):
        if _shapes(arch) == real:
            logger.warning("%s models are not known here; all weights have a Llama's shapes, so it counts as one", kind)
            return arch
    held = sum(prod(shape) * count for shape, count in real.items())
    raise ValueError(
        f"models of type {kind!r} are not counted here: this one's {held:,} parameters do not have the shapes of a "
        f"Llama's with its config ({plain.parameters():,}); known are {known}. Give its number of parameters instead "
        "(its states alone)"
    )


def _shapes(arch: Architecture) -> Counter:
    found: Counter = Counter()
    for weight in arch.weights():
        found[weight.shape] += weight.count
    return found


def _shapes_of_the_model(config) -> Counter:
    """Of all weights, as transformers builds the model; on the meta device, where they take no memory."""
    import torch  # only here: all else of this room is there without it
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return Counter(tuple(p.shape) for p in model.parameters())
