"""Tiles and lanes: what is drawn small is still what was there, and wires meet no node that is not theirs."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.view.stepper.lanes import lanes
from minidl.view.stepper.tiles import Blob, block_size, downsample


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 12))
def test_blocks(H: int, W: int, px: int) -> None:
    x = np.random.default_rng(0).normal(size=(2, H, W))
    fh, fw = block_size(H, W, px)
    total, mean = downsample(x, px, "sum"), downsample(x, px, "mean")
    assert total.shape == mean.shape and max(total.shape[1:]) <= px
    for i, j in np.ndindex(*total.shape[1:]):
        block = x[:, i * fh : (i + 1) * fh, j * fw : (j + 1) * fw]
        np.testing.assert_allclose(total[:, i, j], block.sum((1, 2)), atol=1e-12)
        np.testing.assert_allclose(mean[:, i, j], block.mean((1, 2)), atol=1e-12)
    assert total.sum() == pytest.approx(x.sum())
    if px >= max(H, W):
        assert (mean == x).all()


def test_bytes_and_scales() -> None:
    rng, blob = np.random.default_rng(0), Blob()
    maps = [rng.normal(size=(3, 4)) * 10**k for k in (-6, 0, 6)] + [np.zeros((3, 4))]
    places = [blob.add(m) for m in maps]
    whole = zlib.decompress(base64.b64decode(blob.text()))
    assert len(whole) == blob.size == 36 and places[3] == (36, 0.0)
    for (at, scale), m in zip(places[:3], maps, strict=False):
        q = np.frombuffer(whole, np.int8, 12, at).reshape(3, 4)
        assert abs(q).max() == 127 and np.abs(q * scale / 127 - m).max() <= scale / 254 * (1 + 1e-9)


@st.composite
def graphs(draw: Any) -> list[list[int]]:
    """Rows with wires further down, as a walk back makes them: every row but the first is wired to from above."""
    n = draw(st.integers(2, 12))
    rows: list[list[int]] = [draw(st.lists(st.integers(r + 1, n - 1), max_size=3, unique=True)) for r in range(n - 1)] + [[]]
    for r in range(1, n):
        if not any(r in wired for wired in rows[:r]):
            rows[r - 1].append(r)
    return rows


@given(graphs())
def test_wires_meet_no_other_node(rows: list[list[int]]) -> None:
    node_lanes, wire_lanes, width = lanes(rows)
    for row, wired in enumerate(rows):
        assert len(wired) == len(wire_lanes[row]) and 0 <= node_lanes[row] < width
        for to, lane in zip(wired, wire_lanes[row], strict=True):
            assert 0 <= lane < width
            assert all(node_lanes[between] != lane for between in range(row + 1, to)), (rows, row, to)


def test_a_residual_block() -> None:
    """score, add (conv, x), conv, x: the shortcut runs beside."""
    assert lanes([[1], [2, 3], [3], []]) == ([0, 0, 0, 0], [[0], [0, 1], [0], []], 2)
