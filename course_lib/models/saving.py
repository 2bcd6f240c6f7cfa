"""Saving models whole: what is loaded again, anywhere, is what was in memory."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from course_lib.logprobs import unwrapped
from course_lib.models.adapters import quantization_of

logger = logging.getLogger(__name__)
BASE = "base"  # folder inside a folder of adapters, for a base that no name stands for
NOTE = "course_lib.json"  # what from_pretrained has no place for: how the base under the adapters was held
ENTRANCES = ("config.json", "adapter_config.json")  # without these nothing is loaded
OURS = (
    "model*.safetensors", "adapter_model*.safetensors", "*.safetensors.index.json", "config.json",
    "adapter_config.json", "generation_config.json", "tokenizer*", "special_tokens_map.json",
    "added_tokens.json", "vocab.*", "merges.txt", "spiece.model", "chat_template*", NOTE,
)  # fmt: skip


class Origin(NamedTuple):
    """Where a model came from, and what its weights looked like then."""

    name: str  # that others can load too: a shipped name or a hub name; empty for a folder of one machine
    digest: str
    new_head: bool  # whether its reward head was drawn at random, as the checkpoint has none


def remember_origin(model, name: str, *, new_head: bool) -> None:
    """Keep with a freshly loaded model the name that gives it again."""
    model.loaded_from = Origin(name, _digest(model), new_head)


def save_pretrained(model, tokenizer, folder: str | Path) -> None:
    """Write weights (safetensors), config and tokenizer so that `load_policy` and `from_pretrained` read them back.

    Adapters are written alone where their base can be had again under a name (a shipped model or one on a hub, not
    changed since). Otherwise the base is written too, in the folder `base` inside, so the folder can move to another
    machine; peft reads it with `PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder / "base"),
    folder)`.

    All of it is written beside what is there, and then put in its place: a full disk leaves an older model as it was.
    A model's files that do not belong to the new one are removed, and all other files stay.

    Of several adapters the active one is written, as that is the model which scores; the log names the others.

    Raises:
        ValueError: if several adapters are active at once, or this process holds only a shard of the weights.
        OSError: if the folder cannot be written; it says which disk, how much is needed and how much is free.
    """
    if any(getattr(p, "ds_numel", p.numel()) != p.numel() for p in model.parameters()):
        raise ValueError(
            "each process holds a shard of this model's weights; call the trainer's save_pretrained, on all processes"
        )
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
    base, name = model.get_base_model(), _name_of_base(model)
    _write_adapters(model, folder)
    if not name:
        _write_base(base, folder / BASE)
    config = folder / "adapter_config.json"
    values = json.loads(config.read_text()) | {"base_model_name_or_path": name or BASE}
    config.write_text(json.dumps(values, indent=2, sort_keys=True))
    if quantization := quantization_of(base):
        (folder / NOTE).write_text(json.dumps({"quantization": quantization}))


def _name_of_base(model) -> str:
    """The name under which everybody gets the base as it is now; empty if there is none."""
    base = model.get_base_model()
    origin = getattr(base, "loaded_from", None)
    if origin is None or origin.digest != _digest(base):
        return ""
    lost_head = origin.new_head and not hasattr(base.score, "modules_to_save")  # neither adapters nor base hold it
    return "" if lost_head else origin.name


def _write_adapters(model, folder: Path) -> None:
    active = model.active_adapters if isinstance(model.active_adapters, list) else [model.active_adapter]
    if len(active) != 1:
        raise ValueError(f"{len(active)} adapters are active at once ({', '.join(active)}); activate one of them with "
                         "model.set_adapter(name), or merge them")  # fmt: skip
    if others := model.peft_config.keys() - set(active):
        logger.warning("saving the active adapters %r; these are left out: %s", active[0], ", ".join(sorted(others)))
    model.save_pretrained(folder, selected_adapters=active, save_embedding_layers=False)
    named = folder / active[0]  # peft's place for adapters that are not called "default"
    if named.is_dir():
        for path in named.iterdir():
            path.rename(folder / path.name)
        named.rmdir()


def _write_base(base, folder: Path) -> None:
    if not quantization_of(base):
        base.save_pretrained(folder, state_dict=_without_adapters(base))
        return
    folder.mkdir()  # transformers would write quantised weights under the names that they have beneath the adapters
    base.config.save_pretrained(folder)
    if getattr(base, "generation_config", None) is not None:
        base.generation_config.save_pretrained(folder)
    held: dict[int, str] = {}
    tensors = {
        name: tensor.contiguous()
        for name, tensor in _without_adapters(base).items()
        if held.setdefault(tensor.data_ptr(), name) == name  # a tied output layer is stored once
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _without_adapters(base) -> dict[str, torch.Tensor]:
    """The weights under the adapters, by the names that they have without them."""
    return {
        name.replace(".base_layer.", ".").replace(".original_module.", "."): tensor
        for name, tensor in base.state_dict().items()
        if isinstance(tensor, torch.Tensor) and "lora_" not in name and ".modules_to_save." not in name
    }


def _digest(model) -> str:
    """A name for a model's weights, from a sum over all of them and some of them in order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(_without_adapters(model).items()):
        flat = tensor.detach().contiguous().flatten().view(torch.uint8)
        whole = len(flat) // 8 * 8
        total = int(flat[:whole].view(torch.int64).sum()) + int(flat[whole:].sum())
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}{total}".encode())
        digest.update(flat[:: len(flat) // 512 | 1].cpu().numpy().tobytes())
    return digest.hexdigest()


def _swap_in(unfinished: Path, folder: Path) -> None:
    """Put the new files in the place of the old ones, and the old ones back if that is interrupted.

    The files by which a model is found go first and come last: whoever reads in between, or after a power cut, finds
    the old model, none, or the new one.
    """
    names = [path.name for path in unfinished.iterdir()]
    old = {path.name for pattern in OURS for path in folder.glob(pattern)} | {n for n in names if (folder / n).exists()}
    old = old - {BASE} | ({BASE} if _holds_own_base(folder) else set())
    if BASE in names and BASE not in old and (folder / BASE).exists():
        raise OSError(f"{folder / BASE} is something else, and the base under the adapters would go there")
    replaced = Path(tempfile.mkdtemp(prefix=".replaced-", dir=folder))
    try:
        _move(old, folder, replaced, entrances_last=False)
        _move(names, unfinished, folder, entrances_last=True)
    except BaseException:
        _move([name for name in names if not (unfinished / name).exists()], folder, unfinished, entrances_last=False)
        _move([path.name for path in replaced.iterdir()], replaced, folder, entrances_last=True)
        replaced.rmdir()
        raise
    shutil.rmtree(replaced)


def _holds_own_base(folder: Path) -> bool:
    """Whether `base` in a folder belongs to the adapters saved there, and is not somebody's model of that name."""
    config = folder / "adapter_config.json"
    return config.is_file() and json.loads(config.read_text()).get("base_model_name_or_path") == BASE


def _move(names, source: Path, target: Path, entrances_last: bool) -> None:
    for name in sorted(names, key=lambda name: (name in ENTRANCES) == entrances_last):
        (source / name).rename(target / name)


def _needed(model) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())


def _refuse_full_disk(model, folder: Path) -> None:
    origin = getattr(unwrapped(model), "loaded_from", None)
    adapters_alone = hasattr(unwrapped_adapters(model), "peft_config") and origin is not None and origin.name
    if not adapters_alone and _needed(model) > shutil.disk_usage(folder).free:
        raise OSError("the disk is too full")


def _room(model, folder: Path) -> str:
    there = next((path for path in (folder, *folder.absolute().parents) if path.exists()), Path("/"))
    free = shutil.disk_usage(there).free
    return f"All weights need {_needed(model) / 1e9:.2f} GB; the disk of {there} has {free / 1e9:.2f} GB free"
