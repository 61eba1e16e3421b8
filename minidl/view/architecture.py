"""The figure of an architecture: a box for every layer, with its shape, and the ways between them."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from minidl.analysis.cost import Call, Cost, Row
from minidl.io import files
from minidl.view import figure
from minidl.view.figure import GREY, MARGIN, Drawing
from minidl.view.fit import fitted, fitted_one, height, width, wrapped
from minidl.view.layout import Layout, Point, layered

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = {  # fill and line by kind: Okabe and Ito's colours, which eyes of all kinds tell apart, lightened
    "convolution": ("#d3e6f5", "#0072b2"),
    "pooling": ("#fbe3cf", "#d55e00"),
    "linear": ("#f3dceb", "#b0588c"),
    "join": ("#d0ece2", "#009e73"),
    "module": ("#fdf6cf", "#b89b00"),
    "other": ("#ececec", "#6e6e6e"),
}
BOX, JOIN = (1.5, 0.5), 0.22  # the least size of a box, the height of a join, in inches
BESIDE, LONGEST = 0.38, 2.2  # of a box: what is beside its texts, and the longest of these
WEIGHTS = "bold", "normal", "normal"  # of the three texts in a box
LONG = 400  # more boxes than that are no image


@dataclass
class _Box:
    """One or several rows that follow each other without a fork: a layer with its norm and activation."""

    rows: list[Row]
    numbers: list[int]
    inputs: list[int]  # the numbers of rows
    kind: str
    size: Point = BOX


def architecture(path: files.Path | None, cost: Cost, title: str = "") -> Drawing:
    """Draw the graph that `minidl.cost` found, as SVG (whose text can be selected), PNG, PDF or JPEG, by the end of `path`.

    Data flow downwards, then on at the top of the next column. Norms, activations and whatever else has a single input stand
    in the box of the layer that they follow. The small plate in a box is as high as log(height of the output) and as wide as
    log(channels). A grey frame is a module in which ways part and meet. None as a path is for no file, see `view.Drawing`.
    For less detail collapse first:

        view.architecture("resnet18.svg", minidl.cost(models.resnet18(), (3, 224, 224)).collapsed(2))

    Raises ValueError where there is nothing to draw, or more than 400 boxes.
    """
    from matplotlib.patches import FancyBboxPatch

    boxes = _boxes(cost.rows)
    if not 0 < len(boxes) <= LONG:
        hint = ": collapse them, as in cost.collapsed(2)" if boxes else ""
        raise ValueError(f"cost: expected 1 to {LONG} boxes to draw, got {len(boxes)}{hint}")
    of_row = {i: n for n, box in enumerate(boxes, start=1) for i in box.numbers} | {-1: 0}
    edges = sorted({(of_row[i], n) for n, box in enumerate(boxes, start=1) for i in box.inputs})
    frames = _frames(boxes)
    texts = _texts(boxes, frames)
    shape = f"input  {_shape(cost.input_shape)}"
    sizes = [(max(1.1, width(shape, 7.5, "bold")), 0.3), *(box.size for box in boxes)]  # box 0 is the input
    layout = layered(sizes, edges, aspect=1.5)
    left, right, bottom = 0.25, 0.25, 0.3
    across = max(layout.width + left + right, 5.5)
    said = wrapped(title, across - 2 * MARGIN, 10, "bold")
    top = 0.83 + height(said or "-", 10)
    fig = figure.new(across, layout.height + top + bottom)
    fig.set_layout_engine("none")
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set_axis_off()
    start = -left - (across - layout.width - left - right) / 2
    ax.set_xlim(start, start + across)
    ax.set_ylim(layout.height + bottom, -top)  # y downwards, and all in inches

    _draw_frames(ax, frames, layout, sizes)
    for route in layout.routes.values():
        _edge(ax, route)
    x, y = layout.centres[0]
    ax.text(x, y, shape, ha="center", va="center", fontsize=7.5, fontweight="bold")
    lines = max(math.log2(1 + n) for row in cost.rows for n in _sides(row)[1:]) or 1
    channels = max(math.log2(1 + _sides(row)[0]) for row in cost.rows)
    for n, box in enumerate(boxes, start=1):
        x, y = layout.centres[n]
        w, h = box.size
        fill, line = COLORS[box.kind]
        corner = 0.11 if box.kind == "join" else 0.05
        ax.add_patch(
            FancyBboxPatch(
                (x - w / 2, y - h / 2), w, h, boxstyle=f"round,pad=0,rounding_size={corner}", fc=fill, ec=line, lw=0.9, zorder=3
            )
        )
        _label(ax, box, texts[n - 1], x, y, lines, channels)
    ax.text(start + MARGIN, -top + 0.1, said, fontsize=10, fontweight="bold", va="top")
    _legend(ax, {box.kind for box in boxes}, start + MARGIN, -0.58)
    return figure.save(fig, path, dpi=110)


# ---- from rows to boxes


def _boxes(rows: list[Row]) -> list[_Box]:
    """Rows that compute little join the box before them, if nothing else uses it, or else the one behind them."""
    uses = [0] * len(rows)
    for row in rows:
        for i in row.inputs:
            if i >= 0:
                uses[i] += 1
    boxes: dict[int, _Box] = {}  # by their last row
    for i, row in enumerate(rows):
        kind = _kind(row)
        before = row.inputs[0] if len(row.inputs) == 1 else -1
        known = boxes.get(before)
        if known is not None and known.kind == "join" and known.rows[0].calls[-1] not in row.calls:
            known = None  # what stands behind a module does not belong to the join at its end
        small_before = known is not None and known.kind == "other" and kind in ("convolution", "linear", "pooling")
        if known is not None and uses[before] == 1 and (kind == "other" or small_before):
            del boxes[before]
            if small_before:
                known.kind = kind
            known.rows.append(row)
            known.numbers.append(i)
            boxes[i] = known
        else:
            boxes[i] = _Box([row], [i], list(row.inputs), kind)
    for box in boxes.values():
        if box.kind == "join":
            box.size = max(0.86, width(_text(box), 6.5) + 0.2), JOIN
    return sorted(boxes.values(), key=lambda box: box.numbers[-1])


def _kind(row: Row) -> str:
    if row.ops > 1:
        return "module"
    if row.kind != "other":
        return row.kind
    return "join" if len(row.inputs) > 1 else "other"


def _frames(boxes: list[_Box]) -> dict[Call, list[int]]:
    """The innermost modules that hold a join together with what it joins, with the numbers of their boxes."""
    frames: dict[Call, list[int]] = {}
    for box in boxes:
        if box.kind == "join" and box.rows[0].calls[-1].name:
            call = box.rows[0].calls[-1]
            frames[call] = [n for n, other in enumerate(boxes, start=1) if all(call in row.calls for row in other.rows)]
    return {call: members for call, members in frames.items() if len(members) > 1}


# ---- drawing


def _texts(boxes: list[_Box], frames: dict[Call, list[int]]) -> list[tuple[str, str, str]]:
    """What stands in each box, its name, what it does and its shape; the boxes get as wide as these need, up to LONGEST."""
    texts = list[tuple[str, str, str]]()
    for n, box in enumerate(boxes, start=1):
        frame = next((call for call, members in frames.items() if n in members), None)
        name, words = _name(box, boxes), _text(box)
        if frame is not None:
            name = name.removeprefix(f"{frame.name}.")
        if not name or name == (frame and frame.name):
            name, words = words, ""
        texts.append((figure.names([name])[0], words, _shape(box.rows[-1].shape)))
    layers = [n for n, box in enumerate(boxes) if box.kind != "join"]
    needed = [width(text, 6.5, weight) for n in layers for text, weight in zip(texts[n], WEIGHTS, strict=True)]
    room = min(max([BOX[0] - BESIDE, *needed]), LONGEST)
    names = fitted([texts[n][0] for n in layers], room, 6.5, "bold")
    for n, name in zip(layers, names, strict=True):
        _, words, shape = texts[n]
        texts[n] = name, fitted_one(words, room, 6.5), fitted_one(shape, room, 6.5)
        boxes[n].size = room + BESIDE, BOX[1]
    return texts


def _label(ax: Axes, box: _Box, texts: tuple[str, str, str], x: float, y: float, lines: float, channels: float) -> None:
    from matplotlib.patches import Rectangle

    line = COLORS[box.kind][1]
    if box.kind == "join":
        ax.text(x, y, _text(box), ha="center", va="center", fontsize=6.5, zorder=4)
        return
    C, H, W = _sides(box.rows[-1])
    w, h = 0.05 + 0.17 * math.log2(1 + C) / channels, 0.05 + 0.35 * math.log2(1 + max(H, W)) / lines
    at = x - box.size[0] / 2
    ax.add_patch(Rectangle((at + 0.16 - w / 2, y - h / 2), w, h, fc=line, ec="none", alpha=0.75, zorder=4))
    for text, weight, dy in zip(texts, WEIGHTS, (-0.14, 0.01, 0.155), strict=True):
        ax.text(at + 0.33, y + dy, text, va="center", fontsize=6.5, fontweight=weight, zorder=4)


def _name(box: _Box, boxes: list[_Box]) -> str:
    """The name of the module that made all of the box and nothing else, or of the layer in it."""
    shared = [call for call in box.rows[0].calls if all(call in row.calls for row in box.rows)]
    for call in shared:
        if call.name and not any(call in row.calls for other in boxes if other is not box for row in other.rows):
            return call.name
    layer = next((row for row in box.rows if row.kind != "other"), box.rows[0])
    return layer.name


def _text(box: _Box) -> str:
    """What the ops of a box do, of many the first and the last."""
    words = [_words(row) for row in box.rows]
    return " · ".join(words if len(words) <= 4 else [words[0], "…", words[-1]])


def _words(row: Row) -> str:
    word = row.op if row.ops > 1 else row.word
    return f"{word} {re.sub('(?<=[0-9])x', '×', row.window)}".strip()


def _sides(row: Row) -> tuple[int, int, int]:
    """(C,H,W) of the output, 1 where it has no pixels."""
    _, C, *pixels = (*row.shape, 1, 1)[:2] if len(row.shape) < 4 else row.shape
    return (C, *pixels) if len(pixels) == 2 else (C, 1, 1)  # type: ignore[return-value]


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape[1:] if shape[0] == 1 else shape))


def _edge(ax: Axes, route: list[Point]) -> None:
    """A curve that leaves and enters every passage vertically."""
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    points, codes = [route[0]], [int(Path.MOVETO)]
    for (x0, y0), (x1, y1) in pairwise(route):
        if x0 == x1 or y0 == y1:
            points, codes = [*points, (x1, y1)], [*codes, int(Path.LINETO)]
        else:
            middle = (y0 + y1) / 2
            points, codes = [*points, (x0, middle), (x1, middle), (x1, y1)], [*codes, *[int(Path.CURVE4)] * 3]
    arrow = FancyArrowPatch(path=Path(points, codes), arrowstyle="-|>", mutation_scale=6, color=GREY, lw=0.9, zorder=2)
    ax.add_patch(arrow)


def _draw_frames(ax: Axes, frames: dict[Call, list[int]], layout: Layout, sizes: list[Point]) -> None:
    """Round the boxes of a module, in each column that it has some in."""
    from matplotlib.patches import FancyBboxPatch

    found = [(call, part) for call, members in frames.items() for part in _extents(members, layout, sizes)]
    room = min((w for _, (_, _, w, _) in found), default=1.0) - 0.1
    names = fitted(figure.names([call.name for call, _ in found]), room, 5.5)
    for (_, (x, y, w, h)), name in zip(found, names, strict=True):
        style = "round,pad=0,rounding_size=0.06"
        ax.add_patch(FancyBboxPatch((x, y), w, h, boxstyle=style, fc="#f7f7f7", ec="#c4c4c4", lw=0.7, zorder=1))
        around = {"fc": "#f7f7f7", "ec": "none", "pad": 0.3}  # no arrow through the words
        ax.text(x + 0.05, y + 0.075, name, fontsize=5.5, color=GREY, va="center", bbox=around, zorder=4)


def _extents(members: list[int], layout: Layout, sizes: list[Point]) -> list[tuple[float, float, float, float]]:
    """x, y, width and height of the frame round these boxes, one for each column."""
    extents = []
    for column in sorted({layout.columns[n] for n in members}):
        inside = [n for n in members if layout.columns[n] == column]
        xs = [layout.centres[n][0] + side * sizes[n][0] / 2 for n in inside for side in (-1, 1)]
        ys = [layout.centres[n][1] + side * sizes[n][1] / 2 for n in inside for side in (-1, 1)]
        for (_, b), route in layout.routes.items():  # and round the ways that meet in it
            if b in inside:
                entry = max((i for i, (_, y) in enumerate(route) if y < 0), default=0)  # from the column before
                xs += [x for x, y in route[entry + 1 :] if min(ys) <= y <= max(ys)]
        extents.append((min(xs) - 0.07, min(ys) - 0.15, max(xs) - min(xs) + 0.14, max(ys) - min(ys) + 0.2))
    return extents


def _legend(ax: Axes, kinds: set[str], x: float, y: float) -> None:
    from matplotlib.patches import Rectangle

    for kind, (fill, line) in COLORS.items():
        if kind in kinds:
            ax.add_patch(Rectangle((x, y - 0.06), 0.16, 0.12, fc=fill, ec=line, lw=0.9))
            ax.text(x + 0.22, y, kind, fontsize=7, color=GREY, va="center")
            x += 0.42 + 0.062 * len(kind)
