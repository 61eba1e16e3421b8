"""Nothing that an image or a map holds is lost when it is drawn, and what cannot be drawn is said: read back from the files."""

from __future__ import annotations

import pathlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from minidl import view
from minidl.array import Array
from minidl.explain import Explanation
from minidl.view import figure
from minidl.view.display import averaged, block, for_the_eye, images_and_window, limit_of
from minidl.view.figure import BLUE
from minidl.view.maps import color_scale, draw
from tests.view.test_attacks import all_fits
from tests.view.test_names import texts
from tests.view.test_plots import count, pixels

P = np.eye(3)


def spots(path: pathlib.Path) -> int:
    """How many patches of colour a figure has, the colour bar being one."""
    left = set(map(tuple, np.argwhere(np.ptp(pixels(path), axis=-1) > 40)))
    found = 0
    while left:
        edge, found = [left.pop()], found + 1
        while edge:
            i, j = edge.pop()
            near = {(i + a, j + b) for a in (-1, 0, 1) for b in (-1, 0, 1)} & left
            left -= near
            edge += near
    return found


def hot(n: int, side: int) -> Array:
    """n pixels of 1 in a map of 0, far from each other, at places that no grid shares."""
    maps, rng, tiles = np.zeros((1, side, side)), np.random.default_rng(1), int(np.ceil(np.sqrt(n)))
    step = side // tiles
    for k in range(n):
        i, j = divmod(k, tiles)
        maps[0, i * step + rng.integers(step - 2), j * step + rng.integers(step - 2)] = 1
    return maps


def grey(side: int, n: int = 1, channels: int = 3) -> Array:
    return np.full((n, channels, side, side), 0.5)


SIDES = [224, *(pytest.param(side, marks=pytest.mark.ci) for side in (32, 448, 1024))]


@pytest.mark.parametrize("side", SIDES)
def test_every_hot_pixel_is_drawn(tmp_path: pathlib.Path, side: int) -> None:
    n = 25 if side == 32 else 120
    maps = hot(n, side)
    view.overlays(tmp_path / "o.png", grey(side), maps)
    assert spots(tmp_path / "o.png") == 2 * n + 1  # alone, over the image, and the bar
    view.comparison(tmp_path / "c.png", grey(side), {"a": maps, "b": 1e-6 * maps})
    assert spots(tmp_path / "c.png") == 2 * (n + 1)
    view.overlays(tmp_path / "signed.png", grey(side), -maps)
    assert spots(tmp_path / "signed.png") == 2 * n + 2  # the bar has two coloured ends


@pytest.mark.ci
@pytest.mark.parametrize("side", SIDES)
def test_every_hot_pixel_of_a_gradient_is_drawn(tmp_path: pathlib.Path, side: int) -> None:
    n = 25 if side == 32 else 120
    view.gradient_images(tmp_path / "g.png", grey(side), hot(n, side), np.zeros(1, int), P[:1], "abc")
    assert spots(tmp_path / "g.png") == n + 2


def test_every_hot_pixel_is_drawn_where_the_figure_may_not_grow(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figure, "MOST", 100_000)
    maps = hot(60, 600)
    view.overlays(tmp_path / "o.png", grey(600), maps)
    assert spots(tmp_path / "o.png") == 2 * 60 + 1
    view.overlays(tmp_path / "o.svg", grey(600), maps, unit="unit")
    assert "one scale for all maps; means of 3 × 3 pixels" in texts(tmp_path / "o.svg")
    assert "0.11" in texts(tmp_path / "o.svg").splitlines()  # the end of the scale is a mean of nine pixels, too


@pytest.mark.ci
def test_a_line_of_one_pixel_is_drawn(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figure, "MOST", 100_000)
    for at in 300, 304:
        maps = np.zeros((1, 600, 600))
        maps[0, at] = 1
        view.overlays(tmp_path / "o.png", grey(600), maps)
        x = pixels(tmp_path / "o.png")
        assert spots(tmp_path / "o.png") == 3 and (np.ptp(x, axis=-1) > 40).sum(1).max() >= 2 * 190


@pytest.mark.ci
def test_signed_values_are_averaged_as_values(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figure, "MOST", 100_000)
    board = np.where(np.indices((800, 800)).sum(0) % 2, 1.0, -1.0)[None]  # in blocks of 4 x 4 the sum is 0
    board[0, :8, :8] = 3
    view.overlays(tmp_path / "o.png", grey(800), board)
    assert spots(tmp_path / "o.png") == 4  # the corner twice, and the bar's ends; no colour is mixed from red and blue


def test_what_a_script_draws_is_averaged_when_it_is_saved(tmp_path: pathlib.Path) -> None:
    image, maps = figure.new(2, 2), hot(60, 1000)
    ax = image.subplots()
    ax.set_axis_off()
    draw(ax, np.full((3, 1000, 1000), 0.5), maps[0], color_scale(maps / 25))
    figure.save(image, tmp_path / "p.png")
    assert spots(tmp_path / "p.png") == 60


def test_averages() -> None:
    x = np.arange(35.0).reshape(5, 7)
    y = averaged(x, 3)
    assert y.shape == (2, 3) and y[0, 0] == x[:3, :3].mean() and y[1, 2] == x[3:, 6:].mean() and averaged(x, 1) is x
    x[0, 0], x[3:, 6] = np.nan, np.nan
    y = averaged(x, 3)
    assert y[0, 0] == np.nanmean(x[:3, :3]) and np.isnan(y[1, 2]) and np.isfinite(y).sum() == 5
    assert [block(1024, 512), block(1024, 511.9), block(10, 512), block(1, 0.5)] == [2, 3, 1, 2]
    assert limit_of(np.array([np.nan, np.inf, -2.0])) == 2 and limit_of(np.full(3, np.nan)) == 1


# ---- NaN, nothing, masks


def curves(path: pathlib.Path, bad: float) -> None:
    keys = "lr", "train_loss", "validation_loss", "train_accuracy", "validation_accuracy", "validation_majority_accuracy"
    rows: list[dict[str, Any]] = [{"epoch": e} | dict.fromkeys(keys, 1 / e) for e in range(1, 5)]
    rows[2]["train_loss"] = rows[1]["validation_accuracy"] = bad
    view.curves(path, rows)


def maps_of(bad: float) -> Array:
    maps = np.ones((5, 8, 8))
    maps[1, 2, 3] = bad
    return maps


def fooled(path: pathlib.Path, bad: float) -> None:
    x = np.full((2, 3, 8, 8), 0.5)
    y = x + 0.1
    y[0, 0, 0, 0] = bad
    view.fooled(path, x, y, P[:2], P[:2], "abc")


def accuracy(path: pathlib.Path, bad: float) -> None:
    view.accuracy_by_eps(path, [0, 1], {"a": [1, 0.5], "b": [0.5, np.nan if np.isinf(bad) else bad]}, 0.1)


def classes(path: pathlib.Path, bad: float) -> None:
    images = np.full((2, 3, 8, 8), 0.5)
    images[1, 2, 3, 4] = bad
    view.images_of_classes(path, images, "ab")


WITH_NAN: dict[str, tuple[Callable[[pathlib.Path, float], None], str]] = {
    "curves": (curves, "training, NaN in 1 of 4 epochs"),
    "overlays": (lambda path, bad: view.overlays(path, grey(8, 5), maps_of(bad)), "NaN in 1 of 64 pixels"),
    "comparison": (lambda path, bad: view.comparison(path, grey(8, 5), {"a": maps_of(bad)}), "NaN in 1 of 64"),
    "gradients": (
        lambda path, bad: view.gradient_images(path, grey(8, 5), maps_of(bad), np.zeros(5, int), P[[0] * 5], "abc"),
        "NaN in 1 of 64 pixels",
    ),
    "fooled": (fooled, "NaN in 1 of 64 pixels"),
    "accuracy": (accuracy, "b, NaN at 1 of 2"),
    "classes": (classes, "NaN in 1 of 64 pixels"),
}


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("fooled", np.nan),
        *(pytest.param(name, np.nan, marks=pytest.mark.ci) for name in WITH_NAN if name != "fooled"),
        *(pytest.param(name, -np.inf, marks=pytest.mark.ci) for name in WITH_NAN),
    ],
)
@pytest.mark.filterwarnings("ignore:.*NaN or infinity for images .1., which:UserWarning")
def test_nan_is_named_and_spoils_nothing_else(tmp_path: pathlib.Path, name: str, bad: float) -> None:
    ask, said = WITH_NAN[name]
    ask(tmp_path / "a.svg", bad)
    assert said in texts(tmp_path / "a.svg").replace("\n", " ")
    ask(tmp_path / "a.png", bad)
    ask(tmp_path / "b.png", 0.6)
    a, b = (pixels(tmp_path / f"{x}.png") for x in "ab")
    if a.shape == b.shape:
        assert (np.abs(a - b).max(-1) > 60).mean() < 0.05  # the one panel, and the words in it


def test_nan_warns(tmp_path: pathlib.Path) -> None:
    with pytest.warns(UserWarning, match=r"a: NaN or infinity for images \[1\], which stay without colour there"):
        view.comparison(tmp_path / "c.png", grey(8, 5), {"a": maps_of(np.nan)})
    with pytest.warns(UserWarning, match=r"maps: NaN or infinity for images \[0\]"):
        view.gradient_images(tmp_path / "g.png", grey(8), np.full((1, 8, 8), np.nan), np.zeros(1, int), P[:1], "abc")


@pytest.mark.filterwarnings("ignore:.*0 everywhere:UserWarning")
def test_an_empty_map_says_so(tmp_path: pathlib.Path) -> None:
    view.overlays(tmp_path / "o.svg", grey(8), np.zeros((1, 8, 8)))
    view.comparison(tmp_path / "c.svg", grey(8), {"a": np.zeros((1, 8, 8)), "b": np.zeros((1, 8, 8), bool)})
    assert texts(tmp_path / "o.svg").splitlines().count("0 everywhere") == 1
    assert {"0 everywhere", "empty mask"} <= set(texts(tmp_path / "c.svg").splitlines())


@pytest.mark.ci
def test_masks_are_drawn_as_outlines(tmp_path: pathlib.Path) -> None:
    masks = np.zeros((1, 40, 40), bool)
    masks[0, 10:30, 10:30] = True
    view.overlays(tmp_path / "o.png", grey(40), masks)
    x = pixels(tmp_path / "o.png")
    side = 1.75 * 120 / 2  # of the square, in dots
    assert count(x, BLUE, 40) == pytest.approx(2 * 4 * side * 2, rel=0.35)  # two outlines, about two dots wide; nothing filled
    masks[0] = np.indices((40, 40)).sum(0) % 2
    masks[0, 0, 0] = True
    view.comparison(tmp_path / "c.png", grey(40), {"board": masks, "all": ~(masks & ~masks), "map": masks * 1.0})
    assert all_fits(pixels(tmp_path / "c.png"))


# ---- windows, scales, channels


def test_windows() -> None:
    deep = np.array([[[[0, 1000, 2000, 4000]]]], np.uint16)
    assert np.allclose(for_the_eye(deep[0], images_and_window(deep)[1]), np.array([[0, 1000, 2000, 4000]]) / 65535)
    assert np.allclose(for_the_eye(deep[0], images_and_window(deep, (1000, 3000))[1]), [[0, 0, 0.5, 1]])
    assert images_and_window(np.zeros((1, 1, 1, 1), np.int16))[1] == (-32768, 32767)
    assert images_and_window(np.zeros((1, 1, 1, 1), bool))[1] == (0, 1)
    assert images_and_window(np.zeros((1, 1, 1, 1), np.uint8))[1] == (0, 255)
    assert images_and_window(np.array([[[[-900.0, 3000.0]]]]), [-1000, np.float64(400)])[1] == (-1000, 400)
    for window, message in (
        ((1, 1), r"window: expected \(low, high\) with low < high"),
        ((2, 1), "window: expected"),
        ((0, 1, 2), "window: expected 2 finite numbers"),
        ((0, np.nan), r"window\[1\]: expected a finite number"),
    ):
        with pytest.raises(ValueError, match=message):
            images_and_window(deep, window)
    with pytest.raises(TypeError, match="window: expected 2 finite numbers"):
        images_and_window(deep, 3)


@pytest.mark.parametrize(
    "ask",
    ["classes", *(pytest.param(name, marks=pytest.mark.ci) for name in ("overlays", "comparison", "gradients", "fooled"))],
)
def test_a_window_shows_deep_images(tmp_path: pathlib.Path, ask: str) -> None:
    images = np.full((1, 1, 8, 8), 3000, np.uint16)
    maps = np.ones((1, 8, 8))
    for name, window in ("dark", None), ("light", (0, 4000)):
        path, more = tmp_path / f"{name}.png", {"window": window}
        if ask == "overlays":
            view.overlays(path, images, maps, **more)
        elif ask == "comparison":
            view.comparison(path, images, {"a": maps}, **more)
        elif ask == "gradients":
            view.gradient_images(path, images, maps, np.zeros(1, int), P[:1], "abc", **more)
        elif ask == "fooled":
            view.fooled(path, images, images, P[:1], P[:1], "abc", **more)
        else:
            view.images_of_classes(path, images, ["a"], **more)
    assert count(pixels(tmp_path / "dark.png"), "#0c0c0c", 2) > 15_000  # 3000 of 65535
    assert count(pixels(tmp_path / "light.png"), "#bfbfbf", 2) > 15_000  # 3000 of 4000


@pytest.mark.parametrize("channels", [2, 5, *(pytest.param(n, marks=pytest.mark.ci) for n in (1, 3, 4))])
def test_any_channels(tmp_path: pathlib.Path, channels: int) -> None:
    images = np.zeros((1, channels, 8, 8), np.uint8)
    images[:, 0] = 200
    shown = "#c8c8c8" if channels < 3 else "#c80000"
    view.images_of_classes(tmp_path / "a.png", images, ["a"])
    assert count(pixels(tmp_path / "a.png"), shown, 2) > 30_000
    view.images_of_classes(tmp_path / "a.svg", images, ["a"])
    said = {2: "of 2 channels, the first is shown", 4: "of 4 channels, the first three are shown"}
    said[5] = said[4].replace("4", "5")
    assert (said.get(channels, "channels") in texts(tmp_path / "a.svg")) == (channels in said)


@pytest.mark.ci
def test_a_scale_for_each_image(tmp_path: pathlib.Path) -> None:
    maps = np.ones((2, 8, 8))
    maps[1] /= 1000
    deepest = {}
    for kind in "shared", "image":
        view.overlays(tmp_path / f"{kind}.png", grey(8, 2), maps, scale=kind)
        view.overlays(tmp_path / f"{kind}.svg", grey(8, 2), maps, scale=kind)
        deepest[kind] = count(pixels(tmp_path / f"{kind}.png"), "#8a1438", 12)
    assert deepest["image"] > 1.8 * deepest["shared"] > 0
    lines = texts(tmp_path / "image.svg").splitlines()
    assert {"end 1", "end 0.001", "a scale for each map, whose end is written above it"} <= set(lines)
    assert "one scale for all maps" in texts(tmp_path / "shared.svg").splitlines()
    view.comparison(tmp_path / "c.svg", grey(8, 2), {"a": maps}, scale="image")
    assert {"end 1", "end 0.001"} <= set(texts(tmp_path / "c.svg").splitlines())
    view.gradient_images(tmp_path / "g.svg", grey(8, 2), maps, np.zeros(2, int), P[:2], "abc", scale="image")
    assert {"end 1", "end 0.001"} <= set(texts(tmp_path / "g.svg").splitlines())
    with pytest.raises(ValueError, match=r"scale: expected one of \('shared', 'image'\), got 'each'"):
        view.overlays(tmp_path / "o.png", grey(8, 2), maps, scale="each")


def test_a_sure_answer_is_not_called_certain(tmp_path: pathlib.Path) -> None:
    for score, said in (0.9996, "prob > 0.999"), (1.0, "prob > 0.999"), (0.0, "prob < 0.001"), (0.25, "prob 0.250"):
        e = Explanation(np.ones((1, 8, 8)), np.ones((1, 3, 8, 8)), np.array([1]), np.array([score]), params={"output": "prob"})
        assert e.captions(["a", "b\n"]) == [f"b\\n\n{said}"]
    e.plot(tmp_path / "p.svg", np.full((1, 3, 8, 8), 300.0), window=(0, 400), scale="image")
    assert "grey values from 0 to 400" in texts(tmp_path / "p.svg")


# ---- curves of attacks


def test_every_attack_has_a_line_of_its_own(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = set[Any]()
    save = Figure.savefig

    def savefig(image: Figure, *args: Any, **more: Any) -> None:
        found.update((line.get_color(), line.get_linestyle(), line.get_marker()) for line in image.axes[0].lines[:-1])
        save(image, *args, **more)

    monkeypatch.setattr(Figure, "savefig", savefig)
    shares = {f"attack {k}": [1.0, k / 20] for k in range(20)}
    view.accuracy_by_eps(tmp_path / "a.svg", [0.1, 0], shares, 0.1)
    assert len(found) == 20 and set(shares) <= set(texts(tmp_path / "a.svg").splitlines())
    view.accuracy_by_eps(tmp_path / "a.svg", [0], {"a": [1.0]}, 1.0)


@pytest.mark.parametrize(
    ("eps", "shares", "message"),
    [
        ([0, 1], {"a": [1.0]}, r"shares\['a'\]: expected shape \(2\), got \(1,\)"),
        ([0, 1], {"a": [1.0, 98.0]}, r"shares\['a'\]: expected numbers in \[0, 1\], got \[1.0, 98.0\]"),
        ([], {"a": []}, "eps, shares: expected at least one of each, got 0 and 1"),
        ([0, 1], {}, "eps, shares: expected at least one of each, got 2 and 0"),
    ],
)
def test_shares_that_are_none(tmp_path: pathlib.Path, eps: list[float], shares: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        view.accuracy_by_eps(tmp_path / "a.png", eps, shares, 0.1)


# ---- what cannot be drawn, and the kinds of files


def test_what_is_no_image(tmp_path: pathlib.Path) -> None:
    path, good = tmp_path / "a.png", grey(8, 2)
    wrong: list[tuple[Any, type[Exception], str]] = [
        (good[:, 0], ValueError, r"expected \(N,C,H,W\), none of these 0, got shape \(2, 8, 8\)"),
        (good[:0], ValueError, "expected"),
        (good * 3, ValueError, r"expected integers or \[0, 1\], .*got 1.5 to 1.5"),
        (good.astype(str), TypeError, "expected an array of numbers, got <U"),
        (good.tolist(), TypeError, "expected an array, got list"),
        (np.ma.masked_array(good, good > 1), TypeError, "expected an array without a mask"),
    ]
    for images, error, message in wrong:
        N = len(images)
        with pytest.raises(error, match=message):
            view.images_of_classes(path, images, ["a"] * N)
        with pytest.raises(error, match=message):
            view.overlays(path, images, np.ones((N, 8, 8)))
        with pytest.raises(error, match=message):
            view.fooled(path, images, images, P[:N], P[:N], "abc")
        with pytest.raises(error, match=message):
            view.gradient_images(path, images, np.ones((N, 8, 8)), np.zeros(N, int), P[:N], "abc")
    with pytest.raises(ValueError, match=r"before: expected shape \(2, 2\), got \(2, 3\)"):
        view.fooled(path, good, good, P[:2], P[:2], "ab")
    with pytest.raises(ValueError, match="labels: expected integers from 0 to 2 for 3 classes"):
        view.gradient_images(path, good, np.ones((2, 8, 8)), np.array([0, 3]), P[:2], "abc")
    with pytest.raises(ValueError, match="captions: expected one for each of 2 images, got 1"):
        view.overlays(path, good, np.ones((2, 8, 8)), ["a"])
    with pytest.raises(ValueError, match="matrix: expected counts of at least one class, got negative ones or NaN"):
        view.confusion(path, np.array([[np.nan]]), "a")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("ending", "first"),
    [
        ("png", b"\x89PNG"),
        ("svg", b"<?xml"),
        ("pdf", b"%PDF"),
        ("jpg", b"\xff\xd8\xff"),
        ("JPEG", b"\xff\xd8\xff"),
        ("PNG", b"\x89PNG"),
    ],
)
def test_a_file_is_what_its_name_says(tmp_path: pathlib.Path, ending: str, first: bytes) -> None:
    for name in "a", "b":
        view.images_of_classes(tmp_path / f"{name}.{ending}", grey(8), ["∂x ≥ 0"])
    assert (tmp_path / f"a.{ending}").read_bytes().startswith(first)
    assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a.{ending}", f"b.{ending}"]
    if first[:1] == b"\xff":
        with Image.open(tmp_path / f"a.{ending}") as image:
            assert image.format == "JPEG"


@pytest.mark.parametrize("name", ["a.gif", "a", "a.png.txt"])
def test_other_kinds_of_files(tmp_path: pathlib.Path, name: str) -> None:
    with pytest.raises(ValueError, match=r"path: expected a name that ends in .png, .svg, .pdf, .jpg, .jpeg, got '.*" + name):
        view.images_of_classes(tmp_path / name, grey(8), ["a"])
    assert not list(tmp_path.iterdir())


def test_nothing_is_said_about_what_is_all_right(tmp_path: pathlib.Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        view.overlays(tmp_path / "a.png", grey(8), np.ones((1, 8, 8)), np.array(["a"]))
