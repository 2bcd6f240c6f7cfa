"""Loading a policy or reward model: shipped, local or from a hub; full, LoRA or QLoRA."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from course_lib.world import CHECKPOINTS

logger = logging.getLogger(__name__)

PLAIN_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '\n\n' if not loop.first }}{{ message['role'] | capitalize + ': ' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n\nAssistant: ' }}{% endif %}"
)


def load_policy(
    name_or_path: str = "pocket-world",
    *,
    lora_rank: int | None = None,
    quantization: str | None = None,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model and its tokenizer, ready to train or sample.

    Args:
        name_or_path: "pocket-world" (the shipped base model), "pocket-world-sft" (the same after SFT), a
            local folder, or a hub name. A folder of saved adapters gives its base model with them, to train on.
        lora_rank: train new LoRA adapters of this rank on all linear layers instead of all weights; adapters
            that were loaded are merged into the weights first.
        quantization: None, or "nf4": hold the frozen weights in 4 bits (needs `lora_rank` to train).
        dtype: of the weights; by default bf16 for the frozen weights of LoRA on a GPU, and fp32 otherwise, because
            the small updates of full fine-tuning round to nothing in bf16.
        device: by default the first GPU, or the CPU.

    Returns:
        `(model, tokenizer)`; the tokenizer has a pad token and a chat template.

    Raises:
        ValueError: for an unknown quantization, or a LoRA rank below 1.
        OSError: if the name is neither shipped, nor a local folder, nor to be had from the hub.
    """
    if quantization not in (None, "nf4"):
        raise ValueError(f"quantization is None or 'nf4'; got {quantization!r}")
    if lora_rank is not None and lora_rank < 1:
        raise ValueError(f"lora_rank is at least 1, or None to train all weights; got {lora_rank}")
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if dtype is None:
        dtype = torch.bfloat16 if device.type != "cpu" and (lora_rank or quantization) else torch.float32
    options = {"dtype": dtype}
    if quantization:
        options |= {"quantization_config": _nf4(dtype), "device_map": {"": device}}
    model, tokenizer = _load(AutoModelForCausalLM, name_or_path, options)
    if lora_rank is not None:
        if isinstance(model, PeftModel):
            model = model.merge_and_unload()
        model = _add_lora(model, lora_rank, quantized=quantization is not None)
    elif quantization and not isinstance(model, PeftModel):
        model.requires_grad_(False)
    return (model if quantization else model.to(device)).eval(), tokenizer


def load_reward_model(
    name_or_path: str = "pocket-world-reward",
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model with one scalar output a sequence, and its tokenizer.

    Args as in `load_policy`. A checkpoint without a reward head, such as an SFT policy, gets a new one.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    options = {"dtype": dtype or torch.float32, "num_labels": 1}
    model, tokenizer = _load(AutoModelForSequenceClassification, name_or_path, options)
    return model.to(device).eval(), tokenizer


def save_pretrained(model, tokenizer, folder: str | Path) -> None:
    """Write weights (safetensors), config and tokenizer so that `from_pretrained` reads them back.

    Raises:
        OSError: if the folder cannot be written.
    """
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _load(auto_class, name_or_path: str, options: dict):
    source = CHECKPOINTS.get(name_or_path, name_or_path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        if (Path(source) / "adapter_config.json").is_file():
            base = PeftConfig.from_pretrained(source).base_model_name_or_path
            model = auto_class.from_pretrained(base, **options)
            model = PeftModel.from_pretrained(model, source, is_trainable=True)
        else:
            model = auto_class.from_pretrained(source, **options)
    except OSError as error:
        raise OSError(
            f"could not load {name_or_path!r}: it is not a shipped model ({', '.join(CHECKPOINTS)}) nor a local "
            f"folder with a checkpoint, and the hub gave: {error}\nWithout internet, use one of the shipped "
            "models or a folder that save_pretrained wrote."
        ) from error
    return model, _complete(tokenizer, model)


def _complete(tokenizer, model):
    """See that padding and chat messages work with any tokenizer."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.chat_template is None:
        logger.warning("%s has no chat template; using a plain one", tokenizer.name_or_path)
        tokenizer.chat_template = PLAIN_CHAT_TEMPLATE
    model.config.pad_token_id = tokenizer.pad_token_id
    return tokenizer


def _nf4(dtype: torch.dtype):
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _add_lora(model, rank: int, *, quantized: bool):
    if quantized:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    with torch.random.fork_rng():
        torch.manual_seed(0)  # adapters begin the same way each time, so that a run repeats from its own seed
        return get_peft_model(model, config)
