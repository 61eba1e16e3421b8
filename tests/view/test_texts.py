"""No text of a figure is cut or lies on another one, whatever classes, layers and attacks are called, and how many they are."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text

import minidl
from minidl import Tensor, metrics, nn, ops, view
from minidl.array import Array
from minidl.view.fit import fitted, fitted_lines, width, wrapped
from minidl.view.shares import fraction, probability, share

RNG = np.random.default_rng(0)
WORDS = "squamous cell carcinoma in situ of the scalp and of the face, left side of the body"


def names_of(letters: int, K: int) -> list[str]:
    """Names that differ at the end, at the beginning and in the middle, in signs of all kinds."""
    signs = "∑ x ≥ α₂ ∂/∂x ", "Меланома кожи ", "שלום עולם ", "皮膚がん", "$\\frac{a}{b}$ _"
    names = []
    for k in range(K):
        text = ((signs[k // 4 % 5] * 9) if k % 4 == 3 else WORDS)[: letters - 3]
        place = len(text) if k % 4 == 0 else 0 if k % 4 == 1 else letters // 2
        names.append(f"{text[:place]}{k:3}{text[place:]}")
    return names


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The texts of the figures that are saved, each of which is measured."""
    found = list[str]()
    save, draw = Figure.savefig, Text.draw

    def savefig(image: Figure, *args: Any, **more: Any) -> None:
        texts = dict[Text, None]()

        def record(text: Text, *args: Any) -> None:
            if text.get_visible() and text.get_text().strip():
                texts[text] = None
            draw(text, *args)

        monkeypatch.setattr(Text, "draw", record)
        image.draw_without_rendering()
        monkeypatch.setattr(Text, "draw", draw)
        boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
        for text, box in boxes:
            inside = box.x0 >= -0.5 and box.y0 >= -0.5 and box.x1 <= image.bbox.x1 + 0.5 and box.y1 <= image.bbox.y1 + 0.5
            assert inside, f"cut: {text!r} {box}"
        for (a, p), (b, q) in itertools.combinations(boxes, 2):
            apart = p.x1 < q.x0 + 0.5 or q.x1 < p.x0 + 0.5 or p.y1 < q.y0 + 0.5 or q.y1 < p.y0 + 0.5
            assert apart, f"one on the other: {a!r} and {b!r}, {p} {q}"
        assert boxes
        found.extend(text for text, _ in boxes)
        save(image, *args, **more)

    monkeypatch.setattr(Figure, "savefig", savefig)
    yield found


class Named(nn.Module):
    """A residual block with layers of these names."""

    def __init__(self, names: list[str]) -> None:
        for name in names:
            setattr(self, name, nn.Conv2d(1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for _, layer in self.named_children():
            y = ops.relu(layer(y))
        return x + y


def draw_confusion(path: pathlib.Path, names: list[str]) -> None:
    K = len(names)
    view.confusion(path, RNG.integers(0, 123_456, (K, K)), names, f"{WORDS}\n{WORDS}")


def draw_overlays(path: pathlib.Path, names: list[str]) -> None:
    captions = [f"{name}\nlogit {n}.25" for n, name in enumerate(names[:3])]
    x = RNG.random((len(captions), 3, 40, 8))
    view.overlays(path, x, x[:, 0] - 0.5, captions, WORDS * 3, WORDS, scale="image")


def draw_comparison(path: pathlib.Path, names: list[str]) -> None:
    x = RNG.random((2, 5, 8, 8)) * 0.001
    maps = {name: x[:, 0] - 0.0005 * (n % 2) if n % 3 else x[:, 0] > 0.0005 for n, name in enumerate(names[:5])}
    view.comparison(path, x, maps, [f"{name}\np > 99.99%" for name in names[:2]], WORDS, (0, 0.0125), "image")


def draw_gradients(path: pathlib.Path, names: list[str]) -> None:
    x, p = RNG.random((5, 3, 8, 8)), np.eye(len(names))[np.arange(5) * 7 % len(names)]
    view.gradient_images(path, x, x[:, 0] - 0.5, np.arange(5) * 3 % len(names), p, names, WORDS)


def draw_fooled(path: pathlib.Path, names: list[str]) -> None:
    x, p = RNG.random((3, 1, 16, 8)), np.eye(len(names))[np.arange(3) % len(names)]
    view.fooled(path, x, 1 - x, p, p[::-1], names, WORDS)


def draw_images(path: pathlib.Path, names: list[str]) -> None:
    view.images_of_classes(path, RNG.random((len(names), 2, 8, 8)), [f"{name}\nlogit 1.2 → 12" for name in names], WORDS)


def draw_accuracy(path: pathlib.Path, names: list[str]) -> None:
    shares = {name: [1.0, np.nan if n % 5 == 1 else 0.5] for n, name in enumerate(names)}
    view.accuracy_by_eps(path, [0, 0.1], shares, 1.0, WORDS)


def draw_linearity(path: pathlib.Path, names: list[str]) -> None:
    def sweep() -> Any:
        share = np.linspace(0, 0.1, 5)
        return SimpleNamespace(
            logits=RNG.random((5, len(names))), gates=share, switches=share, slopes=share, r2=np.ones(len(names))
        )

    found = SimpleNamespace(eps=np.linspace(-0.1, 0.1, 5), target=0, slope=1.0, along=sweep(), random=sweep())
    found.along.logits[1, 1] = np.nan
    view.linearity(path, {name: found for name in names[:2]}, names, WORDS)


def draw_architecture(path: pathlib.Path, names: list[str]) -> None:
    view.architecture(path, minidl.cost(Outer(names), (1, 4, 4)), f"{WORDS} {WORDS}")


class Outer(nn.Module):
    """Two blocks, one after the other."""

    def __init__(self, names: list[str]) -> None:
        for name in names[:2]:
            setattr(self, name, Named(names[:10]))

    def forward(self, x: Tensor) -> Tensor:
        for _, block in self.named_children():
            x = block(x)
        return x


def draw_curves(path: pathlib.Path, names: list[str]) -> None:
    keys = "lr", "train_loss", "validation_loss", "train_accuracy", "validation_accuracy", "validation_majority_accuracy"
    view.curves(path, [{"epoch": e} | dict.fromkeys(keys, np.nan if e == 2 else 1 / e) for e in range(1, 4)], names[-1] * 4)


def two_classes(names: list[str]) -> tuple[Array, dict[str, Array]]:
    return np.arange(90) % 3 == 0, {name: RNG.random(90) for name in names}


def draw_roc(path: pathlib.Path, names: list[str]) -> None:
    labels, found = two_classes(names)
    points = {name: [metrics.operating_point(found[name], labels, sensitivity=s) for s in (0.2, 0.5)] for name in names[::2]}
    intervals = {name: metrics.Interval(metrics.auc(found[name], labels), 0.0001, 0.9999) for name in names[:5]}
    view.roc(path, {name: metrics.roc_curve(s, labels) for name, s in found.items()}, points, intervals, WORDS * 3)


def draw_precision_recall(path: pathlib.Path, names: list[str]) -> None:
    labels, found = two_classes(names)
    view.precision_recall(path, {name: metrics.precision_recall_curve(s, labels) for name, s in found.items()})


def draw_calibration(path: pathlib.Path, names: list[str]) -> None:
    labels, found = two_classes(names)
    tables = {name: metrics.reliability(s[:, None], labels.astype(int), target=1) for name, s in found.items()}
    view.calibration(path, tables, WORDS)


FIGURES: dict[str, Callable[[pathlib.Path, list[str]], None]] = {
    "confusion": draw_confusion,
    "overlays": draw_overlays,
    "comparison": draw_comparison,
    "gradients": draw_gradients,
    "fooled": draw_fooled,
    "images": draw_images,
    "accuracy": draw_accuracy,
    "linearity": draw_linearity,
    "architecture": draw_architecture,
    "curves": draw_curves,
    "roc": draw_roc,
    "precision_recall": draw_precision_recall,
    "calibration": draw_calibration,
}


PLAIN = [("roc", 64, 2), ("comparison", 64, 2), ("gradients", 64, 2), ("images", 64, 2), ("architecture", 30, 20)]
OTHERS = [case for case in itertools.product(FIGURES, (4, 14, 30, 64), (2, 20)) if case not in PLAIN]


@pytest.mark.parametrize(("name", "letters", "K"), [*PLAIN, *(pytest.param(*case, marks=pytest.mark.ci) for case in OTHERS)])
def test_no_text_is_cut_or_lies_on_another(tmp_path: pathlib.Path, drawn: list[str], name: str, letters: int, K: int) -> None:
    FIGURES[name](tmp_path / "figure.png", names_of(letters, K))
    assert (tmp_path / "figure.png").exists()


@pytest.mark.ci
@pytest.mark.parametrize("name", ["accuracy", "confusion", "images", "roc", "precision_recall", "calibration"])
def test_names_that_differ_stay_different(tmp_path: pathlib.Path, drawn: list[str], name: str) -> None:
    FIGURES[name](tmp_path / "figure.svg", names_of(64, 20))
    shown = {text.split("\n")[0] for text in drawn if "…" in text and "situ" not in text}
    shown |= {text.split("\n")[0] for text in drawn if "…" in text and "squam" in text and WORDS not in text}
    assert len({text.removesuffix(", NaN at 1 of 2") for text in shown}) >= 20


def test_a_long_list_of_names_has_no_two_alike() -> None:
    names = [f"{'a' * 40}{k}{'b' * 40}" for k in range(30)]
    for room in 0.6, 1.0, 2.0:
        shown = fitted(names, room, 9)
        assert len(set(shown)) == 30 and max(width(text, 9) for text in shown) <= room
    assert fitted(["x" * 50, "y"], 1.0, 9)[1] == "y" and fitted(["same" * 9] * 2, 1.0, 9)[0].count("…") == 1
    assert len(set(fitted(["\n", "\\n"], 1.0, 9))) == 2  # as they are written, they are the same


@given(st.lists(st.text(max_size=40), min_size=1, max_size=12), st.floats(0.8, 3))
@settings(max_examples=20, deadline=None)
def test_any_names(names: list[str], room: float) -> None:
    shown = fitted(names, room, 9)
    assert len(set(shown)) == len(set(names)) and max(width(text, 9) for text in shown) <= room


def test_an_escape_and_an_accent_are_not_cut_apart() -> None:
    for room in np.linspace(0.3, 1.5, 40):
        (shown,) = fitted(["皮膚がん細胞皮膚"], float(room), 9)
        assert all(len(part.split("…")[0]) == 4 for part in shown.split("\\u")[1:]), shown
        (shown,) = fitted(["e\u0301" * 30], float(room), 9)
        assert not shown.startswith("\u0301") and "…\u0301" not in shown


def test_lines() -> None:
    assert fitted_lines(["a\nb", "c"], 1, 9) == ["a\nb", "c"]
    text = wrapped(WORDS * 5, 2.0, 11, "bold")
    assert text.count("\n") == 3 and text.endswith("…") and all(width(line, 11, "bold") <= 2.0 for line in text.split("\n"))
    assert wrapped("a b\nc", 9, 9) == "a b\nc" and wrapped("", 1, 9) == ""


def test_probabilities_are_never_rounded_to_all_or_none() -> None:
    assert [fraction(p) for p in (0.9996, 1.0, 0.9990, 0.5, 0.0004, 0.0)] == [
        "> 0.999", "> 0.999", "0.999", "0.500", "< 0.001", "< 0.001",
    ]  # fmt: skip
    assert [probability(p) for p in (0.9996, 1.0, 0.985, 0.0004, 0.0, np.nan)] == [
        ">99.9%", ">99.9%", "98.5%", "<0.1%", "<0.1%", "NaN",
    ]  # fmt: skip
    assert [share(p) for p in (1.0, 0.9996, 0.0, 0.0004)] == ["100.0%", ">99.9%", "0.0%", "<0.1%"]
    for p in np.float32(1) - np.logspace(-8, -1, 200, dtype=np.float32):
        assert "100" not in probability(float(p)) and fraction(float(p)) != "1.000"
        assert probability(float(1 - p)) != "0.0%" and fraction(float(1 - p)) != "0.000"
