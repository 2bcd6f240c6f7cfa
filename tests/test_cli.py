"""The `course` command: it prints what Python returns, helps with every option, and says in a line what is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from course_lib import estimate_memory, estimate_throughput
from course_lib.cli import main
from course_lib.sizing.settings import OPTIONS, UNTIMED, Settings

ROOT = Path(__file__).parent.parent


def test_memory_is_what_python_returns(capsys):
    assert main(["vram", "llama-3-8b", "dpo", "--lora-rank", "16", "--batch-size", "4", "--json"]) == 0
    found = estimate_memory("llama-3-8b", "dpo", lora_rank=16, batch_size=4)
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(found.to_dict()))
    assert main(["vram", "8e9", "ppo"]) == 0 and "224.00 GB" in capsys.readouterr().out


def test_speed_is_what_python_returns(capsys):
    assert main(["speed", "llama-3-8b", "ppo", "--batch-size", "8", "--utilization", "0.5", "--json"]) == 0
    found = estimate_throughput("llama-3-8b", "ppo", batch_size=8, utilization=0.5)
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(found.to_dict()))
    assert main(["speed", "llama-3-8b", "dpo", "--examples", "60000", "--price-per-gpu-hour", "2"]) == 0
    assert "60,000 steps" in capsys.readouterr().out


@pytest.mark.parametrize("words, reason", [
    (["vram", "8e9", "dpo", "--quantization", "nf4"], "give lora_rank"),
    (["vram", "8030261248", "sft", "--batch-size", "64", "--sequence-length", "8192"], "cannot matter"),
    (["vram", "llama-3-8b", "dpq"], "invalid choice: 'dpq'"),
    (["vram", "llama-3-8b", "dpo", "--batch-sise", "4"], "did you mean --batch-size?"),
    (["vram", "llama-3-8b", "dpo", "--batch-size", "many"], "invalid int value"),
    (["speed", "llama-3-8b", "dpo", "--offload", "optimizer"], "unknown words: --offload"),
    (["speed", "8e9", "dpo"], "has no layers"),
    (["speed", "llama-3-8b", "dpo", "--gpu", "H9"], "no GPU 'H9'"),
    (["speed", "llama-3-8b", "dpo", "--examples", "100"], "needs a price"),
    (["doctor", "now"], "unknown words: now"),
    (["vrma"], "invalid choice: 'vrma'"),
    ([], "required: command"),
])  # fmt: skip
def test_an_error_is_one_line_that_points_to_the_help(capsys, words, reason):
    with pytest.raises(SystemExit) as stopped:
        main(words)
    out, error = capsys.readouterr()
    assert stopped.value.code == 2 and not out
    assert reason in error and error.count("\n") == 1 and "--help)" in error


@pytest.mark.parametrize("command, without", [("vram", ()), ("speed", UNTIMED)])
def test_help_explains_every_setting(capsys, command, without):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    known = OPTIONS if command == "speed" else Settings.__dataclass_fields__
    for name in known.keys() - {"algorithm", *without}:
        assert f"--{name.replace('_', '-')}" in printed and OPTIONS[name].metadata["help"] in printed, name


@pytest.mark.parametrize("function, without", [(estimate_memory, ()), (estimate_throughput, UNTIMED)])
def test_functions_take_the_settings_with_their_defaults(function, without):
    known = OPTIONS if without else Settings.__dataclass_fields__
    wanted = {name: each.default for name, each in known.items() if name not in ("algorithm", *without)}
    assert function.__kwdefaults__ == wanted


def test_the_calculators_need_neither_torch_nor_pandas():
    code = """
import sys
from course_lib.cli import main
main(["vram", "llama-3-8b", "dpo"])
main(["vram", "llama-3-8b", "dpo", "--json"])
assert not {"torch", "transformers", "pandas", "matplotlib"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True)


@pytest.mark.parametrize("words", [["doctor"], ["progress"], ["recipes"], ["recipes", "tiny/dpo"]])
def test_every_command_prints_json_alone_when_asked(words, capsys):
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("words", [["doctor"], ["recipes"], ["progress"], ["train", "tiny/dpo", "--dry-run"]])
def test_tables_fit_a_terminal(words, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(words) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
