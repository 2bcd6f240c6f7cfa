"""Loading a policy or reward model: shipped, local or from a hub; full, LoRA or QLoRA."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
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

from course_lib.data import PLAIN_CHAT_TEMPLATE
from course_lib.hub import offline_if_unreachable
from course_lib.logprobs import unwrapped
from course_lib.models.adapters import (
    BITS,
    add_lora,
    keep_one_packing,
    load_adapters,
    quantization_of,
    quantized,
    warn_of_wide_matrices,
)
from course_lib.models.saving import NOTE, remember_origin
from course_lib.models.smollm2 import smollm2_folder
from course_lib.world import CHECKPOINTS

logger = logging.getLogger(__name__)
SAFE = {"trust_remote_code": False, "use_safetensors": True}  # nothing that is loaded runs code of its own


def load_policy(
    name_or_path: str = "pocket-world",
    *,
    lora_rank: int | None = None,
    lora_alpha: float | None = None,
    lora_targets: Sequence[str] | None = None,
    quantization: str | None = None,
    dtype: torch.dtype | None = None,
    device: str | torch.device | None = None,
    device_map: str | dict | None = None,
    attention: str | None = None,
    revision: str | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A causal language model and its tokenizer, ready to train or sample.

    Args:
        name_or_path: "pocket-world" (the shipped base model), "pocket-world-sft" (the same after SFT), "smollm2" (a
            real one, after `course fetch smollm2`), a local folder, or a hub name. A folder of saved adapters gives its
            base model with them, to train on.
        lora_rank: train new LoRA adapters of this rank on all linear layers instead of all weights; adapters
            that were loaded are merged into the weights first.
        lora_alpha: adapters are multiplied by lora_alpha / lora_rank; by default twice the rank.
        lora_targets: names of linear layers that get adapters instead of all, such as ["q_proj", "v_proj"].
        quantization: None, or what to hold the frozen weights in (needs `lora_rank` to train): "nf4", 4 bits, or
            "int8", 8 bits (LLM.int8).
        dtype: of the weights that are not quantised; by default bf16 for the frozen weights of LoRA on a GPU, and
            fp32 otherwise, because the small updates of full fine-tuning round to nothing in bf16.
        device: by default the first GPU, or the CPU.
        device_map: spread a model over several GPUs instead, as transformers does: "auto", or module names to devices.
        attention: transformers' implementation: "sdpa", "eager", "flash_attention_2"; by default its own choice.
        revision: branch, tag or commit of a model on the hub.

    Returns:
        `(model, tokenizer)`; the tokenizer has a pad token and a chat template.

    Raises:
        ValueError: for an unknown quantization, a LoRA rank below 1, LoRA's settings without a rank, unknown targets,
            or both a device and a device map.
        OSError: if the name is neither shipped, nor a local folder, nor to be had from the hub; if the base of saved
            adapters is missing; if a checkpoint is damaged, or pickled instead of in safetensors.
    """
    if quantization not in (None, *BITS):
        raise ValueError(f"quantization is None or one of {', '.join(map(repr, BITS))}; got {quantization!r}")
    if lora_rank is not None and lora_rank < 1:
        raise ValueError(f"lora_rank is at least 1, or None to train all weights; got {lora_rank}")
    if lora_rank is None and (lora_alpha or lora_targets):
        raise ValueError("lora_alpha and lora_targets belong to new adapters: give lora_rank too")
    if device is not None and device_map is not None:
        raise ValueError("give either device or device_map")
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if dtype is None:
        dtype = torch.bfloat16 if device.type != "cpu" and (lora_rank or quantization) else torch.float32
    known = {"attn_implementation": attention, "revision": revision, "device_map": device_map}
    options = {"dtype": dtype} | {name: value for name, value in known.items() if value is not None}
    if quantization:
        options |= {"quantization_config": quantized(quantization, dtype), "device_map": device_map or {"": device}}
    model, tokenizer = _load(AutoModelForCausalLM, name_or_path, options)
    held = quantization_of(unwrapped(model))
    if held:
        keep_one_packing(model)
        warn_of_wide_matrices(model)
    if lora_rank is not None:
        whole = model.merge_and_unload() if hasattr(model, "peft_config") else model
        model = add_lora(whole, lora_rank, lora_alpha, lora_targets)
    elif held and not hasattr(model, "peft_config"):
        model.requires_grad_(False)
    placed = held is not None or device_map is not None
    return (model if placed else model.to(device)).eval(), tokenizer


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
    if getattr(unwrapped(model), "score", None) is None:
        raise ValueError(f"{type(unwrapped(model)).__name__} has no head named `score`; take a decoder such as Llama")
    return model.to(device).eval(), tokenizer


def _load(auto_class, name: str, options: dict):
    source = base = folder_or_name(name)
    try:
        with offline_if_unreachable():
            _refuse_missing_folder(source, f"there is no folder {source}")
            if adapters := _adapter_config(source):
                if "revision" in options:
                    raise ValueError(f"{name!r} holds adapters; a revision is taken for whole models alone")
                base = folder_or_name(adapters["base_model_name_or_path"], beside=Path(source))
                _refuse_missing_folder(base, f"the adapters in {source} lie on the base model {base}, which is missing")
            for folder in {source, base}:
                _refuse_unsafe(folder)
            model, found = auto_class.from_pretrained(base, **SAFE, **options, output_loading_info=True)
            remember_origin(model, _portable(base), new_head=any("score." in name for name in found["missing_keys"]))
            if adapters:
                _refuse_pickles_on_hub(source)
                _warn_of_a_wider_base(model, source)
                model = load_adapters(model, source)
            tokenizer = _tokenizer(source, base, options.get("revision"))
    except CheckpointError:
        raise
    except ValueError as error:
        if "custom code" not in str(error) and "trust_remote_code" not in str(error):
            raise
        message = f"{name!r} needs code of its own, which is not run: take a model that transformers has a class for"
        raise CheckpointError(message) from error
    except SafetensorError as error:
        raise CheckpointError(f"{_damaged(source, base)} is damaged ({error}); copy or download it again") from error
    except OSError as error:
        if base != source:
            message = f"the adapters in {source} lie on the base model {base}, which could not be loaded: {error}"
            raise CheckpointError(message) from error
        raise OSError(
            f"could not load {name!r}: it is not a shipped model ({', '.join(CHECKPOINTS)}) nor a local "
            f"folder with a checkpoint, and the hub gave: {error}\nWithout internet, use one of the shipped "
            "models or a folder that save_pretrained wrote."
        ) from error
    return model, _complete(tokenizer, model)


class CheckpointError(OSError):
    """A checkpoint that is known and cannot be used: damaged, pickled, or without its base."""


def _portable(base: str) -> str:
    """The name by which others can load the model too; empty for a folder of this machine."""
    shipped = {str(folder): name for name, folder in CHECKPOINTS.items()} | {str(smollm2_folder()): "smollm2"}
    return "" if Path(base).is_dir() and base not in shipped else shipped.get(base, base)


def folder_or_name(name: str, beside: Path | None = None) -> str:
    """A shipped name's folder, a local folder's full path, or the name as it is: what `from_pretrained` takes.

    The base of adapters is looked for in their folder, then in those around it, as another working directory or a move
    of both together leaves them side by side.

    Raises:
        OSError: smollm2 is named, and was not fetched.
    """
    if name in CHECKPOINTS:
        return str(CHECKPOINTS[name])
    if name == "smollm2":
        if not (smollm2_folder() / "config.json").is_file():
            raise CheckpointError("smollm2 is not here yet: run `course fetch smollm2` once (98 MB)")
        return str(smollm2_folder())
    around = [folder / name for folder in (beside, *beside.resolve().parents)] if beside else []
    for place in around:
        if (place / "config.json").is_file():
            return str(place.resolve())
    here = Path(name).expanduser()
    return str(here.resolve()) if here.is_dir() else str(name)


def _refuse_missing_folder(name: str, message: str) -> None:
    """A name with a path's look is no hub name, and need not be looked up."""
    a_path = Path(name).is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or "\\" in name
    if a_path and not Path(name).is_dir():
        raise CheckpointError(f"{message}; check the path, or bring the folder back (now in {Path.cwd()})")


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


def _warn_of_a_wider_base(model, source: str) -> None:
    note = Path(source, NOTE)
    held = json.loads(note.read_text())["quantization"] if note.is_file() else None
    if held and quantization_of(model) != held:
        logger.warning(
            "these adapters were trained on a base in %d bits (%s), and lie on another one now, which scores a little "
            "otherwise; load with quantization=%r for the model that was trained",
            BITS[held],
            held,
            held,
        )


def _refuse_pickles_on_hub(source: str) -> None:
    """PEFT has no switch for this: it takes adapters in a pickle where there are none in safetensors."""
    import huggingface_hub
    from huggingface_hub.errors import EntryNotFoundError

    if Path(source).is_dir():
        return
    try:
        huggingface_hub.hf_hub_download(source, "adapter_model.safetensors")
    except EntryNotFoundError as error:
        raise CheckpointError(f"{source} has no adapter_model.safetensors; a pickle is not read") from error


def _refuse_unsafe(source: str) -> None:
    """See that a local folder holds weights in safetensors."""
    folder = Path(source)
    if not folder.is_dir():
        return
    kind = "adapter_model" if (folder / "adapter_config.json").is_file() else "model"
    if kind == "model" and not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} holds no model: it has neither a config.json nor an adapter_config.json")
    pickled = sorted(path for path in folder.glob(f"*{kind}*") if path.suffix in (".bin", ".pt", ".pth"))
    if pickled and not list(folder.glob(f"{kind}*.safetensors")):
        raise CheckpointError(
            f"{pickled[0]} is a pickle, which can run code when it is read; where you trust it, load it with "
            "transformers or peft and call save_pretrained, which writes safetensors"
        )


def _tokenizer(source: str, base: str, revision: str | None):
    """The folder's own tokenizer; adapters alone may have been saved without one."""
    has_own = not Path(source).is_dir() or any(Path(source).glob("tokenizer*"))
    return AutoTokenizer.from_pretrained(
        source if has_own else base, trust_remote_code=False, revision=revision or "main"
    )


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
        tokenizer.chat_template = PLAIN_CHAT_TEMPLATE
    model.config.pad_token_id = tokenizer.pad_token_id
    return tokenizer
