"""Runs in several processes: the curve, model and checkpoints of one, whatever is sharded; and an end for all."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from safetensors.torch import load_file
from two_processes import METHODS, findings, resumed

STRATEGIES = Path(__file__).parent.parent / "course_lib" / "recipes" / "strategies"
SCRIPT = Path(__file__).parent / "two_processes.py"
USUAL = ["sft", "reward", "dpo", "dpo, adapters", "ppo"]
ALSO = ["dpo, a copy", "ppo, shared critic", "ppo, a reward model"]
RUNS = {"ddp": list(METHODS), "zero2": USUAL, "zero3": [*USUAL, *ALSO]}
CASES = [(strategy, method) for strategy, methods in RUNS.items() for method in methods]


def launch(strategy: str, folder: Path, methods: list[str], **environment) -> subprocess.CompletedProcess:
    """Two processes on this machine's CPU, started as the strategy's file says."""
    if strategy.startswith("zero"):
        pytest.importorskip("deepspeed")
    folder.mkdir()
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", STRATEGIES / f"{strategy}.yaml"]
    command += ["--num_processes", "2", "--main_process_port", "0"]
    where = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)} | environment
    command = [str(word) for word in [*command, SCRIPT, folder, *methods]]
    return subprocess.run(command, capture_output=True, text=True, env=where, timeout=600)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def alone(folder):
    """What each method finds in one process; its checkpoints lie in `folder`/one."""
    return {name: findings(name, folder / "one") for name in METHODS}


@pytest.fixture(scope="module")
def found(alone, folder):
    """What both processes found under a strategy, each of which is started once."""
    kept = {}

    def of(strategy: str) -> list[dict]:
        if strategy not in kept:
            kept[strategy] = launch(strategy, folder / strategy, RUNS[strategy])
        assert kept[strategy].returncode == 0, kept[strategy].stderr[-4000:]
        return [json.loads((folder / strategy / f"{process}.json").read_text()) for process in (0, 1)]

    return of


def same_rows(rows: list[dict], expected: list[dict]) -> None:
    """Histories that differ by rounding alone, in every metric of every step."""
    assert len(rows) == len(expected) >= 4
    for row, wanted in zip(rows, expected, strict=True):
        assert row == pytest.approx(wanted, abs=1e-4, rel=1e-3)
        assert row["loss"] == pytest.approx(wanted["loss"], abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "method"), CASES)
def test_two_processes_have_the_history_of_one(found, alone, strategy, method):
    for process in found(strategy):
        same_rows(process[method]["rows"], alone[method]["rows"])


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "method"), CASES)
def test_two_processes_save_the_model_of_one(found, folder, strategy, method):
    found(strategy)
    ours, theirs = (
        {name: t for path in (folder / run / f"{method}, saved").glob("*model.safetensors") for name, t in
         load_file(path).items()} for run in (strategy, "one")
    )  # fmt: skip
    assert ours.keys() == theirs.keys() and ours
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, atol=2e-4, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "method"), CASES)
def test_a_checkpoint_of_two_processes_goes_on_in_one(found, alone, folder, tmp_path, strategy, method):
    found(strategy)
    rows = resumed(method, folder / strategy / method / "step-00000002", tmp_path)
    same_rows(rows, alone[method]["rows"])


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "method"), CASES)
def test_a_checkpoint_of_one_process_goes_on_in_two(found, alone, strategy, method):
    for process in found(strategy):
        same_rows(process[method]["resumed"], alone[method]["rows"])


@pytest.mark.slow
@pytest.mark.parametrize("method", RUNS["zero3"])
def test_zero_3_holds_half_of_the_weights_on_each_of_two_processes(found, method):
    for strategy, share in (("zero3", 0.5), ("ddp", 1.0)):
        for process in found(strategy):
            assert process[method]["held"] == pytest.approx(share * process[method]["weights"], rel=0.01)


@pytest.mark.slow
def test_zero_3_shards_the_model_behind_a_reward_too(found):
    for process in found("zero3"):
        held, all_weights = process["ppo, a reward model"]["judges"]
        assert 0 < held == pytest.approx(all_weights / 2, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("method", USUAL)
def test_zero_2_and_3_hold_half_of_the_moments_on_each_of_two_processes(found, method):
    for strategy, share in (("zero2", 0.5), ("zero3", 0.5), ("ddp", 1.0)):
        for process in found(strategy):
            assert process[method]["moments"] == pytest.approx(share * 2 * process[method]["weights"], rel=0.05)


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_run_which_goes_on_from_its_checkpoint(alone, folder, tmp_path):
    began = time.monotonic()
    done = launch("zero3", folder / "killed", ["sft"], KILL="3")
    assert done.returncode != 0 and time.monotonic() - began < 120
    assert "SIGKILL" in done.stderr or "exitcode: -9" in done.stderr.replace(" ", "").replace("exitcode:", "exitcode: ")
    newest = max((folder / "killed" / "sft").glob("step-*"))
    assert newest.name == "step-00000003"
    same_rows(resumed("sft", newest, tmp_path), alone["sft"]["rows"])


@pytest.mark.parametrize("path", sorted(STRATEGIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_strategy_is_a_file_that_accelerate_takes(path):
    config = load_config_from_file(str(path))
    assert config.num_machines == 1 and config.mixed_precision == "no"
    known = {action.dest for action in launch_command_parser()._actions}
    for kind in ("deepspeed_config", "fsdp_config"):
        assert set(yaml.safe_load(path.read_text()).get(kind, {})) <= known, "accelerate launch would pass it over"
