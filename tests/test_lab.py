"""`course lab` serves the first lesson."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

TOKEN = "test"


def fetch(url: str) -> tuple[str, str]:
    request = urllib.request.Request(url, headers={"Authorization": f"token {TOKEN}"})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return answer.url, answer.read().decode()


@pytest.fixture
def lab(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "course_lib.cli", "lab", "--no-browser", f"--ServerApp.port={port}"]
    command += [f"--IdentityProvider.token={TOKEN}", "--ServerApp.ip=127.0.0.1"]
    log = (tmp_path / "lab.log").open("w")
    server = subprocess.Popen(command, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(400):
            try:
                fetch(f"{address}/api")
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.wait(timeout=20)


@pytest.mark.slow
def test_lab_opens_at_lesson_00_and_serves_it(lab):
    url, page = fetch(lab)
    assert url.endswith("/lab/tree/notebooks/00_start_here.ipynb") and "JupyterLab" in page
    _, answer = fetch(f"{lab}/api/contents/notebooks/00_start_here.ipynb")
    first_cell = json.loads(answer)["content"]["cells"][0]["source"]
    assert first_cell.startswith("# 00 · Start here")
