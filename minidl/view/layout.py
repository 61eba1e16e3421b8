"""Where the boxes of a graph go: layers from top to bottom, and columns side by side when the image gets too long.

Sugiyama, Tagawa and Toda 1981, "Methods for visual understanding of hierarchical system structures", in four steps:

1. a box stands one layer below the lowest of those that lead to it; where an edge passes a layer it has a place of its own;
2. within a layer, boxes stand in the order of the means of their neighbours, so that few edges cross;
3. they move to the means of their neighbours as far as order and gaps allow; a box that has a layer to itself, where all ways
   have met, stays in the middle;
4. where all that goes on comes from one box, the image may go on at the top of the next column.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

SWEEPS = 24
GAP_X, GAP_Y, GUTTER = 0.18, 0.3, 0.55  # between neighbours, between layers, between columns
STRAIGHT, OUT, ROUND = 20.0, 0.5, 0.05  # how much edges want to be vertical: within a branch, to the middle, round a box there

Point = tuple[float, float]


@dataclass(frozen=True)
class Layout:
    """centres: of the boxes, x to the right and y downwards; columns: of each box the number of its column; routes: of each
    edge the points that it passes between the boxes; width, height: of the whole."""

    centres: list[Point]
    columns: list[int]
    routes: dict[tuple[int, int], list[Point]]
    width: float
    height: float


def layered(sizes: Sequence[Point], edges: Sequence[tuple[int, int]], aspect: float) -> Layout:
    """Boxes 0, 1, ... of the given (width, height), and edges (from, to) with from < to.

    aspect: the wished width / height of the whole, which decides about the number of columns.
    """
    layer = _layers(len(sizes), edges)
    depth = max(layer, default=0) + 1
    rows: list[list[int]] = [[] for _ in range(depth)]  # the boxes and the passages of each layer
    for v, at in enumerate(layer):
        rows[at].append(v)
    widths = [w for w, _ in sizes]
    ways: dict[tuple[int, int], list[int]] = {}  # each edge as a chain: a box, passages, a box
    for a, b in edges:
        passages = list(range(len(widths), len(widths) + layer[b] - layer[a] - 1))
        widths += [0.12] * len(passages)
        for at, p in enumerate(passages, start=layer[a] + 1):
            rows[at].append(p)
        ways[a, b] = [a, *passages, b]
    links = [(p, q) for way in ways.values() for p, q in pairwise(way)]
    above, below = _neighbours(links, len(widths)), _neighbours([(q, p) for p, q in links], len(widths))
    rows = _order(rows, above, below, links)
    x = _place(rows, widths, above, below, len(sizes))

    heights = [max(sizes[v][1] for v in row if v < len(sizes)) for row in rows]
    sources: list[set[int]] = [set() for _ in rows]  # of the edges that go on below each layer
    for a, b in edges:
        for at in range(layer[a], layer[b]):
            sources[at].add(a)
    column = _columns(rows, x, widths, heights, [at for at, boxes in enumerate(sources) if len(boxes) == 1], aspect)

    top, left, gutters = [0.0] * depth, [0.0] * depth, list[float]()
    right = height = 0.0  # of the columns so far
    for k in range(column[-1] + 1):
        inside = [at for at in range(depth) if column[at] == k]
        low, high = _extent([v for at in inside for v in rows[at]], x, widths)
        gutters.append(right - GUTTER / 2)
        y = 0.0
        for at in inside:
            top[at], left[at] = y, right - low
            y += heights[at] + GAP_Y
        right += high - low + GUTTER
        height = max(height, y - GAP_Y)
    centres = [(left[at] + x[v], top[at] + heights[at] / 2) for v, at in enumerate(layer)]
    routes = {}
    for (a, b), way in ways.items():
        points = [(centres[a][0], centres[a][1] + sizes[a][1] / 2)]
        for at, p in enumerate(way[1:], start=layer[a] + 1):
            if column[at] != column[at - 1]:  # down, over to the gutter, up and into the middle of the next column
                low, high, gutter = points[-1][1] + GAP_Y / 2, -GAP_Y, gutters[column[at]]
                points += [(points[-1][0], low), (gutter, low), (gutter, high), (left[at], high), (left[at], high + GAP_Y / 3)]
            if p != b:
                points += [(left[at] + x[p], top[at]), (left[at] + x[p], top[at] + heights[at])]
        routes[a, b] = [*points, (centres[b][0], centres[b][1] - sizes[b][1] / 2)]
    return Layout(centres, [column[at] for at in layer], routes, right - GUTTER, height)


def _layers(n: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    layer = [0] * n
    for a, b in sorted(edges, key=lambda e: e[1]):  # all that leads to a box comes before it
        layer[b] = max(layer[b], layer[a] + 1)
    return layer


def _neighbours(links: Sequence[tuple[int, int]], n: int) -> list[list[int]]:
    found: list[list[int]] = [[] for _ in range(n)]
    for p, q in links:
        found[q].append(p)
    return found


def _order(
    rows: list[list[int]], above: list[list[int]], below: list[list[int]], links: list[tuple[int, int]]
) -> list[list[int]]:
    best, fewest = rows, math.inf
    rows = [list(row) for row in rows]
    for sweep in range(6):
        near, order = (above, rows[1:]) if sweep % 2 == 0 else (below, rows[-2::-1])
        place = {v: i for row in rows for i, v in enumerate(row)}
        for row in order:
            mean = {v: sum(place[u] for u in near[v]) / len(near[v]) if near[v] else float(place[v]) for v in row}
            row.sort(key=mean.__getitem__)  # equal ones stay as they are
            place |= {v: i for i, v in enumerate(row)}
        crossings = _crossings(rows, links)
        if crossings < fewest:
            best, fewest = [list(row) for row in rows], crossings
    return best


def _crossings(rows: list[list[int]], links: list[tuple[int, int]]) -> int:
    place = {v: (at, i) for at, row in enumerate(rows) for i, v in enumerate(row)}
    between: dict[int, list[tuple[int, int]]] = {}
    for p, q in links:
        between.setdefault(place[p][0], []).append((place[p][1], place[q][1]))
    return sum((a - c) * (b - d) < 0 for ends in between.values() for i, (a, b) in enumerate(ends) for c, d in ends[:i])


def _place(
    rows: list[list[int]], widths: list[float], above: list[list[int]], below: list[list[int]], boxes: int
) -> list[float]:
    x = [0.0] * len(widths)
    for row in rows:  # the boxes of a layer side by side, their middle at 0
        total = sum(widths[v] + GAP_X for v in row)
        at = -total / 2
        for v in row:
            x[v] = at + (widths[v] + GAP_X) / 2
            at += widths[v] + GAP_X

    alone = {row[0] for row in rows if len(row) == 1}

    def weight(u: int, v: int) -> float:
        if u in alone or v in alone:
            return OUT if max(u, v) < boxes else ROUND
        return STRAIGHT

    for sweep in range(SWEEPS):
        for row in rows if sweep % 2 == 0 else rows[::-1]:
            if len(row) == 1:
                continue
            wishes, weights = [], []
            for v in row:
                near = [(u, weight(u, v)) for u in above[v] + below[v]]
                total = sum(w for _, w in near)
                wishes.append(sum(w * x[u] for u, w in near) / total if near else x[v])
                weights.append((total or OUT) * (1 if v < boxes else 0.02))  # boxes do not give way to passages
            gaps = [0.0]
            for u, v in pairwise(row):
                gaps.append(gaps[-1] + (widths[u] + widths[v]) / 2 + GAP_X)
            moved = _increasing([wish - gap for wish, gap in zip(wishes, gaps, strict=True)], weights)
            for v, place, gap in zip(row, moved, gaps, strict=True):
                x[v] = place + gap
    return x


def _increasing(wishes: list[float], weights: list[float]) -> list[float]:
    """The x_1 <= x_2 <= ... with the least sum of weight (x - wish)^2: neighbours in the wrong order meet at their mean."""
    pools: list[tuple[float, float, int]] = []  # mean, weight, how many
    for wish, weight in zip(wishes, weights, strict=True):
        pool = wish, weight, 1
        while pools and pools[-1][0] > pool[0]:
            mean, w, n = pools.pop()
            pool = (mean * w + pool[0] * pool[1]) / (w + pool[1]), w + pool[1], n + pool[2]
        pools.append(pool)
    return [mean for mean, _, n in pools for _ in range(n)]


def _extent(boxes: Sequence[int], x: list[float], widths: list[float]) -> tuple[float, float]:
    return min(x[v] - widths[v] / 2 for v in boxes), max(x[v] + widths[v] / 2 for v in boxes)


def _columns(
    rows: list[list[int]], x: list[float], widths: list[float], heights: list[float], cuts: list[int], aspect: float
) -> list[int]:
    """Of each layer the column. cuts: the layers below which the image may break."""
    best, nearest = [0] * len(rows), math.inf
    ends = [0.0]
    for height in heights:
        ends.append(ends[-1] + height + GAP_Y)
    for count in range(1, len(cuts) + 2):
        wished = [ends[-1] * k / count for k in range(1, count)]
        chosen = sorted({min(cuts, key=lambda at, y=y: abs(ends[at + 1] - y)) for y in wished})  # type: ignore[misc]
        column = [sum(at > cut for cut in chosen) for at in range(len(rows))]
        inside = [[at for at in range(len(rows)) if column[at] == k] for k in range(len(chosen) + 1)]
        extents = [_extent([v for at in ats for v in rows[at]], x, widths) for ats in inside]
        width = sum(high - low for low, high in extents) + GUTTER * len(chosen)
        height = max(sum(heights[at] + GAP_Y for at in ats) for ats in inside)
        if abs(math.log(width / height / aspect)) < nearest - 1e-9:
            best, nearest = column, abs(math.log(width / height / aspect))
    return best
