"""Axes from 0 to 1 both ways, and beside them each name with its line and what is told of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.arguments import mapping
from minidl.metrics import Interval
from minidl.view import figure
from minidl.view.display import rows_of
from minidl.view.figure import BLUE, GREY, MARGIN, ORANGE, RED, Sheet
from minidl.view.fit import LINE, fitted, height, width, wrapped
from minidl.view.shares import fraction

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIDE, TOP = 4.0, 0.1  # of the square in inches, and above it
LEFT, BELOW, BETWEEN = 0.62, 0.5, 0.3  # inches: what the axes have beside and below them, and from there to the names
SIZE, SMALL = 9.0, 8.0  # of the letters in points: names, and what is told of them
KEY, ROOM, GAP = 0.42, 3.2, 0.08  # inches: the line before a name, the longest name, between two
COLORS = BLUE, ORANGE, "#009e73", "#cc79a7", RED, "#000000"
DASHES: tuple[Any, ...] = "-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (9, 2, 2, 2))
GUESSING: dict[str, Any] = {"lw": 0.9, "ls": (0, (1, 3))}


def style(i: int) -> dict[str, Any]:
    """The line of the i-th name: other dashes at every round of the colours, and thicker at every round of the dashes."""
    again, color = divmod(i, len(COLORS))
    thicker, dashes = divmod(again, len(DASHES))
    return {"color": COLORS[color], "ls": DASHES[dashes], "lw": 1.6 + thicker}


def square(
    told: Mapping[str, Sequence[str]], title: str, below: str, beside: str, lower: float = 0.0
) -> tuple[Sheet, Axes, Axes | None]:
    """The sheet, the square, and axes of `lower` inches under it, on the same x, where that is not 0."""
    names = fitted(figure.names(list(told)), ROOM, SIZE, "bold")
    texts = [[wrapped(line, ROOM, SMALL) for line in lines] for lines in told.values()]
    tall = [SIZE * LINE + sum(height(text, SMALL) for text in lines) + GAP for lines in texts]
    widest = [width(name, SIZE, "bold") for name in names]
    widest += [width(line, SMALL) for lines in texts for text in lines for line in text.split("\n")]
    bottom = TOP + SIDE + (BETWEEN + lower if lower else 0) + BELOW
    columns: list[list[int]] = [[]]
    for i, high in enumerate(tall):
        if columns[-1] and sum(tall[j] for j in columns[-1]) + high > bottom:
            columns.append([])
        columns[-1].append(i)
    right, across = MARGIN + LEFT + SIDE + BETWEEN, KEY + max(widest) + BETWEEN
    sheet = Sheet(right + len(columns) * across - BETWEEN + MARGIN, max(bottom, *tall), title)

    def axes(y: float, height: float, label: str) -> Axes:
        ax = sheet.figure.add_axes(sheet.box(MARGIN + LEFT, y, SIDE, height))
        ax.grid(color="#e6e6e6", lw=0.8)
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(colors=GREY, labelsize=9)
        ax.set_xlim(-0.02, 1.02)
        sheet.write(MARGIN, y + height / 2, label, 10, va="center", rotation=90, color=GREY)
        return ax

    ax = axes(TOP, SIDE, beside)
    ax.set_ylim(-0.02, 1.02)
    under = axes(bottom - BELOW - lower, lower, "images (%)") if lower else None
    if under:
        ax.tick_params(labelbottom=False)
    sheet.write(MARGIN + LEFT + SIDE / 2, bottom, below, 10, ha="center", color=GREY)
    for column, inside in enumerate(columns):
        x = right + column * across
        y = max(0.0, TOP + (SIDE - sum(tall)) / 2) if len(columns) == 1 else 0.0
        for i in inside:
            key = sheet.cell(x, y, KEY - 0.1, SIZE * LINE)
            key.plot([0, 1], [0.5, 0.5], **style(i))
            key.set_ylim(0, 1)
            sheet.write(x + KEY, y, names[i], SIZE, va="top", weight="bold")
            at = y + SIZE * LINE
            for text in texts[i]:
                sheet.write(x + KEY, at, text, SMALL, va="top", color=GREY)
                at += height(text, SMALL)
            y += tall[i]
    return sheet, ax, under


def check(found: Mapping[str, Any], kind: type, name: str, maker: str) -> None:
    """Raises ValueError where there is none, TypeError where one is not what the maker makes."""
    mapping(found, name, f"name -> what {maker} gives")
    if not found:
        raise ValueError(f"{name}: expected at least one, got none")
    for key, value in found.items():
        if not isinstance(value, kind):
            raise TypeError(f"{name}[{key!r}]: expected what {maker} gives, got {type(value).__name__}")


def check_names(found: Mapping[str, Any], known: Mapping[str, Any], name: str) -> None:
    if unknown := [key for key in mapping(found, name, "by the same names") if key not in known]:
        raise ValueError(f"{name}: expected names among {list(known)[:10]}, got {unknown[0]!r}")


def check_shares(values: Any, name: str) -> None:
    values = rows_of(values, name, (None,))
    if len(values) == 0 or not ((values >= 0) & (values <= 1)).all():
        raise ValueError(f"{name}: expected numbers in [0, 1], got {np.array2string(values, threshold=6)}")


def score(name: str, value: float, interval: Interval | None = None, where: str = "") -> str:
    """As in "AUC 0.874 [0.852, 0.895]". Raises TypeError for what is no interval, ValueError for that of another score."""
    if interval is None:
        return f"{name} {digits(value)}"
    if not isinstance(interval, Interval):
        raise TypeError(f"{where}: expected an Interval, got {type(interval).__name__}")
    if not abs(interval.mean - value) < 1e-6:
        raise ValueError(f"{where}: expected the interval of the {name}, which is {value:.6f}, got one of {interval.mean:.6f}")
    return f"{name} {digits(value)} [{digits(interval.low)}, {digits(interval.high)}]"


def digits(x: float) -> str:
    """Three; only what is 0 or 1 is written so."""
    return f"{x:.3f}" if x in (0, 1) else fraction(x)
