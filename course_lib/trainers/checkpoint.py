"""Checkpoints on disk: tensors as safetensors, the rest as JSON, written whole or not at all.

A checkpoint is a folder `step-00000100` that appears by one renaming after all of it is on the disk, so a run that is
killed while it writes leaves an older one, never half of a new one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from course_lib.trainers.config import TrainingConfig

logger = logging.getLogger(__name__)
TENSORS, VALUES = "tensors.safetensors", "values.json"


class Checkpoints:
    """The checkpoints of one run in a folder, of which the newest `keep` stay."""

    def __init__(self, folder: str | Path, keep: int = 2):
        self.folder, self.keep = Path(folder), keep

    @classmethod
    def of(cls, config: TrainingConfig) -> Checkpoints | None:
        """Those that a config asks for, if it does."""
        return cls(config.checkpoint_folder, config.keep_checkpoints) if config.checkpoint_folder else None

    def refuse_unwritable(self) -> None:
        """Find out before training whether checkpoints can be written.

        Raises:
            OSError: with what is in the way.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise OSError(f"checkpoints cannot be written to {self.folder}: {error}; choose another folder") from error

    def write(self, step: int, state: dict) -> Path:
        """Write a nested dict of tensors and plain values, then drop what is too old."""
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=self.folder))
        try:
            _write(unfinished, state)
            whole = self.folder / f"step-{step:08d}"
            if whole.exists():  # of a run that is begun anew in this folder
                shutil.rmtree(whole)
            unfinished.rename(whole)
            _flush(self.folder)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
        self._drop_old()
        return whole

    def newest(self) -> dict | None:
        """The state in the newest checkpoint that is whole; damaged ones are passed over with a warning."""
        for folder in reversed(self.all()):
            try:
                return _read(folder)
            except (OSError, ValueError, KeyError, SafetensorError) as error:
                logger.warning("the checkpoint %s is damaged and passed over: %s", folder, error)
        return None

    def all(self) -> list[Path]:
        """Folders of checkpoints, oldest first."""
        return sorted(self.folder.glob("step-[0-9]*"))

    def _drop_old(self) -> None:
        for folder in [*self.all()[: -self.keep], *self.folder.glob(".unfinished-*")]:
            shutil.rmtree(folder, ignore_errors=True)


def _write(folder: Path, state: dict) -> None:
    tensors: dict[str, torch.Tensor] = {}
    plain = _split(state, tensors)
    save_file(tensors, folder / TENSORS)
    values = {"checksum": _checksum(folder / TENSORS), "state": plain}
    (folder / VALUES).write_text(json.dumps(values))
    for path in (folder / TENSORS, folder / VALUES, folder):
        _flush(path)


def _read(folder: Path) -> dict:
    values = json.loads((folder / VALUES).read_text())
    if _checksum(folder / TENSORS) != values["checksum"]:
        raise ValueError(f"{TENSORS} does not match its checksum")
    return _join(values["state"], load_file(folder / TENSORS))


def _split(value, tensors: dict[str, torch.Tensor]):
    """The value with a name in each tensor's place; the tensors go into `tensors`."""
    if isinstance(value, torch.Tensor):
        tensors[str(len(tensors))] = value.detach().cpu().contiguous()
        return {"tensor": str(len(tensors) - 1)}
    if isinstance(value, dict):
        return {"dict": {key: _split(part, tensors) for key, part in value.items()}}
    if isinstance(value, (list, tuple)) and any(isinstance(part, (torch.Tensor, dict, list, tuple)) for part in value):
        return {"list": [_split(part, tensors) for part in value]}
    return value


def _join(value, tensors: dict[str, torch.Tensor]):
    """What `_split` took apart; tuples come back as lists."""
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    if "list" in value:
        return [_join(part, tensors) for part in value["list"]]
    return {key: _join(part, tensors) for key, part in value["dict"].items()}


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]


def _flush(path: Path) -> None:
    """See that a file, or a folder's list of files, is on the disk before what follows."""
    if os.name != "posix" and path.is_dir():  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
