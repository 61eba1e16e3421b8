"""A matplotlib figure without a window, a global state or a file that is half written."""

from __future__ import annotations

import io
import os
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
    """Write the figure as PNG, whole or not at all."""
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=dpi)
    files.write(path, png.getvalue())
