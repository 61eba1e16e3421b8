"""The grid of images and maps, read back as an image."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_hex

from minidl import view
from minidl.data import lesions

from .test_plots import count, pixels

DEEPEST_RED, DEEPEST_BLUE, HALF_BLUE = "#67001f", "#053061", to_hex(colormaps["RdBu_r"](0.25))


def draw(path: pathlib.Path, n: int, maps: np.ndarray, channels: int = 3, label_shift: int = 0) -> np.ndarray:
    d = lesions(n, channels=channels)
    p = np.where(d.labels[:, None] == [0, 1], 0.9, 0.1)
    view.gradient_images(path, d.images, maps, (d.labels + label_shift) % 2, p, d.classes, "a title")
    return pixels(path)


@pytest.mark.parametrize(("n", "channels"), [(1, 3), (2, 1), (4, 4), (5, 3), (8, 3)])
def test_maps_have_one_signed_scale(tmp_path: pathlib.Path, n: int, channels: int) -> None:
    maps = np.zeros((n, 32, 32))
    plain = draw(tmp_path / "zero.png", n, maps, channels)
    maps[0, :16] = 5.0  # the largest, so the deepest red
    maps[-1, 16:] = -2.5  # half of it, so half as blue
    x = draw(tmp_path / "p.png", n, maps, channels)
    more = {color: count(x, color, 6) - count(plain, color, 6) for color in (DEEPEST_RED, HALF_BLUE, DEEPEST_BLUE)}
    assert more[DEEPEST_RED] == pytest.approx(more[HALF_BLUE], rel=0.1) and more[HALF_BLUE] > 10_000
    assert abs(more[DEEPEST_BLUE]) < 100
    assert x.shape == plain.shape and (x[:, -3:] == 255).all() and (x[-3:] == 255).all()


def test_a_few_large_values_do_not_hide_the_others(tmp_path: pathlib.Path) -> None:
    maps = np.ones((2, 32, 32))
    maps[0, 0, 0] = 1000.0
    assert count(draw(tmp_path / "p.png", 2, maps), DEEPEST_RED, 6) > 20_000
    maps[:] = 0
    maps[0, :3, :2] = 1.0  # and where nearly all are 0, the rest is seen
    assert count(draw(tmp_path / "p.png", 2, maps), DEEPEST_RED, 6) > 100


def test_a_wrong_answer_is_red(tmp_path: pathlib.Path) -> None:
    maps = np.zeros((2, 32, 32))
    right = count(draw(tmp_path / "r.png", 2, maps), "#b2182b", 8)
    assert count(draw(tmp_path / "w.png", 2, maps, label_shift=1), "#b2182b", 8) > right + 50


def test_float_images(tmp_path: pathlib.Path) -> None:
    d = lesions(2)
    p = np.full((2, 2), 0.5)
    view.gradient_images(tmp_path / "a.png", d.images, np.ones((2, 32, 32)), d.labels, p, d.classes)
    view.gradient_images(tmp_path / "b.png", d.images / np.float32(255), np.ones((2, 32, 32)), d.labels, p, d.classes)
    assert (pixels(tmp_path / "a.png") == pixels(tmp_path / "b.png")).all()


def test_lengths_that_disagree(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"as many of each and at least one, got \(2, 3, 2, 2\)"):
        draw(tmp_path / "p.png", 2, np.zeros((3, 32, 32)))
    assert not list(tmp_path.iterdir())
