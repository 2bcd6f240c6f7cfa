"""What the course says of the machine it runs on is what is there."""

import importlib.metadata
import json
import os

import torch

from course_lib import machine


def test_a_description_is_what_torch_and_the_system_say_and_can_be_written():
    found = machine.description()
    assert found["cores"] == os.cpu_count() and found["threads"] == torch.get_num_threads()
    assert found["torch"] == torch.__version__ and (found["gpu"] is None) != torch.cuda.is_available()
    assert json.loads(json.dumps(found)) == found


def test_the_doctor_misses_what_is_not_installed(monkeypatch):
    monkeypatch.setattr(machine, "PACKAGES", ("torch", "no-such-package"))
    table = machine.doctor()
    assert table.loc["torch", "found"] == importlib.metadata.version("torch") and table.loc["torch", "ok"]
    assert not table.loc["no-such-package", "ok"] and "pip install" in table.loc["no-such-package", "found"]
