"""The figure of an architecture, read back: its words from the SVG, its colours from the PNG."""

from __future__ import annotations

import pathlib
import xml.etree.ElementTree as ET

import pytest

import minidl
import models
from minidl import Tensor, nn, ops, view
from minidl.analysis import Cost
from minidl.view.architecture import COLORS, _boxes
from tests.view.test_plots import count, pixels


def words(path: pathlib.Path) -> list[str]:
    return [e.text or "" for e in ET.parse(path).iter("{http://www.w3.org/2000/svg}text")]


@pytest.fixture(scope="module")
def resnet8() -> Cost:
    return minidl.cost(models.resnet8(), (3, 32, 32))


def test_the_words_of_a_residual_net(tmp_path: pathlib.Path, resnet8: Cost) -> None:
    view.architecture(tmp_path / "net.svg", resnet8, "resnet8 on 32x32")
    found = words(tmp_path / "net.svg")
    assert {"resnet8 on 32x32", "input  3 × 32 × 32", "conv 3×3 · norm · relu", "conv 3×3 /2 · norm · relu"} <= set(found)
    assert found.count("+ · relu") == 3 and found.count("16 × 32 × 32") == 3
    assert {"layer2.0", "linear", "global mean", "convolution", "join"} <= set(found)
    assert "module" not in found  # the legend names what is there


def test_the_colours_and_the_margin(tmp_path: pathlib.Path, resnet8: Cost) -> None:
    view.architecture(tmp_path / "net.png", resnet8)
    x = pixels(tmp_path / "net.png")
    assert all(count(x, COLORS[kind][0], 4) > 500 for kind in ("convolution", "pooling", "linear", "join"))
    assert count(x, COLORS["module"][0], 4) == 0
    assert all((edge == 255).all() for edge in (x[:8], x[-8:], x[:, :8], x[:, -8:]))
    view.architecture(tmp_path / "collapsed.png", resnet8.collapsed(1))
    assert count(pixels(tmp_path / "collapsed.png"), COLORS["module"][0], 4) > 500


def test_the_same_net_makes_the_same_file(tmp_path: pathlib.Path, resnet8: Cost) -> None:
    for name in "a.svg", "b.svg":
        view.architecture(tmp_path / name, resnet8)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize(
    ("name", "boxes", "joins"),
    [
        pytest.param("vgg11", 8 + 5 + 1 + 3, 0, marks=pytest.mark.ci),
        ("googlenet", 3 + 4 + 9 * 8 + 2, 9),
        ("resnet18", 2 + 8 * 3 + 3 + 2, 8),
        ("densenet_bc100_12", 0, 48),
    ],
)
def test_how_many_boxes(name: str, boxes: int, joins: int) -> None:
    """Of GoogLeNet: three convolutions, four poolings, nine modules of seven layers and a join, the mean and the last layer."""
    found = _boxes(minidl.cost(getattr(models, name)(num_classes=2), (3, 32, 32)).rows)
    assert sum(box.kind == "join" for box in found) == joins
    assert not boxes or len(found) == boxes
    assert not any(box.kind == "other" for box in found)
    rows = sorted(i for box in found for i in box.numbers)
    assert rows == list(range(len(rows)))


class Odd(nn.Module):
    """Names that mean something in XML and in TeX"""

    def __init__(self) -> None:
        setattr(self, 'a<b>&"c$_x^2$', nn.Conv2d(2, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        y = getattr(self, 'a<b>&"c$_x^2$')(x)
        return ops.concat([y * ops.exp(y), ops.tanh(x[:, :, 2:, 2:])])


def test_odd_names_and_ops_that_are_no_layers(tmp_path: pathlib.Path) -> None:
    view.architecture(tmp_path / "net.svg", minidl.cost(Odd(), (2, 6, 5)), "<&$\\frac$>")
    found = words(tmp_path / "net.svg")
    assert {'a<b>&"c$_x^2$', "<&$\\frac$>", "×", "exp", "concat", "getitem · tanh", "conv 3×3"} <= set(found)


def test_what_cannot_be_drawn(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"expected 1 to 400 boxes to draw, got 0$"):
        view.architecture(tmp_path / "net.png", minidl.cost(nn.Identity(), (3,)))
    deep = minidl.cost(nn.Sequential(*(nn.Linear(1, 1) for _ in range(401))), (1,))
    with pytest.raises(ValueError, match=r"got 401: collapse them, as in cost.collapsed\(2\)"):
        view.architecture(tmp_path / "net.png", deep)
    assert not list(tmp_path.iterdir())


def test_a_long_chain_names_its_ends(tmp_path: pathlib.Path) -> None:
    chain = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Tanh(), nn.Sigmoid(), nn.GELU())
    view.architecture(tmp_path / "net.svg", minidl.cost(chain, (2,)))
    assert "linear · … · gelu" in words(tmp_path / "net.svg")
    view.architecture(tmp_path / "net.svg", minidl.cost(chain[:4], (2,)))
    assert "linear · relu · tanh · sigmoid" in words(tmp_path / "net.svg")
