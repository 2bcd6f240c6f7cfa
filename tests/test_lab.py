"""JupyterLab serves the first lesson, and a real browser can run it and move its sliders."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CHROMIUM_FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
TOKEN = "test"


def fetch(url: str) -> tuple[str, str]:
    request = urllib.request.Request(url, headers={"Authorization": f"token {TOKEN}"})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return answer.url, answer.read().decode()


@pytest.fixture
def course(tmp_path):
    """A copy of lessons and exercises, so that running one in Lab leaves the committed one alone."""
    for folder in ("notebooks", "exercises", "solutions"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copytree(ROOT / "experiments" / "results", tmp_path / "experiments" / "results")
    return tmp_path


@pytest.fixture
def lab(course):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "course_lib", "lab", "--no-browser", f"--ServerApp.port={port}"]
    command += [f"--IdentityProvider.token={TOKEN}", "--ServerApp.ip=127.0.0.1"]
    private = {f"JUPYTER_{kind}_DIR": str(course / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    private["COURSE_PROGRESS"] = str(course / "progress.json")
    log = (course / "lab.log").open("w")
    server = subprocess.Popen(command, cwd=course, env=os.environ | private, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                fetch(f"{address}/api")
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.5)
        else:
            pytest.fail("JupyterLab did not start:\n" + (course / "lab.log").read_text()[-2000:])
        yield address
    finally:
        server.terminate()
        server.wait(timeout=30)


@pytest.mark.slow
def test_lab_opens_at_lesson_00_and_serves_it(lab):
    url, page = fetch(lab)
    assert url.endswith("/lab/tree/notebooks/00_start_here.ipynb") and "JupyterLab" in page
    _, answer = fetch(f"{lab}/api/contents/notebooks/00_start_here.ipynb")
    assert json.loads(answer)["content"]["cells"][0]["source"].startswith("# 00 · Start here")


@pytest.mark.slow
def test_lab_asks_nothing_about_news(lab):
    _, page = fetch(lab)
    config = json.loads(re.search(r'id="jupyter-config-data"[^>]*>(.*?)</script>', page, re.S)[1])
    assert config["news"] == {"disabled": True}
    _, answer = fetch(f"{lab}/lab/api/settings/@jupyterlab/apputils-extension:notification")
    assert json.loads(answer)["schema"]["properties"]["fetchNews"]["default"] == "false"


def code_cells(path: Path) -> list[dict]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def run_all(page, path: Path) -> list[dict]:
    """Run every cell and return the saved code cells."""
    for cell in (notebook := json.loads(path.read_text()))["cells"]:
        if cell["cell_type"] == "code":
            cell |= {"outputs": [], "execution_count": None}
    path.write_text(json.dumps(notebook))
    page.reload()
    page.get_by_text("| Idle").wait_for(timeout=90_000)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    for _ in range(120):
        page.wait_for_timeout(2_000)
        page.keyboard.press("Control+s")
        page.wait_for_timeout(500)
        cells = code_cells(path)
        if all(cell["execution_count"] for cell in cells):
            return cells
    pytest.fail("the lesson did not finish in Lab")


def press(page, name: str) -> str:
    """What the panel shows after a button of it was pressed."""
    panel = page.locator(".jupyter-widgets.widget-vbox").first
    panel.get_by_role("button", name=name, exact=True).click()
    page.wait_for_timeout(4_000)
    return panel.inner_text()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")
def test_a_browser_opens_an_exercise_and_its_panel_checks_and_hints(lab, course):
    sync_api = pytest.importorskip("playwright.sync_api")
    path = course / "exercises" / "04_dpo_from_scratch.ipynb"
    notebook = json.loads(path.read_text())
    solution = json.loads((course / "solutions" / path.name).read_text())
    answers = {cell["id"]: cell["source"] for cell in solution["cells"]}
    for cell in notebook["cells"]:  # the second task alone is solved
        if cell["id"] == "answer-04-2":
            cell["source"] = answers[cell["id"]]
    # further cells of code need the tasks that are not solved
    notebook["cells"] = [cell for cell in notebook["cells"] if re.match(r"(text|answer|check)-|code-[24]$", cell["id"])]
    path.write_text(json.dumps(notebook))
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.goto(f"{lab}/lab/tree/exercises/{path.name}?token={TOKEN}")
        cells = run_all(page, path)
        assert not [out for cell in cells for out in cell["outputs"] if out["output_type"] == "error"]
        said = ["".join(out["data"]["text/plain"]) for cell in cells for out in cell["outputs"] if "data" in out]
        assert any("04.2 DPO's loss: 3 of 3 points" in text for text in said)
        assert any("it is not written yet" in text for text in said)
        page.locator(".jp-Notebook").first.evaluate("notebook => notebook.scrollTo(0, 0)")
        page.locator(".widget-dropdown select").first.select_option(label="04.2 DPO's loss")
        assert "3 of 3 points" in press(page, "Check") and "hint 1 of 3" in press(page, "Hint")
        assert "kept in" in press(page, "Progress")
        assert not page.get_by_text("official Jupyter news").count()
        page.screenshot(path=os.environ.get("COURSE_SCREENSHOT", course / "panel.png"))
        browser.close()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")
def test_a_browser_runs_lesson_00_and_moves_its_slider(lab, course):
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.goto(f"{lab}/lab/tree/notebooks/00_start_here.ipynb?token={TOKEN}")
        cells = run_all(page, course / "notebooks" / "00_start_here.ipynb")
        errors = [out for cell in cells for out in cell["outputs"] if out["output_type"] == "error"]
        assert not errors
        widget = page.locator(".widget-interact").first
        widget.scroll_into_view_if_needed()
        before = widget.inner_text()
        handle = widget.locator(".noUi-handle").first
        handle.focus()
        for _ in range(12):
            handle.press("ArrowRight")
        page.wait_for_timeout(4_000)
        assert "1.2" in widget.inner_text() and widget.inner_text() != before
        browser.close()
