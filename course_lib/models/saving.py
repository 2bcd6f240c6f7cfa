"""Saving models whole: what is loaded again, anywhere, is what was in memory."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError

from course_lib.logprobs import unwrapped

BASE = "base"  # folder inside a folder of adapters, for a base that no name stands for
NOTE = "course_lib.json"  # what from_pretrained has no place for: how the base under the adapters was held
ENTRANCES = ("config.json", "adapter_config.json")  # without these nothing is loaded
OURS = (
    "*.safetensors", "*.safetensors.index.json", "*config.json", "tokenizer*", "special_tokens_map.json",
    "added_tokens.json", "vocab.*", "merges.txt", "spiece.model", "chat_template*", NOTE,
)  # fmt: skip


class Origin(NamedTuple):
    """Where a model came from, and what its weights looked like then."""

    name: str  # that others can load too: a shipped name or a hub name; empty for a folder of one machine
    digest: str


def remember_origin(model, name: str) -> None:
    """Keep with a freshly loaded model the name that gives it again."""
    model.loaded_from = Origin(name, _digest(model))


def save_pretrained(model, tokenizer, folder: str | Path) -> None:
    """Write weights (safetensors), config and tokenizer so that `load_policy` and `from_pretrained` read them back.

    Adapters are written alone where their base can be had again under a name (a shipped model or one on a hub, not
    changed since). Otherwise the base is written too, in the folder `base` inside, so the folder can move to another
    machine; peft reads it with `PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder / "base"),
    folder)`.

    All of it is written beside what is there, and then put in its place: a full disk leaves an older model as it was.
    A model's files that do not belong to the new one are removed, and all other files stay.

    Raises:
        OSError: if the folder cannot be written; it says which disk, how much is needed and how much is free.
    """
    folder = Path(folder)
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _refuse_full_disk(model, folder)
        with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=folder) as unfinished:
            _write(unwrapped_adapters(model), Path(unfinished))
            tokenizer.save_pretrained(unfinished)
            _swap_in(Path(unfinished), folder)
    except (OSError, SafetensorError) as error:
        if new:
            shutil.rmtree(folder, ignore_errors=True)
        raise OSError(f"the model could not be saved to {folder}: {error}. {_room(model, folder)}") from error


def unwrapped_adapters(model):
    """The model inside the wrappers of distributed training, with its adapters if it has any."""
    while inner := getattr(model, "module", None) or getattr(model, "_orig_mod", None):
        model = inner
    return model


def _write(model, folder: Path) -> None:
    if not hasattr(model, "peft_config"):
        model.save_pretrained(folder)
        return
    base, origin = model.get_base_model(), getattr(model.get_base_model(), "loaded_from", None)
    named = origin is not None and origin.name and origin.digest == _digest(base)
    model.save_pretrained(folder, save_embedding_layers=False)
    if not named:
        base.save_pretrained(folder / BASE, state_dict=_without_adapters(base))
    for config in folder.rglob("adapter_config.json"):
        values = json.loads(config.read_text())
        values["base_model_name_or_path"] = origin.name if named else BASE
        config.write_text(json.dumps(values, indent=2, sort_keys=True))
    if getattr(base, "is_loaded_in_4bit", False):
        (folder / NOTE).write_text(json.dumps({"quantization": "nf4"}))


def _without_adapters(base) -> dict[str, torch.Tensor]:
    """The weights under the adapters, by the names that they have without them."""
    return {
        name.replace(".base_layer.", ".").replace(".original_module.", "."): tensor
        for name, tensor in base.state_dict().items()
        if "lora_" not in name and ".modules_to_save." not in name
    }


def _digest(model) -> str:
    """A name for a model's weights from a few hundred numbers of each: merging, resizing or training changes it."""
    digest = hashlib.sha256()
    for name, tensor in sorted(_without_adapters(model).items()):
        if name.startswith(("score.", "classifier.")) or not isinstance(tensor, torch.Tensor):
            continue  # a head that the checkpoint lacks is drawn anew each time
        flat = tensor.detach().flatten()
        some = flat[:: max(1, len(flat) // 512)].cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(some.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _swap_in(unfinished: Path, folder: Path) -> None:
    """Put the new files in place. The files by which a model is found go first and come last, so that whoever reads in
    between, or after a crash, finds the old model, none, or the new one."""
    for name in ENTRANCES:
        (folder / name).unlink(missing_ok=True)
    for pattern in OURS:
        for path in folder.glob(pattern):
            path.unlink()
    shutil.rmtree(folder / BASE, ignore_errors=True)
    for path in sorted(unfinished.iterdir(), key=lambda path: path.name in ENTRANCES):
        path.rename(folder / path.name)


def _needed(model) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())


def _refuse_full_disk(model, folder: Path) -> None:
    inner = unwrapped_adapters(model)
    adapters_alone = hasattr(inner, "peft_config") and getattr(unwrapped(inner), "loaded_from", Origin("", "")).name
    if not adapters_alone and _needed(model) > shutil.disk_usage(folder).free:
        raise OSError("the disk is too full")


def _room(model, folder: Path) -> str:
    there = next((path for path in (folder, *folder.absolute().parents) if path.exists()), Path("/"))
    free = shutil.disk_usage(there).free
    return f"All weights need {_needed(model) / 1e9:.2f} GB; the disk of {there} has {free / 1e9:.2f} GB free"
