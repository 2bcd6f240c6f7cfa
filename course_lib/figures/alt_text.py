"""What a figure shows, in words, for readers who do not see it; Jupyter writes it beside the image.

It stands where IPython's own images keep theirs: an output's metadata["image/png"]["alt"]. nbconvert's "classic" page
has it as the image's alternative text; JupyterLab 4.6 and nbconvert's "lab" page leave it out so far.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from weakref import WeakKeyDictionary

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_TEXTS: WeakKeyDictionary[Axes | Figure, str] = WeakKeyDictionary()


def describe(shown: Axes | Figure, text: str) -> None:
    """Add `text` to what `shown` says; titles and axis labels need not be in it, `description` reads them."""
    _TEXTS[shown] = " ".join([*([_TEXTS[shown]] if shown in _TEXTS else []), text])


def description(figure: Figure) -> str:
    """The figure in words: titles, what `describe` was told of each panel or else its lines and bars, axis labels."""
    panels = [_panel(ax) for ax in figure.axes]
    if figure in _TEXTS:
        panels = [_TEXTS[figure]]
    elif len(panels) > 1:
        panels = [f"Panel {i} of {len(panels)}: {panel}" for i, panel in enumerate(panels, 1)]
    title = figure.get_suptitle()
    return " ".join(" ".join([*([_sentence(title)] if title else []), *panels]).split())


def listed(values: Mapping[str, float]) -> str:
    """Names with their values to three digits: "SFT 0.5, DPO 1.25"."""
    return ", ".join(f"{str(name).rstrip('.')} {number(value)}" for name, value in values.items())


def number(value: float) -> str:
    """Three digits, without an exponent: a reader hears it."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.0005 else "0"


def write_alt_text() -> None:
    """Have Jupyter's inline backend write each figure's `description` with its image; does nothing elsewhere."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        return
    plt.switch_backend(plt.get_backend())  # the inline backend sets how it draws when it is loaded, which is late
    formatter = shell.display_formatter.formatters["image/png"]
    draw = formatter.type_printers.get(Figure)
    if draw is not None and getattr(draw, "func", None) is not _image_and_text:
        formatter.for_type(Figure, partial(_image_and_text, draw))


def _image_and_text(draw, figure: Figure):
    image = draw(figure)
    return image if image is None else (image, {"alt": description(figure)})


def _panel(ax: Axes) -> str:
    title = next(filter(None, map(ax.get_title, ("left", "center", "right"))), "")
    sides = {"Horizontal axis": ax.xaxis, "Vertical axis": ax.yaxis}
    labels = [f"{side}: {_axis_label(axis)}" for side, axis in sides.items() if axis.get_label_text()]
    parts = [title, _TEXTS.get(ax) or _drawn(ax), ". ".join(labels)]
    return " ".join(_sentence(part) for part in parts if part) or "empty."


def _axis_label(axis) -> str:
    text = axis.get_label_text()
    return text if axis.get_scale() == "linear" or "logarithmic" in text else f"{text}, logarithmic"


def _drawn(ax: Axes) -> str:
    """What can be said of marks that nobody described."""
    lines = [line for line in ax.lines if not line.get_label().startswith("_") and len(line.get_ydata())]
    ends = [f"{line.get_label()} {_ends(line.get_ydata())}" for line in lines]
    bars = [f"bars: {len(ax.patches)}"] if ax.patches else []
    return "; ".join([*ends, *bars])


def _ends(y) -> str:
    return f"at {number(y[0])}" if y[0] == y[-1] else f"from {number(y[0])} to {number(y[-1])}"


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "?", "!")) else f"{text}."
