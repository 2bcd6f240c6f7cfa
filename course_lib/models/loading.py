"""Loading a policy or reward model: shipped, local or from a hub; full, LoRA or QLoRA."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from course_lib.data import adds_bos, plain_template
from course_lib.data.hub import offline_if_unreachable
from course_lib.models.adapters import add_lora, nf4, warn_of_wide_matrices
from course_lib.models.saving import BASE, NOTE, remember_origin
from course_lib.world import CHECKPOINTS

logger = logging.getLogger(__name__)
SAFE = {"trust_remote_code": False, "use_safetensors": True}  # nothing that is loaded runs code of its own


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
        dtype: of the weights, with "nf4" of those that are not in 4 bits; by default bf16 for the frozen weights of
            LoRA on a GPU, and fp32 otherwise, because the small updates of full fine-tuning round to nothing in bf16.
        device: by default the first GPU, or the CPU.

    Returns:
        `(model, tokenizer)`; the tokenizer has a pad token and a chat template.

    Raises:
        ValueError: for an unknown quantization, or a LoRA rank below 1.
        OSError: if the name is neither shipped, nor a local folder, nor to be had from the hub; if the base of saved
            adapters is missing; if a checkpoint is damaged, or pickled instead of in safetensors.
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
        options |= {"quantization_config": nf4(dtype), "device_map": {"": device}}
    model, tokenizer = _load(AutoModelForCausalLM, name_or_path, options)
    quantized = getattr(model, "is_loaded_in_4bit", False)
    if quantized:
        warn_of_wide_matrices(model)
    if lora_rank is not None:
        model = add_lora(model.merge_and_unload() if hasattr(model, "peft_config") else model, lora_rank)
    elif quantized and not hasattr(model, "peft_config"):
        model.requires_grad_(False)
    return (model if quantized else model.to(device)).eval(), tokenizer


def load_reward_model(
    name_or_path: str = "pocket-world-reward",
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model with one scalar output a sequence, and its tokenizer.

    Args and errors as in `load_policy`. A checkpoint without a reward head, such as an SFT policy, gets a new one; a
    policy's adapters stay adapters, and are trained together with the head.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    options = {"dtype": dtype or torch.float32, "num_labels": 1}
    model, tokenizer = _load(AutoModelForSequenceClassification, name_or_path, options)
    return model.to(device).eval(), tokenizer


def _load(auto_class, name: str, options: dict):
    source = _resolved(name)
    _refuse_missing_folder(source, f"there is no folder {source}")
    try:
        with offline_if_unreachable():
            adapters = _adapter_config(source)
            base = _resolved(_base_of(adapters, Path(source)), beside=Path(source)) if adapters else source
            _refuse_missing_folder(base, f"the adapters in {source} lie on the base model {base}, which is not there")
            _refuse_pickles(source)
            _refuse_pickles(base)
            model = auto_class.from_pretrained(base, **SAFE, **options)
            remember_origin(model, "" if Path(base).is_dir() and base not in _SHIPPED else _SHIPPED.get(base, base))
            if adapters:
                model = _with_adapters(model, source, adapters)
            tokenizer = _tokenizer(source, base)
    except SafetensorError as error:
        raise OSError(f"{_damaged(source, base)} is damaged ({error}); copy or download it again") from error
    except FoundPickles:
        raise
    except OSError as error:
        raise OSError(
            f"could not load {name!r}: it is not a shipped model ({', '.join(CHECKPOINTS)}) nor a local "
            f"folder with a checkpoint, and the hub gave: {error}\nWithout internet, use one of the shipped "
            "models or a folder that save_pretrained wrote."
        ) from error
    return model, _complete(tokenizer, model)


_SHIPPED = {str(folder): name for name, folder in CHECKPOINTS.items()}


class FoundPickles(OSError):
    """A checkpoint that would have to be unpickled."""


def _resolved(name: str, beside: Path | None = None) -> str:
    """A shipped name's folder, a local folder's full path (first as seen from `beside`), or the name as it is."""
    if name in CHECKPOINTS:
        return str(CHECKPOINTS[name])
    for place in ([beside / name] if beside else []) + [Path(name).expanduser()]:
        if place.is_dir():
            return str(place.resolve())
    return str(name)


def _refuse_missing_folder(name: str, message: str) -> None:
    """A name with a path's look is no hub name, and need not be looked up."""
    a_path = Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or "\\" in name
    if a_path and not Path(name).is_dir():
        raise FileNotFoundError(f"{message}; check the path, or bring the folder back (now in {Path.cwd()})")


def _adapter_config(source: str):
    """The config of the adapters in a folder or on the hub; None if it holds a whole model."""
    if Path(source).is_dir():
        here = Path(source, "adapter_config.json")
        return json.loads(here.read_text()) if here.is_file() else None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

    try:
        return json.loads(Path(hf_hub_download(source, "adapter_config.json")).read_text())
    except (EntryNotFoundError, LocalEntryNotFoundError, HFValidationError):
        return None


def _base_of(adapters: dict, source: Path) -> str:
    return BASE if (source / BASE).is_dir() else adapters["base_model_name_or_path"]


def _with_adapters(model, source: str, adapters: dict):
    """The base with its saved adapters, which can be trained on."""
    from peft import PeftConfig, PeftModel

    config = PeftConfig.from_pretrained(source)
    if getattr(model, "num_labels", None) == 1 and hasattr(model, "score") and config.task_type != "SEQ_CLS":
        config.task_type, config.modules_to_save = "SEQ_CLS", ["score"]  # a policy's adapters under a new head
    note = Path(source, NOTE)
    held = json.loads(note.read_text())["quantization"] if note.is_file() else None
    if held and not getattr(model, "is_loaded_in_4bit", False):
        logger.warning(
            "these adapters were trained on a base in 4 bits (%s), and lie on a wider one now, which scores a little "
            "otherwise; load with quantization=%r for the model that was trained",
            held,
            held,
        )
    return PeftModel.from_pretrained(model, source, config=config, is_trainable=True)


def _refuse_pickles(source: str) -> None:
    folder = Path(source)
    pickled = [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")] if folder.is_dir() else []
    weights = [path for path in pickled if "model" in path.name]
    if weights and not list(folder.glob("*.safetensors")):
        raise FoundPickles(
            f"{weights[0]} is a pickle, which can run code when it is read; convert it where you trust it: load it with "
            "transformers or peft and call save_pretrained, which writes safetensors"
        )


def _tokenizer(source: str, base: str):
    """The folder's own tokenizer; adapters alone may have been saved without one."""
    has_own = not Path(source).is_dir() or any(Path(source).glob("tokenizer*"))
    return AutoTokenizer.from_pretrained(source if has_own else base, trust_remote_code=False)


def _damaged(source: str, base: str) -> str:
    for folder in (Path(source), Path(base)):
        for path in sorted(folder.glob("*.safetensors")) if folder.is_dir() else []:
            try:
                with safe_open(path, framework="pt"):
                    pass
            except SafetensorError:
                return str(path)
    return source


def _complete(tokenizer, model):
    """See that padding and chat messages work with any tokenizer."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.chat_template is None:
        logger.warning("%s has no chat template; using a plain one", tokenizer.name_or_path)
        tokenizer.chat_template = plain_template(tokenizer.bos_token if adds_bos(tokenizer) else "")
    model.config.pad_token_id = tokenizer.pad_token_id
    return tokenizer
