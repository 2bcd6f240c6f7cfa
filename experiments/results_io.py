"""Writing of experiment results, which `course_lib.claims` reads: one JSON file each, with the machine beside it."""

from __future__ import annotations

import json
from pathlib import Path

from course_lib.machine import description

FOLDER = Path(__file__).parent / "results"


def add_seed(name: str, result: dict, *, to_earlier: bool = False) -> None:
    """Put one seed's result into `results/NAME.json`, in place of an earlier one of the same seed, or added to it."""
    path = FOLDER / f"{name}.json"
    found = {s["seed"]: s for s in json.loads(path.read_text())["seeds"]} if path.exists() else {}
    earlier = found.get(result["seed"], {}) if to_earlier else {}
    found[result["seed"]] = _merged(earlier, result)
    whole = {"machine": description(), "seeds": [found[s] for s in sorted(found)]}
    path.write_text(json.dumps(whole, indent=1) + "\n")


def _merged(earlier: dict, later: dict) -> dict:
    """The later values, with earlier ones where a table has no later; lists and numbers are never mixed."""
    both = {key for key in earlier.keys() & later.keys() if isinstance(earlier[key], dict)}
    return earlier | later | {key: _merged(earlier[key], later[key]) for key in both}
