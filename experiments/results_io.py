"""Writing of experiment results, which `course_lib.claims` reads: one JSON file each, with the machine beside it."""

from __future__ import annotations

import json
from pathlib import Path

from course_lib.machine import description
from course_lib.world import EDITION

FOLDER = Path(__file__).parent / "results"


def add_seed(name: str, result: dict, *, to_earlier: bool = False) -> None:
    """Put one seed's result into `results/NAME.json`, in place of an earlier one of the same seed, or added to it.

    Results of an earlier edition of the world are not mixed with new ones: they go.
    """
    path = FOLDER / f"{name}.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    found = {s["seed"]: s for s in before.get("seeds", []) if before.get("edition") == EDITION}
    earlier = found.get(result["seed"], {}) if to_earlier else {}
    found[result["seed"]] = _merged(earlier, result)
    whole = {"machine": description(), "edition": EDITION, "seeds": [found[s] for s in sorted(found)]}
    path.write_text(json.dumps(whole, indent=1) + "\n")


def _merged(earlier: dict, later: dict) -> dict:
    """The later values, with earlier ones where a table has no later; lists and numbers are never mixed."""
    both = {key for key in earlier.keys() & later.keys() if isinstance(earlier[key], dict)}
    return earlier | later | {key: _merged(earlier[key], later[key]) for key in both}
