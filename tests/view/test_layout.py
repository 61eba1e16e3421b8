from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.view.layout import _increasing, layered

Graph = tuple[list[tuple[float, float]], list[tuple[int, int]]]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    n = draw(st.integers(1, 14))
    sizes = [(draw(st.sampled_from([0.5, 1.5])), draw(st.sampled_from([0.2, 0.5]))) for _ in range(n)]
    edges = {(draw(st.integers(0, b - 1)), b) for b in range(1, n) for _ in range(draw(st.integers(1, 3)))}
    return sizes, sorted(edges)


@given(graphs(), st.sampled_from([0.1, 1.5, 20.0]))
def test_boxes_keep_apart_and_edges_go_down(
    graph: tuple[list[tuple[float, float]], list[tuple[int, int]]], aspect: float
) -> None:
    sizes, edges = graph
    found = layered(sizes, edges, aspect)
    for i, ((x, y), (w, h)) in enumerate(zip(found.centres, sizes, strict=True)):
        assert -1e-9 <= x - w / 2 and x + w / 2 <= found.width + 1e-9
        assert -1e-9 <= y - h / 2 and y + h / 2 <= found.height + 1e-9
        for (x2, y2), (w2, h2) in list(zip(found.centres, sizes, strict=True))[:i]:
            assert abs(x - x2) >= (w + w2) / 2 or abs(y - y2) >= (h + h2) / 2
    assert set(found.routes) == set(edges)
    for (a, b), route in found.routes.items():
        assert route[0] == pytest.approx((found.centres[a][0], found.centres[a][1] + sizes[a][1] / 2))
        assert route[-1] == pytest.approx((found.centres[b][0], found.centres[b][1] - sizes[b][1] / 2))
        assert found.columns[a] <= found.columns[b]
        if found.columns[a] == found.columns[b]:
            assert all(p[1] <= q[1] for p, q in pairwise(route))
            assert found.centres[a][1] < found.centres[b][1]
        boxes = [(*c, *s) for v, (c, s) in enumerate(zip(found.centres, sizes, strict=True)) if v not in (a, b)]
        assert not any(abs(x - u) < w / 2 and abs(y - v) < h / 2 for x, y in route for u, v, w, h in boxes)


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0.1, 5)), min_size=1, max_size=7))
def test_increasing_is_the_nearest_increasing_sequence(drawn: list[tuple[float, float]]) -> None:
    wishes, weights = (np.array(column) for column in zip(*drawn, strict=True))
    found = np.array(_increasing(list(wishes), list(weights)))
    assert (np.diff(found) >= -1e-9).all()

    def miss(x: np.ndarray) -> float:
        return float((weights * (x - wishes) ** 2).sum())

    rng = np.random.default_rng(0)
    for _ in range(50):  # no increasing neighbour is nearer: the problem is convex
        other = np.maximum.accumulate(found + rng.normal(0, 0.1, len(found)))
        assert miss(found) <= miss(other) + 1e-9


def test_a_chain_is_straight_and_breaks_into_columns() -> None:
    sizes, edges = [(1.0, 0.5)] * 12, [(i, i + 1) for i in range(11)]
    tall, wide = (layered(sizes, edges, aspect) for aspect in (0.01, 2.0))
    assert len({x for x, _ in tall.centres}) == 1 and set(tall.columns) == {0}
    assert set(wide.columns) == {0, 1, 2, 3} and wide.width / wide.height == pytest.approx(2, rel=0.4)
    assert all(len({x for (x, _), c in zip(wide.centres, wide.columns, strict=True) if c == k}) == 1 for k in range(4))
    crossing = next(route for (a, b), route in wide.routes.items() if wide.columns[a] != wide.columns[b])
    assert min(y for _, y in crossing) < 0  # over the top of the next column


def test_branches_do_not_cross_when_they_need_not() -> None:
    """Four branches between a fork and a join, given in a muddled order"""
    sizes = [(1.0, 0.5)] * 10
    edges = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 8), (2, 5), (3, 6), (4, 7), (5, 8), (6, 8), (7, 8), (8, 9)]
    found = layered(sizes, edges, 1.0)
    xs = [found.centres[v][0] for v in (2, 3, 4)]
    assert [found.centres[v][0] for v in (5, 6, 7)] == pytest.approx(xs, abs=0.3) and xs == sorted(xs)
    assert found.centres[0][0] == found.centres[8][0] == found.centres[9][0]
