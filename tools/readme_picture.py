"""Draw the README's picture from the committed results: `python tools/readme_picture.py`."""

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from course_lib import figures

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    figures.use_style()
    runs = json.loads((ROOT / "experiments/results/pocket_world.json").read_text())["seeds"]
    temperatures = [float(t) for t in runs[0]["sft"]["gold"]]
    axes = figures.temperature_sweep(
        temperatures,
        [list(run["sft"]["gold"].values()) for run in runs],
        {"dpo": [run["dpo"]["gold"]["0.0"] for run in runs]},
    )
    axes.figure.set_size_inches(7.2, 3.2)
    (ROOT / "docs").mkdir(exist_ok=True)
    plt.savefig(ROOT / "docs/sft_and_dpo.png", metadata={"Software": None})


if __name__ == "__main__":
    main()
