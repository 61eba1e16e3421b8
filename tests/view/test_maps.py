"""Maps over images, read back as images."""

from __future__ import annotations

import pathlib
import sys

import numpy as np
import pytest

from minidl import view
from minidl.array import Array, to_gpu
from minidl.data import lesions
from tests.gpu import strict_cupy

from .test_plots import count, pixels

RED, BLUE, DARK = "#6d0a26", "#124065", "#8a1438"  # of the ends of the scales, over white


def images(n: int, channels: int = 3) -> Array:
    return lesions(n, channels=channels).images


def ones(n: int, low: float = 0.0) -> Array:
    """Maps of 1, with a corner of another value."""
    maps = np.ones((n, 32, 32))
    maps[:, :4, :4] = low
    return maps


def colored(x: np.ndarray) -> int:
    """How many pixels are far from grey."""
    return int((np.ptp(x, axis=-1) > 40).sum())


@pytest.mark.parametrize(("n", "channels"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 3)])
def test_any_number_of_images_and_channels(tmp_path: pathlib.Path, n: int, channels: int) -> None:
    shown = images(n, 3 if channels == 2 else channels)[:, :channels]
    captions = [f"image {i}\nlogit {i}.25" for i in range(n)]
    view.overlays(tmp_path / "a.png", shown, ones(n), captions, "a title", "a unit")
    view.comparison(tmp_path / "b.png", shown, {"one": ones(n), "two": ones(n, -1.0)}, captions, "a title")
    for name in "a.png", "b.png":
        x = pixels(tmp_path / name)
        assert (
            min(x.shape[:2]) > 150 and (x[:3] == 255).all() and (x[-2:] == 255).all() and (x[:, -2:] == 255).all()
        )  # all fits
        assert colored(x) > 5_000


def test_signed_maps_are_symmetric_and_others_begin_at_0(tmp_path: pathlib.Path) -> None:
    view.overlays(tmp_path / "plus.png", images(1), ones(1))
    view.overlays(tmp_path / "minus.png", images(1), -ones(1))
    view.overlays(tmp_path / "half.png", images(1), ones(1, -0.5))
    plus, minus, half = (pixels(tmp_path / f"{name}.png") for name in ("plus", "minus", "half"))
    assert count(plus, DARK, 12) > 10_000 and count(plus, BLUE, 12) == 0  # nothing is negative: no blue, not even in the bar
    assert count(minus, BLUE, 12) > 10_000
    assert count(half, RED, 12) == pytest.approx(count(minus, BLUE, 12), rel=0.1)  # 1 is as red as -1 is blue
    assert count(half, BLUE, 12) < 0.1 * count(minus, BLUE, 12)  # and -0.5 is paler


def test_images_share_one_scale(tmp_path: pathlib.Path) -> None:
    maps = ones(2)
    view.overlays(tmp_path / "same.png", images(2), maps)
    maps[1] /= 4
    view.overlays(tmp_path / "less.png", images(2), maps)
    same, less = (count(pixels(tmp_path / f"{name}.png"), DARK, 12) for name in ("same", "less"))
    assert less == pytest.approx(same / 2, rel=0.1)


def test_methods_have_scales_of_their_own(tmp_path: pathlib.Path) -> None:
    for factor in 1, 1000:
        view.comparison(tmp_path / f"{factor}.png", images(2), {"small": ones(2), "large": factor * ones(2)})
    dark = [count(pixels(tmp_path / f"{factor}.png"), DARK, 30) for factor in (1, 1000)]
    assert dark[0] > 10_000 and dark[1] == pytest.approx(dark[0], rel=0.02)


def test_a_few_large_values_do_not_hide_the_others(tmp_path: pathlib.Path) -> None:
    maps = ones(2)
    maps[0, 20, 20] = 1000
    view.overlays(tmp_path / "p.png", images(2), maps)
    assert count(pixels(tmp_path / "p.png"), DARK, 12) > 20_000


def test_a_map_of_zeros_warns_and_is_blank(tmp_path: pathlib.Path) -> None:
    maps = {"found": ones(3), "not found": np.zeros((3, 32, 32))}
    with pytest.warns(UserWarning, match=r"not found: 0 everywhere for images \[0, 1, 2\], which are drawn without colour"):
        view.comparison(tmp_path / "c.png", images(3), maps)
    with pytest.warns(UserWarning, match=r"maps: 0 everywhere for images \[0, 1, 2\]"):
        view.overlays(tmp_path / "o.png", images(3, 1), maps["not found"])
    x = pixels(tmp_path / "o.png")
    assert colored(x[:, : int(0.8 * x.shape[1])]) == 0  # of the bar alone
    partly = ones(2)
    partly[1] = 0
    with pytest.warns(UserWarning, match=r"images \[1\]"):
        view.overlays(tmp_path / "o.png", images(2), partly)


def test_float_images_and_those_on_the_gpu(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown, maps = images(2), ones(2)
    view.overlays(tmp_path / "a.png", shown, maps)
    view.overlays(tmp_path / "b.png", shown / np.float32(255), maps)
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy())
    view.overlays(tmp_path / "c.png", to_gpu(shown), to_gpu(maps))
    for name in "b.png", "c.png":
        assert (pixels(tmp_path / "a.png") == pixels(tmp_path / name)).all()


@pytest.mark.parametrize(
    ("shown", "maps", "message"),
    [
        (images(2), np.ones((3, 32, 32)), r"maps: expected a map for each image, shape \(2, 32, 32\), got \(3, 32, 32\)"),
        (images(2), np.ones((2, 3, 32, 32)), "maps: expected a map for each image"),
        (images(2), np.full((2, 32, 32), np.nan), "maps: holds NaN or infinity"),
        (images(2)[0], np.ones((2, 32, 32)), r"images: expected \(N,C,H,W\), none of these 0, got shape \(3, 32, 32\)"),
        (images(2) / 100, np.ones((2, 32, 32)), r"images: expected uint8 or \[0, 1\], as they were before normalising, got 0"),
    ],
)
def test_what_does_not_go_together(tmp_path: pathlib.Path, shown: Array, maps: Array, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        view.overlays(tmp_path / "p.png", shown, maps)
    with pytest.raises(TypeError, match="maps: expected an array, got list"):
        view.overlays(tmp_path / "p.png", shown, [[1.0]])
    with pytest.raises(ValueError, match="maps: there is none"):
        view.comparison(tmp_path / "p.png", images(2), {})
    assert not list(tmp_path.iterdir())
