"""Curves, points and tables are drawn where they are, each in the colour of its name; what is none is one sentence."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from minidl import metrics, view
from minidl.metrics import Interval, OperatingPoint
from minidl.view.figure import BLUE, ORANGE
from minidl.view.square import style
from tests.view.test_plots import count, pixels

RNG = np.random.default_rng(0)
LABELS = np.arange(200) % 5 == 0
NETS = {"a": RNG.normal(size=200) + LABELS, "b": RNG.normal(size=200) + 2 * LABELS}
ROC = {name: metrics.roc_curve(scores, LABELS) for name, scores in NETS.items()}
PR = {name: metrics.precision_recall_curve(scores, LABELS) for name, scores in NETS.items()}
P = metrics.probabilities(NETS["b"][:, None])
TABLES = {"a": metrics.reliability(P, LABELS.astype(int), 7, 1), "b": metrics.reliability(P, LABELS.astype(int))}


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Figure]]:
    found, save = list[Figure](), Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *args, **more: (found.append(figure), save(figure, *args, **more)))
    yield found


def lines_of(figure: Figure, color: str) -> list[np.ndarray]:
    """The points of the lines and marks of that colour in the square, (n,2) each"""
    return [np.asarray(line.get_xydata()) for line in figure.axes[0].lines if line.get_color() == color]


def words_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.texts]


def test_roc(tmp_path: pathlib.Path, saved: list[Figure]) -> None:
    point, interval = metrics.operating_point(NETS["b"], LABELS), Interval(ROC["b"].auc, 0.8, 0.9996)
    view.roc(tmp_path / "r.png", ROC, {"b": [point]}, {"b": interval}, "two nets")
    (line,), (other, mark) = lines_of(saved[0], BLUE), lines_of(saved[0], ORANGE)
    np.testing.assert_array_equal(line, np.stack(ROC["a"][:2], 1))
    np.testing.assert_array_equal(other, np.stack(ROC["b"][:2], 1))
    assert mark.tolist() == [[1 - point.specificity, point.sensitivity]]
    words = words_of(saved[0])
    assert {"two nets", "a", "b", f"AUC {ROC['a'].auc:.3f}", f"AUC {ROC['b'].auc:.3f} [0.800, > 0.999]"} <= set(words)
    assert f"● sensitivity {point.sensitivity:.3f}, specificity {point.specificity:.3f}" in words
    x = pixels(tmp_path / "r.png")
    assert count(x, BLUE) > 500 and count(x, ORANGE) > 500
    assert (x[:5] == 255).all() and (x[-5:] == 255).all() and (x[:, :5] == 255).all() and (x[:, -5:] == 255).all()  # all fits


def test_all_right_is_written_as_that(tmp_path: pathlib.Path, saved: list[Figure]) -> None:
    scores, labels = np.arange(4.0), np.array([0, 0, 1, 1])
    point = metrics.operating_point(scores, labels)
    view.roc(tmp_path / "r.svg", {"net": metrics.roc_curve(scores, labels)}, {"net": [point]})
    assert {"AUC 1.000", "● sensitivity 1.000, specificity 1.000"} <= set(words_of(saved[0]))


def test_precision_recall(tmp_path: pathlib.Path, saved: list[Figure]) -> None:
    view.precision_recall(tmp_path / "p.png", PR, {"a": Interval(PR["a"].average_precision, 0.1, 0.9)})
    guessing, line = lines_of(saved[0], BLUE)
    assert (guessing[:, 1] == 0.2).all()
    np.testing.assert_array_equal(line, np.stack([PR["a"].recall, PR["a"].precision], 1))
    (drawn,) = [line for line in saved[0].axes[0].lines if line.get_color() == BLUE and len(line.get_xydata()) > 2]
    assert drawn.get_drawstyle() == "steps-post"
    corners = drawn.get_path().vertices  # of the points
    area = -np.sum(np.diff(corners[:, 0]) * corners[:-1, 1])
    assert area == pytest.approx(PR["a"].average_precision)  # what the steps enclose is what is told
    assert {f"average precision {PR['a'].average_precision:.3f} [0.100, 0.900]", "of guessing 0.200"} <= set(words_of(saved[0]))


def test_calibration(tmp_path: pathlib.Path, saved: list[Figure]) -> None:
    view.calibration(tmp_path / "c.png", TABLES)
    for color, table in zip((BLUE, ORANGE), TABLES.values(), strict=True):
        some = table.counts > 0
        np.testing.assert_array_equal(lines_of(saved[0], color)[0], np.stack([table.confidence, table.frequency], 1)[some])
    for steps, table in zip(saved[0].axes[1].patches, TABLES.values(), strict=True):
        np.testing.assert_allclose(steps.get_data().values, table.counts / 2)  # type: ignore[attr-defined]
    words = words_of(saved[0])
    assert f"expected calibration error {TABLES['a'].ece:.3f}" in words
    assert f"200 images in {(TABLES['b'].counts > 0).sum()} of 15 bins" in words


def test_no_two_of_a_hundred_lines_are_alike() -> None:
    assert len({str(style(i)) for i in range(100)}) == 100


def test_the_same_figure_is_the_same_file(tmp_path: pathlib.Path) -> None:
    for draw, found in (view.roc, ROC), (view.precision_recall, PR), (view.calibration, TABLES):
        draw(tmp_path / "a.svg", found)  # type: ignore[operator]
        draw(tmp_path / "b.svg", found)  # type: ignore[operator]
        assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize(
    ("draw", "arguments", "error", "message"),
    [
        (view.roc, ({},), ValueError, "curves: expected at least one, got none"),
        (view.precision_recall, ({},), ValueError, "curves: expected at least one, got none"),
        (view.calibration, ({},), ValueError, "tables: expected at least one, got none"),
        (view.roc, (PR,), TypeError, "curves['a']: expected what metrics.roc_curve gives, got PrecisionRecallCurve"),
        (view.precision_recall, (ROC,), TypeError, "curves['a']: expected what metrics.precision_recall_curve gives, got ROCC"),
        (view.calibration, (ROC,), TypeError, "tables['a']: expected what metrics.reliability gives, got ROCCurve"),
        (view.roc, (ROC, {"c": []}), ValueError, "points: expected names among ['a', 'b'], got 'c'"),
        (view.roc, (ROC, None, {"c": Interval(1, 1, 1)}), ValueError, "intervals: expected names among ['a', 'b'], got 'c'"),
        (
            view.roc,
            (ROC, {"a": OperatingPoint(0, 1, 1)}),
            TypeError,
            "points['a']: expected several OperatingPoints, got int",
        ),
        (
            view.roc,
            (ROC, {"a": [OperatingPoint(0, 1.5, 1)]}),
            ValueError,
            "points['a']: expected numbers in [0, 1], got [1.5 1",
        ),
        (
            view.roc,
            (ROC, None, {"a": Interval(0.1, 0, 1)}),
            ValueError,
            "intervals['a']: expected the interval of the AUC, which",
        ),
        (view.roc, (ROC, None, {"a": (0.1, 0, 1)}), TypeError, "intervals['a']: expected an Interval, got tuple"),
        (view.roc, ({"a": ROC["a"]._replace(tpr=ROC["a"].tpr * np.nan)},), ValueError, "curves['a'].tpr: expected numbers in"),
        (
            view.precision_recall,
            (PR, {"a": Interval(ROC["a"].auc, 0, 1)}),
            ValueError,
            "intervals['a']: expected the interval of the average precision, which is",
        ),
        (
            view.calibration,
            ({"a": TABLES["a"]._replace(counts=0 * TABLES["a"].counts)},),
            ValueError,
            "tables['a'].confidence: expected numbers in [0, 1], got []",
        ),
    ],
)
def test_what_is_no_curve(
    tmp_path: pathlib.Path, draw: Callable[..., None], arguments: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        draw(tmp_path / "r.png", *arguments)
    assert not list(tmp_path.iterdir())
