"""Draws the figures of minidl/kernels/README.md, from the plans that the kernels compute by.

python -m tests.figures
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

from minidl.kernels.compiled import columns as few_pixels
from minidl.kernels.compiled import direct_plan, winograd_plan
from minidl.kernels.cuda import direct_loops

FOLDER = Path(__file__).parents[1] / "minidl" / "kernels" / "images"
LETTERS = "abcdefghijklmnop"  # the pixels of an image of 4x4
BLUE, ORANGE, BOTH, GREY, LIGHT = "#4c78a8", "#f58518", "#b279a2", "#9a9a9a", "#f2f2f2"


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for draw in (direct, winograd, columns, cuda_direct):
        figure = draw()
        figure.savefig(FOLDER / f"{draw.__name__}.png", dpi=100, bbox_inches="tight", metadata={"Software": None})
        plt.close(figure)


def _canvas(width: float, height: float) -> tuple[Any, Any]:
    """A figure whose units are cells, y downwards"""
    figure, axes = plt.subplots(figsize=(width * 0.3, height * 0.3))
    axes.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    axes.axis("off")
    return figure, axes


def _cell(axes: Any, x: float, y: float, text: str = "", face: str = "white") -> None:
    axes.add_patch(Rectangle((x, y), 1, 1, facecolor=face, edgecolor=GREY, linewidth=0.7))
    colour = "white" if face in (BLUE, ORANGE, BOTH) else "black"
    axes.text(x + 0.5, y + 0.52, text, ha="center", va="center", fontsize=9, color=colour)


def _frame(axes: Any, x: float, y: float, width: float, height: float, colour: str) -> None:
    axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=colour, linewidth=2.5))


def _say(axes: Any, x: float, y: float, text: str) -> None:
    axes.text(x, y, text, ha="left", va="center", fontsize=9)


def _plane(cells: int, at: Callable[[int, int], int]) -> list[str]:
    """The letters of the image where `at` says that they lie"""
    plane = ["0"] * cells
    for k, letter in enumerate(LETTERS):
        plane[at(k // 4, k % 4)] = letter
    return plane


def direct() -> Any:
    """The plane of an image as it lies in memory; the windows of a and f, which are one pattern, shifted"""
    p = direct_plan.forward_plan((1, 1, 4, 4), (1, 1, 3, 3), (1, 1), (1, 1), (1, 1), 1, 4)
    plane = _plane(6 * p.S + 1, lambda i, j: (i + 1) * p.S + j + 1)
    figure, axes = _canvas(33, 14)
    windows = {0: BLUE, p.S + 1: ORANGE}  # q of a and of f
    for at, letter in enumerate(plane):
        _cell(axes, at % p.S, at // p.S, letter, LIGHT if letter == "0" else "white")
        seen = [colour for q, colour in windows.items() if at - q in p.offsets[:9]]
        face = BOTH if len(seen) == 2 else seen[0] if seen else LIGHT if letter == "0" else "white"
        _cell(axes, 1 + at, 9, letter, face)
    for q, colour in windows.items():
        _frame(axes, q % p.S, q // p.S, 3, 3, colour)
    _say(axes, 8, 1.0, f"A row every S = {p.S} numbers: the zero before a row is also the one behind the row above.")
    _say(axes, 8, 2.5, "The window of a, q = 0, blue, and that of f, q = 6, orange, are the same nine offsets")
    _say(axes, 8, 3.6, f"{', '.join(map(str, p.offsets[:9]))}, from q on: so for each tap")
    _say(axes, 8, 4.7, "the column of im2col is the plane itself, from its offset on.")
    _say(axes, 0, 8.2, "in memory; what both windows hold is purple")
    _say(axes, 0, 11.2, "y[q]")
    for q in range(4 * p.S):
        _cell(axes, 1 + q, 12, LETTERS[q // p.S * 4 + q % p.S] if q % p.S < 4 else "", GREY if q % p.S == 4 else "white")
    _say(axes, 23, 12.5, "grey: of no pixel, left out")
    return figure


def winograd() -> Any:
    """Two of the four tiles, and what becomes of them"""
    p = winograd_plan.plan(16, 4, (4, 4), (1, 1), (16, 16), 4)
    plane = _plane(p.seen.size, lambda i, j: (i + 1) * p.seen.row + j + 1)
    figure, axes = _canvas(36, 11.5)
    for at, letter in enumerate(plane):
        _cell(axes, at % p.seen.row, 1 + at // p.seen.row, letter, LIGHT if letter == "0" else "white")
    for start, colour, shift in ((p.seen.tiles[0], BLUE, 0.06), (p.seen.tiles[3], ORANGE, -0.06)):
        _frame(axes, start % p.seen.row + shift, 1 + start // p.seen.row + shift, 4, 4, colour)
    _say(axes, 0, 8.2, "a tile of y is 2x2, the pixels")
    _say(axes, 0, 9.2, "d that it sees are 4x4, and")
    _say(axes, 0, 10.2, "two of them overlap by two")
    axes.annotate("", (10.6, 4), (6.6, 4), arrowprops={"arrowstyle": "->"})
    axes.text(8.6, 3.4, "$B^T d B$", ha="center", fontsize=10)
    for t in reversed(range(winograd_plan.T)):
        x, y = 11 + t * 0.38, 0.6 + t * 0.22
        axes.add_patch(Rectangle((x, y), 4, 4, facecolor="white", edgecolor=GREY, linewidth=0.7))
    axes.add_patch(Rectangle((11, 0.6), 4, 1, facecolor=BLUE, edgecolor=GREY, linewidth=0.7))
    axes.add_patch(Rectangle((11, 3.6), 4, 1, facecolor=ORANGE, edgecolor=GREY, linewidth=0.7))
    axes.text(13, 1.1, "channels", ha="center", va="center", fontsize=8, color="white")
    axes.text(13, 4.1, "channels", ha="center", va="center", fontsize=8, color="white")
    _say(axes, 10.5, 9.2, "16 places: at each, a matrix V[t]")
    _say(axes, 10.5, 10.2, "with a row of channels for every tile")
    axes.annotate("", (27.6, 4), (22.6, 4), arrowprops={"arrowstyle": "->"})
    axes.text(25.1, 3.4, "$Y_t = V_t U_t$", ha="center", fontsize=10)
    axes.text(25.1, 5.2, "$A^T Y A$", ha="center", fontsize=10)
    for k, letter in enumerate(LETTERS):
        _cell(axes, 28.5 + k % 4, 2 + k // 4, letter)
    for start, colour in ((p.made.tiles[0], BLUE), (p.made.tiles[3], ORANGE)):
        _frame(axes, 28.5 + start % p.made.row, 2 + start // p.made.row, 2, 2, colour)
    _say(axes, 23.5, 9.2, "16 products of matrices, where")
    _say(axes, 23.5, 10.2, "36 numbers a tile were multiplied")
    return figure


def columns() -> Any:
    """The table of pixels, and the weights beside it"""
    pixels = few_pixels._pixels(1, 1, (4, 4), (4, 4), (3, 3), (1, 1), (1, 1), (1, 1))
    figure, axes = _canvas(36, 18.5)
    for k, letter in enumerate(LETTERS):
        _cell(axes, k % 4, 2 + k // 4, letter)
    for q, row in enumerate(pixels):
        for t, pixel in enumerate(row):
            _cell(axes, 9 + t, 1.6 + q, "0" if pixel < 0 else LETTERS[pixel], LIGHT if pixel < 0 else "white")
    _frame(axes, 9, 1.6, 9, 1, BLUE)
    _frame(axes, 9, 6.6, 9, 1, ORANGE)
    _say(axes, 9, 0.8, "columns[q, k]: the window of each pixel, channel by channel")
    _say(axes, 5.2, 2.1, "of a")
    _say(axes, 5.2, 7.1, "of f")
    for row, y in enumerate((4, 7, 10)):
        axes.add_patch(Rectangle((21, y), 14, 1, facecolor=GREY, edgecolor="white"))
        axes.text(28, y + 0.5, f"w[{row}]: C kh kw numbers", ha="center", va="center", fontsize=9, color="white")
    _say(axes, 21, 2.6, "the weights, read once, where they lie")
    _say(axes, 21, 12.6, "y[f, q] = w[f] · columns[q]: few q, long rows")
    return figure


def cuda_direct() -> Any:
    """What a block has in shared memory, and what one of its threads reads"""
    n, row, column = 0, *np.indices((6, 6))
    codes = direct_loops.coded(n, row, column).reshape(-1)
    figure, axes = _canvas(36, 9.5)
    row_of, column_of = direct_loops.row_of.py_func, direct_loops.column_of.py_func
    for at, code in enumerate(codes):
        i, j = row_of(code) - 1, column_of(code) - 1
        inside = 0 <= i < 4 and 0 <= j < 4
        _cell(axes, at % 6, 1 + at // 6, LETTERS[4 * i + j] if inside else "0", "white" if inside else LIGHT)
    _frame(axes, 1, 1, 1, 5, BLUE)
    _frame(axes, 2.1, 1, 0.95, 5, ORANGE)
    _say(axes, 0, 0.3, "shared memory")
    _say(axes, 0, 8.2, "blue: for v = 1, the thread")
    _say(axes, 0, 9.1, "of a, e and i reads this")
    for r, (letter, taps) in enumerate((("a", "0 a e"), ("e", "a e i"), ("i", "e i m"))):
        y = 2 + 1.5 * r
        _cell(axes, 12, y, letter, BLUE)
        _say(axes, 13.5, y + 0.5, f"+= w[0..2, 1] · ({taps})")
    _say(axes, 11.5, 0.9, "three sums in registers, of each feature")
    _say(axes, 24, 2.5, "5 numbers read, 9 products a feature:")
    _say(axes, 24, 3.5, "with 8 rows and 8 features 10 + 24 read,")
    _say(axes, 24, 4.5, "192 products. Orange: the lane beside it,")
    _say(axes, 24, 5.5, "whose numbers lie in the next banks.")
    return figure


if __name__ == "__main__":
    main()
