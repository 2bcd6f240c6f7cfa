"""The loop under two processes: Accelerate shares the batches out and keeps the weights together."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "two_processes.py"


@pytest.mark.slow
def test_two_processes_train_one_policy(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*command, str(SCRIPT), str(tmp_path / "result.json")], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["same"] and result["first_loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert result["steps"] == 3  # 5 batches of 8 shared by two processes
