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
    assert not table.loc["no-such-package", "ok"] and "pip install" in table.loc["no-such-package", "advice"]


def test_the_doctor_says_what_to_change_where_memory_or_disk_is_short(monkeypatch):
    monkeypatch.setattr(machine, "memory_bytes", lambda: 2e9)
    monkeypatch.setattr(machine, "DISK", 1e18)
    table = machine.doctor()
    assert not table.loc["memory", "ok"] and "close other programs" in table.loc["memory", "advice"]
    assert not table.loc["free disk", "ok"] and "make room" in table.loc["free disk", "advice"]


def test_the_doctor_tries_four_bit_weights_out(monkeypatch):
    assert machine.doctor().loc["4-bit weights", "found"].startswith("work on the")
    import bitsandbytes.nn

    monkeypatch.setattr(bitsandbytes.nn, "Linear4bit", None)
    row = machine.doctor().loc["4-bit weights"]
    assert row.found.startswith("do not work") and "install bitsandbytes anew" in row.advice


def test_memory_is_what_the_system_has():
    assert machine.memory_bytes() == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
