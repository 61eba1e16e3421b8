"""Whatever a class, a file or a layer is called: it is drawn as it is called, and nothing is raised or warned of."""

from __future__ import annotations

import html
import json
import pathlib
import re
import xml.etree.ElementTree as ET
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from minidl import Tensor, cost, explain, nn, ops, view
from minidl.view import figure
from minidl.view.names import literal

NAMES = {  # and how they are shown
    "$\\frac{$": "$\\frac{$",
    "5$ to 6$": "5$ to 6$",
    "a_b^c": "a_b^c",
    "_first": "\u200b_first",  # or a legend would leave it out
    "caf\udce9": "caf\\xe9",
    "\ud800": "\\ud800",
    "two\nlines\t\x1b[0m\x00": "two\\nlines\\t\\x1b[0m\\x00",
    "\u202eexe.gnp": "\\u202eexe.gnp",
    "שלום": "שלום",
    "\U0001f9d1 \U0001fae0": "\\U0001f9d1 \\U0001fae0",
    "猫": "\\u732b",
    "<b>&amp;</script>": "<b>&amp;</script>",
    "long " * 40 + "end": "long long long l…ong end",
    "": "",
}
K = len(NAMES)
CLASSES = tuple(NAMES)


def texts(path: pathlib.Path) -> str:
    """What an SVG says, line by line."""
    return "\n".join(text.text or "" for text in ET.parse(path).iter("{http://www.w3.org/2000/svg}text"))


def test_literal() -> None:
    for name, shown in NAMES.items():
        if name.isascii():
            assert literal(name, 24) == shown.replace("\u200b", "")
    assert literal("猫 \u200c\u200d é") == "猫 \u200c\u200d é" and literal("a" * 9 + "b", 10) == "a" * 9 + "b"
    for room in range(1, 12):
        assert len(literal("abcdefghijklmno", room)) == room
    assert literal("猫" * 9, 10, str.isascii) == "\\u732b…32b"


def test_names_of_classes_in_a_confusion_matrix(tmp_path: pathlib.Path) -> None:
    view.confusion(tmp_path / "c.svg", np.ones((K, K), np.int64), CLASSES, "5$ to 6$ \udce9\n\U0001f9d1 $\\frac{")
    lines = texts(tmp_path / "c.svg").splitlines()
    for name, shown in NAMES.items():
        assert not name or len(name) > 100 or lines.count(shown) == 2, name
    assert len([line for line in lines if line.startswith("long long") and line.endswith("long end") and "…" in line]) == 2
    assert "5$ to 6$ \\xe9" in lines and "\\U0001f9d1 $\\frac{" in lines


def test_names_in_a_legend(tmp_path: pathlib.Path) -> None:
    view.accuracy_by_eps(tmp_path / "a.svg", [0, 0.1], {"_$x$": [1, 0.5], "$\\frac{": [0.5, 0.4]}, 0.1, "$_{")
    lines = texts(tmp_path / "a.svg").splitlines()
    assert {"\u200b_$x$", "$\\frac{", "$_{"} <= set(lines)


class Called(nn.Module):
    """Layers of every name."""

    def __init__(self) -> None:
        for name in NAMES:
            if name:
                setattr(self, name, nn.Conv2d(1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        for _, layer in self.named_children():
            x = ops.relu(layer(x))
        return x


def test_names_of_layers(tmp_path: pathlib.Path) -> None:
    view.architecture(tmp_path / "m.svg", cost(Called(), (1, 2, 2)), "<b> $\\frac{$ \x01\udce9")
    lines = texts(tmp_path / "m.svg").splitlines()
    assert {shown for name, shown in NAMES.items() if name and len(name) < 100} <= set(lines)
    assert "<b> $\\frac{$ \\x01\\xe9" in lines


def test_a_formula_of_matplotlib_stays_one(tmp_path: pathlib.Path) -> None:
    fig = figure.new(3, 2)
    ax = fig.subplots()
    ax.loglog([1, 1000], [1, 1000], label="$x$")
    ax.legend()
    figure.save(fig, tmp_path / "log.svg")
    raw = (tmp_path / "log.svg").read_text()
    assert ">$x$<" in raw and "mathdefault" not in "".join(re.findall(">[^<]*<", raw))


def test_a_font_that_somebody_chose(tmp_path: pathlib.Path) -> None:
    from matplotlib import rc_context

    with rc_context({"font.family": ["STIXGeneral"]}):
        assert figure.name("ש ∑") == "\\u05e9 ∑"
    assert figure.name("ש ∑") == "ש ∑"


def test_names_in_a_page(tmp_path: pathlib.Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            self.linear = nn.Linear(3, K, rng=np.random.default_rng(0))

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(ops.global_avg_pool2d(ops.relu(x)))

    x, title = np.ones((3, 4, 4), np.float32), "</title>\udce9<script>\n{{data}}"
    page = view.stepper(Net(), x, path=tmp_path / "s.html", classes=CLASSES, title=title).read_text(encoding="utf-8")
    (found,) = re.findall(r"<title>(.*?)</title>", page, re.S)
    assert html.unescape(found) == "</title>\\xe9<script>\\n{{data}}"
    (data,) = re.findall(r'<script[^>]*id="data"[^>]*>(.*?)</script>', page, re.S)
    about = json.loads(data)
    assert about["title"] == html.unescape(found)
    assert about["classes"] == [literal(name, 200) for name in CLASSES]


@pytest.mark.ci
def test_names_in_all_other_images(tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(0)
    x, maps, p = rng.random((K, 3, 8, 8)), rng.random((K, 8, 8)), np.eye(K)
    turned = np.roll(np.arange(K), 1)
    title = "$\\frac{$ \udce9 \U0001f9d1"
    view.gradient_images(tmp_path / "g.svg", x, maps, turned, p, CLASSES, title)
    view.fooled(tmp_path / "f.svg", x, x[::-1], p, p[::-1], CLASSES, title)
    view.images_of_classes(tmp_path / "i.svg", x, CLASSES, title)
    view.overlays(tmp_path / "o.svg", x, maps, CLASSES, title, title)
    view.comparison(tmp_path / "c.svg", x[:2], {"$\\frac{": maps[:2], "\udce9": -maps[:2]}, CLASSES[:2], title)
    view.curves(
        tmp_path / "l.svg",
        [
            dict.fromkeys(
                (
                    "lr",
                    "train_loss",
                    "validation_loss",
                    "train_accuracy",
                    "validation_accuracy",
                    "validation_majority_accuracy",
                    "epoch",
                ),
                1,
            )
        ],
        title,
    )
    for path in tmp_path.glob("*.svg"):
        assert "$\\frac{$ \\xe9 \\U0001f9d1" in texts(path), path
    shown = texts(tmp_path / "g.svg")
    for name in ("$\\frac{$, 100", "5$ to 6$, >99.9%", "caf\\xe9, >99.9%", "wrong: it is 5$ to 6$", "wrong: it is \\ud800"):
        assert name.split(", 100")[0] in shown, name

    def sweep() -> Any:
        return SimpleNamespace(logits=rng.random((5, 2)), gates=p[0, :5], switches=p[0, :5], slopes=p[0, :5], r2=np.ones(2))

    found = SimpleNamespace(eps=np.linspace(-0.1, 0.1, 5), target=0, slope=1.0, along=sweep(), random=sweep())
    view.linearity(tmp_path / "s.svg", {"$\\frac{": found}, ("_$x$", "\udce9"), title)
    shown = texts(tmp_path / "s.svg")
    assert "$\\frac{: logits of x" in shown and "_$x$, R² 1.000" in shown and "\\xe9, R² 1.000" in shown


def test_classes_and_titles_that_are_numbers() -> None:
    """As those of digits are: range(10)"""
    x = np.random.default_rng(0).random((2, 3, 8, 8), dtype=np.float32)
    e = explain.Explanation(x[:, 0], x, np.array([0, 2]), np.ones(2))
    assert [caption.startswith(start) for caption, start in zip(e.captions(range(3)), "02", strict=True)] == [True, True]
    for drawing in e.plot(None, images=x, classes=range(3), title=7), view.overlays(None, x, x[:, 0], title=7):
        assert isinstance(drawing, view.Drawing)
