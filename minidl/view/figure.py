"""A matplotlib figure without a window, a global state or a file that is half written, in which every text is what it says."""

from __future__ import annotations

import io
import os
import pathlib
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from minidl.io import files
from minidl.view.names import escaped, literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, ORANGE, RED, GREY = "#0b62a4", "#d95f0e", "#b2182b", "#6e6e6e"  # blue and orange: for colour-blind eyes too
NO_WIDTH = "\u200b"


def new(width: float, height: float, **layout: Any) -> Figure:
    """An empty figure of width x height inches. `layout` goes to matplotlib's constrained layout engine."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(**layout))


def name(text: str, room: int = 40) -> str:
    """A name that somebody gave, for a text of a figure: `literal`, in the signs that the font has.

    A space of no width stands before an underscore, for legends leave out what begins with one.
    """
    shown = literal(text, room, _is_drawable)
    return NO_WIDTH + shown if shown.startswith("_") else shown


def save(figure: Figure, path: str | os.PathLike[str], dpi: int = 120) -> None:
    """Write the figure as PNG, or as SVG if the path ends so, whole or not at all. The text of an SVG stays text.

    No text is a formula, but for matplotlib's own beside an axis; signs that the font lacks are written as Python does.
    """
    from matplotlib import rc_context

    svg = pathlib.Path(path).suffix.lower() == ".svg"
    content = io.BytesIO()
    _literally(figure)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "minidl"}):  # and the same figure makes the same file
        figure.savefig(content, format="svg" if svg else "png", dpi=dpi, metadata={"Date": None} if svg else None)
    files.write(path, content.getvalue())


def _literally(figure: Figure) -> None:
    from matplotlib.text import Text
    from matplotlib.ticker import FixedLocator

    axes = [axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)]
    numbers = [axis for axis in axes if not isinstance(axis.get_major_locator(), FixedLocator)]
    formulas = {label for axis in numbers for label in axis.get_ticklabels(which="both")}
    for text in figure.findobj(Text):
        if isinstance(text, Text) and text not in formulas:
            text.set_parse_math(False)
            text.set_text(_drawable(text.get_text()))


def _drawable(text: str) -> str:
    """With an escape for every sign that is not."""
    return "".join(c if c == "\n" or _is_drawable(c) else escaped(c) for c in text)


def _is_drawable(c: str) -> bool:
    """Whether the font has it: of any other matplotlib draws a box, and warns."""
    from matplotlib import rcParams

    return " " <= c <= "~" or ord(c) in _signs(tuple(rcParams["font.family"]))


@lru_cache
def _signs(families: tuple[str, ...]) -> frozenset[int]:
    """The code points that the fonts of these families have."""
    from matplotlib import font_manager

    paths = [font_manager.findfont(font_manager.FontProperties(family=[family])) for family in families]
    return frozenset().union(*(font_manager.get_font(path).get_charmap() for path in paths))
