"""A matplotlib figure without a window, a global state or a file that is half written."""

from __future__ import annotations

import io
import os
import pathlib
from typing import TYPE_CHECKING, Any

from minidl import files

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, RED, GREY = "#0b62a4", "#d95f0e", "#b2182b", "#6e6e6e"  # blue and orange: for colour-blind eyes too


def new(width: float, height: float, **layout: Any) -> Figure:
    """An empty figure of width x height inches. `layout` goes to matplotlib's constrained layout engine."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(**layout))


def save(figure: Figure, path: str | os.PathLike[str], dpi: int = 120) -> None:
    """Write the figure as PNG, or as SVG if the path ends so, whole or not at all. The text of an SVG stays text."""
    from matplotlib import rc_context

    svg = pathlib.Path(path).suffix.lower() == ".svg"
    content = io.BytesIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "minidl"}):  # and the same figure makes the same file
        figure.savefig(content, format="svg" if svg else "png", dpi=dpi, metadata={"Date": None} if svg else None)
    files.write(path, content.getvalue())
