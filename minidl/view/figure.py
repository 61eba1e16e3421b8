"""A matplotlib figure without a window, a global state or a file that is half written, in which every text is what it says."""

from __future__ import annotations

import io
import math
import os
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.io import files
from minidl.io.files import Path
from minidl.view.display import averaged, block
from minidl.view.fit import LINE, NO_WIDTH, is_drawable, shown_as, wrapped
from minidl.view.names import escaped, literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, RED, GREY = "#0b62a4", "#d95f0e", "#b2182b", "#6e6e6e"  # blue and orange: for colour-blind eyes too
DPI, MOST = 120, 8_000_000  # dots an inch, and in all of a figure that has more of them an inch
FORMATS = {".png": "png", ".svg": "svg", ".pdf": "pdf", ".jpg": "jpeg", ".jpeg": "jpeg"}
SHOWN = 96  # pixels an inch in a notebook, those of CSS
TITLE, MARGIN = 11, 0.12  # the size of the title in points, the margin in inches


def new(width: float, height: float, **layout: Any) -> Figure:
    """An empty figure of width x height inches. `layout` goes to matplotlib's constrained layout engine."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(**layout))


def title(figure: Figure, text: str) -> None:
    """Write the title over the figure, in as many lines as it takes; the figure gets higher by all but the first."""
    if text:
        width, height = figure.get_size_inches()
        lines = wrapped(text, width - 2 * MARGIN, TITLE, "bold")
        figure.set_size_inches(width, height + lines.count("\n") * TITLE * LINE)
        figure.suptitle(lines, fontsize=TITLE, fontweight="bold")


class Sheet:
    """A figure of width x height inches below its title, whose cells are placed in inches from the left and from there."""

    def __init__(self, width: float, height: float, text: str = "", dpi: int = DPI) -> None:
        from matplotlib.figure import Figure

        lines = wrapped(text, width - 2 * MARGIN, TITLE, "bold") if text else ""
        self.top = MARGIN + ((lines.count("\n") + 1) * TITLE * LINE + 0.06 if lines else 0)
        self.width, self.height = width, self.top + height + MARGIN
        self.figure: Figure = Figure(figsize=(self.width, self.height))
        self.dpi = dpi
        if lines:
            style: dict[str, Any] = {"fontsize": TITLE, "fontweight": "bold", "ha": "center", "va": "top"}
            self.figure.text(0.5, 1 - MARGIN / self.height, lines, **style)

    def cell(self, x: float, y: float, width: float, height: float) -> Axes:
        """Axes of that size, without ticks or frame."""
        ax = self.figure.add_axes(self.box(x, y, width, height))
        ax.set_axis_off()
        return ax

    def box(self, x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
        """The same place as matplotlib counts: left, bottom, width and height in shares of the figure."""
        return x / self.width, 1 - (self.top + y + height) / self.height, width / self.width, height / self.height

    def write(self, x: float, y: float, text: str, size: float, **style: Any) -> None:
        """A text whose lower left corner stands at x, y; by va and ha in `style` another corner, or the middle."""
        style = {"ha": "left", "va": "bottom", **style}
        self.figure.text(x / self.width, 1 - (self.top + y) / self.height, text, fontsize=size, **style)

    def save(self, path: Path | None) -> Drawing:
        return save(self.figure, path, self.dpi)


def dots(width: float, height: float, pixel: float) -> int:
    """Dots an inch that make each pixel of `pixel` inches one dot at least, as far as the figure keeps below 8 million."""
    return max(DPI, int(min(math.ceil(1 / pixel) + 1, math.sqrt(MOST / (width * height)))))


def name(text: str, room: int = 40) -> str:
    """A name that somebody gave, for a text of a figure: `literal`, in the signs that the font has.

    A space of no width stands before an underscore, for legends leave out what begins with one.
    """
    return visible(literal(text, room, is_drawable))


def names(texts: Sequence[str]) -> list[str]:
    """The same for many, at whatever length."""
    return [visible("".join(map(shown_as, str(text)))) for text in texts]


def lines(texts: Sequence[str]) -> list[str]:
    """The same for texts of several lines."""
    return ["\n".join("".join(map(shown_as, line)) for line in str(text).split("\n")) for text in texts]


def visible(text: str) -> str:
    return NO_WIDTH + text if text.startswith("_") else text


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure that a function of `minidl.view` has drawn: `save` writes it, and a notebook shows it at the end of a cell.

    figure: matplotlib's, dpi: its dots an inch.
    """

    figure: Figure
    dpi: int = DPI

    def save(self, path: Path) -> None:
        """Write it as the path ends, .png, .svg, .pdf, .jpg or .jpeg, whole or not at all. The text of an SVG stays text.

        No text is a formula, but for matplotlib's own beside an axis; signs that the font lacks are written as Python does.
        Images that have more pixels than there are dots for them are averaged. Raises ValueError for another ending.
        """
        kind = FORMATS.get(pathlib.Path(path).suffix.lower())
        if kind is None:
            raise ValueError(f"path: expected a name that ends in {', '.join(FORMATS)}, got {os.fspath(path)!r}")
        files.write(path, encoded(self.figure, kind, self.dpi))

    @property
    def png(self) -> bytes:
        """The content of a .png file."""
        return encoded(self.figure, "png", self.dpi)

    @property
    def width(self) -> int:
        """How many pixels wide a notebook shows it."""
        return round(SHOWN * self.figure.get_figwidth())

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        return self.png, {"width": self.width, "height": round(SHOWN * self.figure.get_figheight())}

    def __repr__(self) -> str:
        width, height = self.figure.get_size_inches()
        return f"<{type(self).__name__} of {width:.1f} x {height:.1f} inches; save(path) writes it>"


def save(figure: Figure, path: Path | None, dpi: int = DPI) -> Drawing:
    """What every function that draws returns: the drawing, written where a path is given."""
    drawing = Drawing(figure, dpi)
    if path is not None:
        drawing.save(path)
    return drawing


def encoded(figure: Figure, kind: str, dpi: int) -> bytes:
    """The content of a file of that kind."""
    from matplotlib import rc_context

    content = io.BytesIO()
    _literally(figure)
    _average(figure, dpi)
    # with a salt, the same figure makes the same file
    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "minidl",
        "pdf.fonttype": 42,
    }
    more: dict[str, Any] = {
        "svg": {"metadata": {"Date": None}},
        "pdf": {"metadata": {"CreationDate": None}},
        "jpeg": {"pil_kwargs": {"quality": 95, "subsampling": 0}},
    }
    with rc_context(settings):
        figure.savefig(content, format=kind, dpi=dpi, **more.get(kind, {}))
    figure.set_layout_engine("none")  # all stays where it is: laid out anew, it would move by a little
    return content.getvalue()


def _average(figure: Figure, dpi: int) -> None:
    """Every image that has more pixels than its axes have dots; by "nearest", most of them would not be drawn at all."""
    images = [image for ax in figure.axes for image in ax.images if image.get_interpolation() == "nearest"]
    if not images:
        return
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
    for image in images:
        image.axes.apply_aspect()
        values: Any = np.ma.asarray(image.get_array())
        left, right, bottom, top = image.get_extent()
        ends = image.axes.transData.transform([(left, bottom), (right, top)]) * dpi / figure.dpi
        W, H = np.abs(ends[1] - ends[0])
        k = max(block(values.shape[0], H), block(values.shape[1], W))
        if k > 1:
            if values.ndim == 3 and values.dtype == np.uint8:
                values = values / 255  # colours, which as floats end at 1
            colors = np.ma.filled(values.astype(np.float64), np.nan)
            means = (
                averaged(colors, k) if values.ndim == 2 else np.stack([averaged(c, k) for c in np.moveaxis(colors, -1, 0)], -1)
            )
            h, w = (k * n / m for n, m in zip(means.shape, values.shape[:2], strict=False))  # the last blocks may reach beyond
            limits = image.axes.get_xlim(), image.axes.get_ylim()
            image.set_data(means)
            image.set_extent((left, left + w * (right - left), top + h * (bottom - top), top))
            image.axes.set_xlim(limits[0]), image.axes.set_ylim(limits[1])


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
    return "".join(c if c == "\n" or is_drawable(c) else escaped(c) for c in text)
