"""Images of attacks, read back as images."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from minidl import attack, kernels, view
from minidl.view.figure import BLUE, GREY, ORANGE, RED
from tests.attack.nets import convolutional, images

from .test_plots import count, pixels


def all_fits(x: np.ndarray) -> bool:
    return bool((x[:3] == 255).all() and (x[-2:] == 255).all() and (x[:, :2] == 255).all() and (x[:, -2:] == 255).all())


@pytest.mark.parametrize(("n", "C"), [(1, 1), (2, 2), (3, 3), (5, 4)])
def test_fooled(tmp_path: pathlib.Path, n: int, C: int) -> None:
    original = np.full((n, C, 8, 8), 0.25, np.float32)
    attacked, p = original.copy(), np.eye(3)[np.arange(n) % 3]
    attacked[:, :, :4] += 0.1  # times 5: 0.5 + 0.5 is white; the rest of the change stays grey
    view.fooled(tmp_path / "a.png", original, attacked, p, p, ["one", "two", "three"], "a title")
    x = pixels(tmp_path / "a.png")
    assert (x[:3] == 255).all() and count(x, "#808080", 2) > 8_000 * n and count(x, "#404040", 2) > 20_000 * n
    with pytest.raises(ValueError, match="original, attacked, before, after: expected as many of each"):
        view.fooled(tmp_path / "a.png", original, attacked, p, p[1:], ["one", "two", "three"])


def test_a_change_of_nothing_is_grey(tmp_path: pathlib.Path) -> None:
    x, p = np.zeros((1, 3, 8, 8)), np.eye(2)[:1]
    view.fooled(tmp_path / "a.png", x, x, p, p, ["one", "two"])
    assert count(pixels(tmp_path / "a.png"), "#808080", 2) > 20_000


def test_accuracy_by_eps(tmp_path: pathlib.Path) -> None:
    shares = {"random signs": [0.9, 0.9, 0.8], "FGSM": [0.9, 0.3, 0.1], "PGD": [0.9, 0.1, 0.0]}
    view.accuracy_by_eps(tmp_path / "a.png", [0, 4 / 255, 8 / 255], shares, 0.1, "a title")
    x = pixels(tmp_path / "a.png")
    assert all_fits(x) and min(count(x, BLUE), count(x, ORANGE), count(x, GREY)) > 500


def test_images_of_classes(tmp_path: pathlib.Path) -> None:
    view.images_of_classes(tmp_path / "a.png", np.full((7, 3, 8, 8), 0.25), ["a caption\nof two lines"] * 7, "a title")
    x = pixels(tmp_path / "a.png")
    assert all_fits(x) and count(x, "#404040", 2) > 7 * 20_000
    with pytest.raises(ValueError, match="images, captions: expected as many of each and at least one, got 2 and 1"):
        view.images_of_classes(tmp_path / "a.png", np.zeros((2, 3, 8, 8)), ["one"])


def test_linearity(tmp_path: pathlib.Path) -> None:
    with kernels.use("reference"):
        nets = {"one": attack.linearity(convolutional(3, 4), images(1, 3), count=21)}
        nets["two"] = attack.linearity(convolutional(3, 2), images(1, 3), count=21)
    view.linearity(tmp_path / "two.png", nets, ["a", "b", "c", "d"], "a title")
    x = pixels(tmp_path / "two.png")
    assert all_fits(x) and min(count(x, BLUE), count(x, ORANGE)) > 2_000 and count(x, RED, 8) == 0  # there is no sigmoid
    with pytest.raises(ValueError, match="sweeps: no net to draw"):
        view.linearity(tmp_path / "none.png", {}, ["a", "b"])
