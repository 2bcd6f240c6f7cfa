"""The package stands on its own: a wheel has all that runs, from any folder, and nothing warns as it is imported."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from test_architecture import ALLOWED

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """What a wheel of this checkout holds, in a folder far from it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    done = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    parts = ("course_lib/", "pyproject.toml", "README.md", "LICENSE")
    wanted = [name for name in done.stdout.splitlines() if name.startswith(parts)]
    for name in wanted or pytest.skip("the tests do not run from a git checkout"):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, source]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "there")
    return folder / "there"


def course(unpacked, *words, cwd):
    environment = os.environ | {"PYTHONPATH": str(unpacked), "COURSE_THREADS": "1"}
    command = [sys.executable, "-P", "-c", "import sys; from course_lib.cli import main; sys.exit(main())", *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_a_wheel_holds_models_recipes_strategies_and_tables(unpacked, tmp_path):
    done = course(unpacked, "recipes", "--folder", cwd=tmp_path)
    folder = Path(done.stdout.strip())
    assert folder.is_relative_to(unpacked) and (folder / "strategies" / "zero3.yaml").is_file()
    doctor = json.loads(course(unpacked, "doctor", "--json", cwd=tmp_path).stdout)
    assert all(row["ok"] for row in doctor.values()) and doctor["pocket-world-sft"]["found"] == "shipped"
    assert json.loads(course(unpacked, "vram", "llama-3-8b", "dpo", "--json", cwd=tmp_path).stdout)["peak"] > 1e10


@pytest.mark.slow
def test_a_wheel_trains_from_any_folder(unpacked, tmp_path):
    changes = ["data.limit=32", "held_out_limit=8", "evaluation.prompts=4"]
    done = course(unpacked, "train", "tiny/dpo", *changes, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert Path(tmp_path, json.loads(done.stdout)["model"], "model.safetensors").is_file()


@pytest.mark.slow
def test_nothing_warns_when_it_is_imported():
    rooms = "; ".join(f"import course_lib.{room}" for room in sorted(ALLOWED))
    done = subprocess.run([sys.executable, "-W", "error", "-c", rooms], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr[-2000:]


@pytest.mark.slow
def test_only_our_words_stand_on_a_plain_cpu():
    """DeepSpeed and bitsandbytes remark on it when they are imported, the one on stdout, where `--json` prints."""
    pytest.importorskip("deepspeed")
    line = "import course_lib, logging, deepspeed, bitsandbytes; logging.getLogger('DeepSpeed').warning('heed this')"
    done = subprocess.run([sys.executable, "-c", line], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.count("\n") == 1 and done.stdout.endswith("heed this\n") and not done.stderr, done
