"""What an explanation shows of itself."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from minidl.data import lesions
from minidl.explain import Explanation, grad_cam, grad_times_input, saliency
from minidl.explain.explanation import NAMES
from tests.view.test_plots import pixels

from .nets import METHODS, Net


def test_plot(tmp_path: pathlib.Path) -> None:
    images = lesions(3).images
    x = images.astype(np.float32) / 255 - 0.5
    for e in saliency(Net(), x), grad_times_input(Net(), x), grad_cam(Net(), x, layer="conv3"):
        e.plot(tmp_path / "p.png", images, ["nevus", "melanoma", "keratosis"])
        assert pixels(tmp_path / "p.png").shape[0] > 300
    e.plot(tmp_path / "other.png", images, title="another title")
    assert (pixels(tmp_path / "other.png").shape != pixels(tmp_path / "p.png").shape) or (
        pixels(tmp_path / "other.png") != pixels(tmp_path / "p.png")
    ).any()


def test_captions() -> None:
    e = Explanation(
        np.ones((2, 4, 4)), np.ones((2, 1, 4, 4)), np.array([1, 0]), np.array([2.3456, -0.5]),
        params={"method": "grad_times_input", "output": "margin"},
    )  # fmt: skip
    assert e.captions(["benign", "malignant"]) == ["malignant\nmargin 2.35", "benign\nmargin -0.5"]
    assert e.captions() == ["class 1\nmargin 2.35", "class 0\nmargin -0.5"]
    assert e.name == "gradient x input" and e.unit == "gradient x input, of the margin"
    bare = Explanation(e.map, e.raw, e.target, e.score)
    assert bare.captions() == ["class 1\nscore 2.35", "class 0\nscore -0.5"] and bare.name == bare.unit == ""


def test_names() -> None:
    x = np.ones((1, 3, 8, 8), np.float32)
    known = {name: ask(Net(), x, **quick).name for name, (ask, quick) in METHODS.items()}
    assert known["grad_cam"] == "Grad-CAM" and known["guided_backprop"] == "guided backprop" and known["rise"] == "RISE"
    assert len(set(known.values())) == len(METHODS) and known["evidence_maps"] == "evidence"
    assert NAMES.keys() <= known.keys()
    bare = Explanation(*(np.zeros(0) for _ in range(4)), params={"method": "evidence_maps", "head": "disc"})
    assert bare.name == "evidence for disc"


def test_an_explanation_of_nothing(tmp_path: pathlib.Path) -> None:
    e = Explanation(np.zeros((1, 32, 32)), np.zeros((1, 3, 32, 32)), np.array([1]), np.array([0.0]))
    with pytest.warns(UserWarning, match=r"0 everywhere for images \[0\]"):
        e.plot(tmp_path / "p.png", lesions(1).images)
    assert (tmp_path / "p.png").exists()
