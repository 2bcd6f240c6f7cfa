"""The loop under two processes: Accelerate shares the batches out and keeps the weights together."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "two_processes.py"


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run([*command, str(SCRIPT), str(folder)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "result.json").read_text())


@pytest.mark.slow
def test_two_processes_train_one_policy(found):
    assert found["dpo"]["same"] and found["dpo"]["first_loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert found["dpo"]["steps"] == 3  # 5 batches of 8 shared by two processes


@pytest.mark.slow
def test_two_processes_train_one_reward_model(found):
    assert found["reward"] == {"same": True, "moved": True}


@pytest.mark.slow
def test_two_processes_go_on_each_with_its_own_random_numbers(found):
    assert found["resumed"] == {"equal": True, "same": True}
