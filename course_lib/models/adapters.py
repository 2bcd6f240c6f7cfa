"""LoRA adapters and quantised weights: where they go, and a word where they do not go everywhere."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence

import torch

logger = logging.getLogger(__name__)
MOSTLY = 0.9  # of a model's matrices quantised: below, the memory that one quantises for is not saved
BITS = {"nf4": 4, "int8": 8}


def add_lora(model, rank: int, alpha: float | None = None, targets: Sequence[str] | None = None):
    """New adapters on all linear layers of the language model, its output layer left out; the rest is frozen.

    Of a mixture of experts, on attention's layers alone.

    Args:
        alpha: the adapters' product is multiplied by alpha / rank; by default 2.
        targets: names of the layers that get adapters instead, by their last part, such as "q_proj".

    Raises:
        ValueError: no layer has such a name.
    """
    from peft import LoraConfig, get_peft_model

    if targets is not None:
        _refuse_unknown(targets, model)
    modules = _targets(model) if targets is None else list(targets)
    config = LoraConfig(r=rank, lora_alpha=alpha or 2 * rank, target_modules=modules, task_type="CAUSAL_LM")
    if experts := sum(p.numel() for p in _experts(model)):
        logger.warning(
            "%.3g million weights are experts held in one tensor a layer: they get no adapters and stay as they are",
            experts / 1e6,
        )
    with torch.random.fork_rng():
        torch.manual_seed(0)  # adapters begin the same way each time, so that a run repeats from its own seed
        return get_peft_model(model, config)


def _refuse_unknown(targets: Sequence[str], model) -> None:
    linear = {name.rpartition(".")[2] for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    if isinstance(targets, str) or not targets or set(targets) - linear:
        raise ValueError(f"lora_targets are names of linear layers, of {sorted(linear)}; got {targets!r}")


def load_adapters(model, source: str):
    """The base with its saved adapters, to be trained on; a policy's adapters get the reward head that they lack."""
    from peft import PeftConfig, PeftModel, get_peft_model, load_peft_weights, set_peft_model_state_dict

    config = PeftConfig.from_pretrained(source)
    if not hasattr(model, "score") or config.task_type != "CAUSAL_LM":
        return PeftModel.from_pretrained(model, source, is_trainable=True)
    config.task_type, config.modules_to_save, config.inference_mode = "SEQ_CLS", ["score"], False
    head = {f"base_model.model.score.{name}": tensor.clone() for name, tensor in model.score.state_dict().items()}
    weights = head | load_peft_weights(source, device="cpu")
    model = get_peft_model(model, config)
    set_peft_model_state_dict(model, weights)
    return model


def quantized(kind: str, dtype: torch.dtype):
    """How transformers is to hold a model: "nf4" in blocks of 64 with their scales in 8 bits, or "int8" by rows.

    What is not quantised, and with NF4 all products, are in `dtype`.
    """
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        # bitsandbytes says at every product that inputs are rounded to fp16 first
        logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def quantization_of(model) -> str | None:
    """How the weights are kept: "nf4", "int8", or None where they are wide."""
    if getattr(model, "is_loaded_in_8bit", False):
        return "int8"
    return "nf4" if getattr(model, "is_loaded_in_4bit", False) else None


def keep_one_packing(model) -> None:
    """Hold 4-bit weights on a CPU as they were loaded.

    On CPUs with AVX512-BF16 bitsandbytes packs them anew at the first forward in evaluation mode: to a layout that only
    some widths fit, and that training then reads wrongly.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def warn_of_wide_matrices(model) -> None:
    """Say so where much of a model that was to be held in 4 or 8 bits is not."""
    share = quantized_share(model)
    if share < MOSTLY:
        wide = sum(p.numel() * p.element_size() for p in _wide(model))
        logger.warning(
            "only %.0f%% of the layers' weights are in %d bits, and the others take %.3g GB: bitsandbytes quantises "
            "linear layers%s",
            100 * share,
            BITS[quantization_of(model)],
            wide / 1e9,
            ", and this model holds its experts in tensors of another kind" if _experts(model) else "",
        )


def quantized_share(model) -> float:
    """Of the weights in the layers' matrices, embeddings and output layer left out."""
    narrow = sum(_elements(p) for p in model.parameters() if _is_narrow(p))
    return narrow / max(1, narrow + sum(p.numel() for p in _wide(model)))


def _is_narrow(p: torch.nn.Parameter) -> bool:
    return hasattr(p, "quant_state") or p.dtype == torch.int8


def _elements(p: torch.nn.Parameter) -> int:
    """Of a quantised matrix; in 4 bits two of them share a byte."""
    return p.quant_state.shape.numel() if hasattr(p, "quant_state") else p.numel()


def _wide(model) -> list[torch.nn.Parameter]:
    """The layers' matrices that are not quantised."""
    apart = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    if (head := model.get_output_embeddings()) is not None:
        apart.add(id(head.weight))
    layers = [p for name, p in model.named_parameters() if "lora_" not in name]
    return [p for p in layers if p.dim() > 1 and not _is_narrow(p) and id(p) not in apart]


def _experts(model) -> list[torch.nn.Parameter]:
    """Of the kind that is neither quantised nor adapted: all experts of a layer in one tensor."""
    return [p for name, p in model.named_parameters() if p.dim() == 3 and "expert" in name]


def _targets(model) -> str | list[str]:
    """All linear layers; of a model that sees or hears too, those of its language model, as text trains no others.

    Of a mixture of experts attention's alone: PEFT takes the names of an MLP's layers for those of the experts.
    """
    if _experts(model):
        return [name for name, m in model.named_modules() if isinstance(m, torch.nn.Linear) and "attn" in name]
    config = model.config
    if config.get_text_config() is config:
        return "all-linear"
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    prefix = next(name for name, module in model.named_modules() if module is decoder)
    linear = [name for name, m in decoder.named_modules() if isinstance(m, torch.nn.Linear) and m is not head]
    last = sorted({name.rpartition(".")[2] for name in linear})
    return rf"{re.escape(prefix)}\..*\.({'|'.join(last)})"
