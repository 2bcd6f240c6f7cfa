"""Two network namespaces as two hosts: each starts its process by the line of docs/scaling.md."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from course_lib.recipes.launching import STRATEGY_FILES

pytestmark = pytest.mark.slow
SMALL = ["data.limit=48", "held_out_limit=16", "evaluation.prompts=8", "batch_size=8", "log_every=1"]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=20)


@pytest.fixture(scope="module")
def hosts():
    """Names of two namespaces whose cards are joined by a cable: 10.77.0.1 and 10.77.0.2."""
    if not (shutil.which("ip") and os.geteuid() == 0):
        pytest.skip("namespaces need Linux's ip, and root")
    cards = [f"course{os.getpid()}{end}" for end in "ab"]
    names = [f"course-{os.getpid()}-{end}" for end in "ab"]
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", cards[0], "type", "veth", "peer", "name", cards[1])
        for number, (name, card) in enumerate(zip(names, cards, strict=True), start=1):
            ip("link", "set", card, "netns", name, "name", "cable")
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    except subprocess.CalledProcessError as error:
        pytest.skip(f"this machine makes no namespaces: {error.stderr.decode().strip()}")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, timeout=20)


def start(host: str, rank: int, strategy: str, out: Path, **environment) -> subprocess.Popen:
    command = ["ip", "netns", "exec", host, sys.executable, "-m", "accelerate.commands.launch"]
    command += ["--config_file", STRATEGY_FILES / f"{strategy}.yaml", "--num_machines", "2", "--num_processes", "2"]
    command += ["--machine_rank", str(rank), "--main_process_ip", "10.77.0.1", "--main_process_port", "29500"]
    command += ["-m", "course_lib", "train", "tiny/dpo", f"hardware.strategy={strategy}", "hardware.gpus=2", *SMALL]
    where = os.environ | {"OMP_NUM_THREADS": "1"} | environment
    words = [str(word) for word in [*command, f"output={out}"]]
    with out.with_name(f"host-{rank}.log").open("w") as log:  # a pipe that nobody reads would stop a host
        return subprocess.Popen(words, stdout=log, stderr=log, env=where)


def said(out: Path, rank: int) -> str:
    return out.with_name(f"host-{rank}.log").read_text()


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def first_to_end(processes: list[subprocess.Popen], seconds: int = 120) -> subprocess.Popen:
    for _ in range(2 * seconds):
        for process in processes:
            if process.poll() is not None:
                return process
        time.sleep(0.5)
    pytest.fail(f"none of them ended in {seconds} seconds")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    command = [sys.executable, "-m", "course_lib", "train", "tiny/dpo", *SMALL, f"output={folder}"]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return losses(folder)


@pytest.mark.parametrize("strategy", ["ddp", "zero3"])
def test_two_hosts_have_the_losses_of_one(hosts, alone, strategy, tmp_path):
    if strategy == "zero3":
        pytest.importorskip("deepspeed")
    out = tmp_path / "run"
    both = [start(host, rank, strategy, out, GLOO_SOCKET_IFNAME="cable") for rank, host in enumerate(hosts)]
    assert [process.wait(timeout=300) for process in both] == [0, 0], said(out, 0)[-2000:]
    assert losses(out) == pytest.approx(alone, abs=1e-4)
    assert "FutureWarning" not in said(out, 0) + said(out, 1)


def test_hosts_that_cannot_reach_each_other_say_so_and_name_the_cure(hosts, tmp_path):
    out = tmp_path / "run"
    both = [start(host, rank, "ddp", out, GLOO_SOCKET_IFNAME="lo") for rank, host in enumerate(hosts)]
    first = first_to_end(both)  # the host that calls is refused; the one that is called waits
    for process in both:
        process.terminate()  # a launcher ends the process that it started
        process.wait(timeout=60)
    assert first.returncode != 0
    words = said(out, both.index(first))
    assert "the processes did not find each other" in words and "GLOO_SOCKET_IFNAME" in words
    assert not (out / "model").exists()
