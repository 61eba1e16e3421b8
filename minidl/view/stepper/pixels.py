"""What the stepper shows of every pixel that can be picked: its influence at each step, as few bytes.

A pixel is pushed forward once, and of each step its maps are kept, cut to where they are not 0: where it reaches, sum |t| over
the channels; where it counts, sum t g; and where it stops, sum |t| that goes no further. A value v is kept as a whole number q,

    v ~ s (q / levels)^2 with the sign of q,    s a power of two,    q from -levels to levels

so that what is faint is still seen.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from minidl.array import Array, to_cpu
from minidl.core import Tensor, pushes
from minidl.flow.backward_pass import BackwardPass
from minidl.flow.cells import Cell, strongest_cell
from minidl.flow.pixel import Index, PixelFlow, PushStep, collect, one_hot, stopped
from minidl.ops.pool import MaxPool2d
from minidl.view.stepper.nodes import Graph, Node, maps_of
from minidl.view.stepper.tiles import downsample

FINE, COARSE = 127, 7  # levels: of the pixels that have a number, and of all others
LIKE_BELOW = b"\xff"  # in place of a map: that of the step before it, towards the image
NOTHING = b"\0"  # a map of zeros


class Maps(NamedTuple):
    """Of one pixel at one step, (H,W), or (units,) of a vector; stops is None where nothing can stop."""

    reach: Array
    counts: Array
    stops: Array | None


@dataclass
class Pixel:
    """flow: the numbers. maps: by row, of a pixel with a number; packed: those of all others, as bytes. cell: the first of its
    strongest path."""

    flow: PixelFlow
    maps: dict[int, Maps]
    packed: bytes
    cell: int


@dataclass
class Cells:
    """The cells of all strongest paths, each once. above: of each the one where the path goes on, -1 at its end."""

    cells: list[Cell]
    above: list[int]
    known: dict[tuple[Tensor, Index], int]

    def first(self, backward_pass: BackwardPass, x: Tensor, index: Index) -> int:
        """The number of the cell of x[index]; the path from there on is known then."""
        at: tuple[Tensor, Index] | None = x, index
        below = -1
        start = -1
        while at is not None and at[0].op is not backward_pass.y.op:
            number = self.known.get(at, len(self.cells))
            if below >= 0:
                self.above[below] = number
            start = number if start < 0 else start
            if at in self.known:
                break
            self.known[at] = below = number
            self.cells.append(strongest_cell(backward_pass, *at))
            self.above.append(-1)
            at = self.cells[-1].leads_to(backward_pass)
        return start


def follow(graph: Graph, x: Tensor, indices: Sequence[Index], numbered: int, px: int) -> tuple[Iterator[Pixel], Cells]:
    """Push pixels of x (1,C,H,W) forward, one after the other, and the cells of their paths, complete once all are pushed.

    The first `numbered` keep their maps as they are; those of the others are packed in tiles of at most px by px.
    """
    backward_pass, cells = graph.backward_pass, Cells([], [], {})

    def pixels() -> Iterator[Pixel]:
        for k, index in enumerate(indices):
            seen: dict[int, Maps] = {}
            flow = collect(backward_pass, x, index, _noted(graph, x, index, seen))
            fine = k < numbered
            packed = b"" if fine else pack(graph, seen, px, COARSE)
            yield Pixel(flow, seen if fine else {}, packed, cells.first(backward_pass, x, index))

    return pixels(), cells


def _noted(graph: Graph, x: Tensor, index: Index, seen: dict[int, Maps]) -> Iterator[PushStep]:
    backward_pass, nodes, t = graph.backward_pass, graph.nodes, one_hot(x, index)
    seen[len(nodes) - 1] = Maps(*_maps(nodes[-1], t, backward_pass.gradient(x)), None)
    for step in pushes(backward_pass.y, {x: t}):
        row = graph.row[step[0]]
        lost = stopped(*step)
        lost = None if lost is None else maps_of(lost)
        seen[row] = Maps(*_maps(nodes[row], step[2], backward_pass.gy_of[step[0]]), None if lost is None else lost.sum(0))
        yield step


def _maps(node: Node, t: Array, g: Array) -> tuple[Array, Array]:
    t, g = to_cpu(t), to_cpu(g)
    if node.units:
        t, g = t.ravel()[node.units], g.ravel()[node.units]
        return np.abs(t), t * g
    t, g = maps_of(t), maps_of(g)
    return np.abs(t).sum(0), (t * g).sum(0)


# ---- as bytes


def can_stop(node: Node) -> bool:
    """Whether a step has a map of what stops there."""
    return node.gates is not None or isinstance(node.op, MaxPool2d)


def pack(graph: Graph, seen: dict[int, Maps], px: int, levels: int) -> bytes:
    """The maps of one pixel: of each row reach, counts, and stops where something can stop, each as `packed` has it."""
    parts = []
    for row, node in enumerate(graph.nodes):
        maps = seen.get(row)
        if maps is None:
            parts += [NOTHING] * (2 + can_stop(node))
            continue
        parts.append(packed(maps.reach, px, levels))
        parts.append(LIKE_BELOW if _like_below(graph, seen, row) else packed(maps.counts, px, levels))
        if can_stop(node):
            parts.append(NOTHING if maps.stops is None else packed(maps.stops, px, levels))
    return b"".join(parts)


def _like_below(graph: Graph, seen: dict[int, Maps], row: int) -> bool:
    """Whether t g is what it was one step nearer the image: where a step scales or gates number by number, nothing moves."""
    below, op = seen.get(row + 1), graph.nodes[row].op
    inputs = [] if op is None else [x.op for x, needed in zip(op.inputs, op.needs, strict=True) if needed and x is not None]
    if below is None or inputs != [graph.nodes[row + 1].op] or below.counts.shape != seen[row].counts.shape:
        return False
    size = float(np.abs(below.counts).max())
    return bool(np.abs(below.counts - seen[row].counts).max() <= 1e-4 * size)


def packed(values: Array, px: int, levels: int) -> bytes:
    """(H,W) or (units,) -> height and width of what is not 0, its first row and column, the exponent of s, and every q."""
    tile = downsample(values, px, "sum") if max(values.shape) > px and values.ndim == 2 else np.atleast_2d(values)
    size = float(np.abs(tile).max(initial=0))
    if size == 0:
        return NOTHING
    exponent = math.frexp(size)[1]
    seen = np.abs(tile) > math.ldexp(1.0, exponent) / (2 * levels) ** 2  # of which q is not 0
    rows, columns = (np.flatnonzero(seen.any(axis)) for axis in (1, 0))
    part = tile[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    q = np.rint(levels * np.sign(part) * np.sqrt(np.abs(part) / math.ldexp(1.0, exponent))).astype(np.int8)
    return struct.pack("<4Bh", *part.shape, rows[0], columns[0], exponent) + q.tobytes()
