"""The figures share one style."""

import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "course_lib"
ELSEWHERE = [f for f in sorted(PACKAGE.rglob("*.py")) if f != PACKAGE / "figures/style.py"]


@pytest.mark.parametrize("file", ELSEWHERE, ids=lambda f: str(f.relative_to(PACKAGE)))
def test_every_colour_stands_in_the_style(file):
    assert not re.findall(r"[\"']#[0-9A-Fa-f]{6}[\"']", file.read_text(encoding="utf-8"))
