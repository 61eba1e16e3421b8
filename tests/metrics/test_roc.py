"""Curves and areas by hand and by their definitions; what cannot be right is one sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl import metrics

# scores 5 4 4 3 2 1 of the labels 1 1 0 0 1 0
SCORES, LABELS = np.array([3.0, 5, 4, 1, 4, 2]), np.array([0, 1, 1, 0, 0, 1])


def test_roc_by_hand() -> None:
    curve = metrics.roc_curve(SCORES, LABELS)
    assert curve.thresholds.tolist() == [np.inf, 5, 4, 3, 2, 1]
    assert (3 * curve.tpr).round(9).tolist() == [0, 1, 2, 2, 3, 3]
    assert (3 * curve.fpr).round(9).tolist() == [0, 0, 1, 2, 2, 3]
    assert curve.auc == pytest.approx((3 + 2.5 + 1) / 9)  # pairs that 5, 4 and 2 win; the tie of 4 counts half


def test_precision_recall_by_hand() -> None:
    curve = metrics.precision_recall_curve(SCORES, LABELS)
    assert curve.thresholds.tolist() == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(curve.precision, [3 / 6, 3 / 5, 2 / 4, 2 / 3, 1, 1])
    np.testing.assert_allclose(curve.recall, [1, 1, 2 / 3, 2 / 3, 1 / 3, 0])
    assert curve.average_precision == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)
    assert metrics.average_precision(SCORES, LABELS) == curve.average_precision
    assert metrics.average_precision(np.zeros(6), LABELS) == 0.5  # scores that say nothing: the share of the ones


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40))
def test_the_curve_is_its_definition(images: list[tuple[int, bool]]) -> None:
    scores, ones = np.array([s for s, _ in images], np.int8), np.array([t for _, t in images])
    if ones.all() or not ones.any():
        return
    curve = metrics.roc_curve(scores, ones)
    for fpr, tpr, threshold in zip(*curve, strict=True):
        called = scores >= threshold
        assert tpr == called[ones].mean() == metrics.sensitivity(called, ones)
        assert fpr == called[~ones].mean() == pytest.approx(1 - metrics.specificity(called, ones))
    assert curve.auc == pytest.approx(metrics.auc(scores, ones), abs=1e-12)


def test_of_several_classes_by_hand() -> None:
    p = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.3, 0.3, 0.4], [0.5, 0.1, 0.4]])
    labels = np.array([0, 1, 2, 2])
    assert metrics.auc_per_class(p, labels).tolist() == [1, 1, 1]
    labels = np.array([0, 1, 2, 0])  # 0.1 0.3 0.4 0.4 of class 2: the third beats two and ties
    assert metrics.auc_per_class(p, labels).tolist() == [1, 1, 2.5 / 3]
    assert metrics.macro_auc(p, labels) == pytest.approx((1 + 1 + 2.5 / 3) / 3)
    assert metrics.macro_auc(p, labels, "ovo") == pytest.approx((5 + 1.5 / 2) / 6)


def test_one_probability_is_two_classes() -> None:
    p = np.array([[0.1], [0.4], [0.35], [0.8]])
    labels = np.array([0, 0, 1, 1])
    assert metrics.macro_auc(p, labels) == metrics.auc(p[:, 0], labels) == 0.75
    assert metrics.auc_per_class(p, labels).tolist() == [0.75, 0.75]


def test_a_class_without_images_has_no_auc() -> None:
    p, labels = np.full((4, 3), 1 / 3), np.array([0, 0, 2, 2])
    assert np.array_equal(metrics.auc_per_class(p, labels), [0.5, np.nan, 0.5], equal_nan=True)
    assert np.isnan(metrics.auc_per_class(p, np.zeros(4, int))).all()
    for multi_class in "ovr", "ovo":
        with pytest.raises(ValueError, match=r"labels: expected images of all 3 classes, got none of \[1\]; see auc_per_class"):
            metrics.macro_auc(p, labels, multi_class)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8, np.uint8, np.int64, bool])
def test_scores_of_every_type(dtype: type) -> None:
    scores = np.array([0, 1, 1, 0, 1, 1]).astype(dtype)
    assert metrics.roc_curve(scores, LABELS).thresholds.tolist() == [np.inf, 1, 0]
    assert metrics.auc(scores, LABELS) == metrics.roc_curve(scores, LABELS).auc == 5 / 6


OF_TWO: list[Callable[..., Any]] = [
    metrics.auc,
    metrics.roc_curve,
    metrics.precision_recall_curve,
    metrics.average_precision,
    metrics.operating_point,
    metrics.OperatingPoint(0.5, 1.0, 1.0).apply,
]


@pytest.mark.parametrize("metric", OF_TWO)
@pytest.mark.parametrize(
    ("scores", "labels", "error", "message"),
    [
        ([1.0, 2.0], np.array([0, 1]), TypeError, "scores: expected an array, got list; write np.asarray"),
        (np.array([1.0, 2.0]), (0, 1), TypeError, "labels: expected an array, got tuple"),
        (np.array(["a", "b"]), np.array([0, 1]), TypeError, "scores: expected an array of numbers, got <U1"),
        (np.array([1j, 2]), np.array([0, 1]), TypeError, "scores: expected an array of numbers, got complex128"),
        (np.ma.array([1.0, 2.0], mask=[0, 1]), np.array([0, 1]), TypeError, "scores: expected an array without a mask"),
        (np.ones((2, 2)), np.array([0, 1]), ValueError, r"scores and labels: expected \(N,\) each, got \(2, 2\) and \(2,\)"),
        (np.ones(3), np.array([0, 1]), ValueError, r"scores and labels: expected \(N,\) each, got \(3,\) and \(2,\)"),
        (np.ones(0), np.ones(0), ValueError, "labels: expected zeros and ones, some of each"),
        (np.array([1.0, 2.0]), np.array([1, 1]), ValueError, "labels: expected zeros and ones, some of each"),
        (np.array([1.0, 2.0]), np.array([0, 2]), ValueError, "labels: expected zeros and ones, some of each"),
        (np.array([1.0, 2.0]), np.array([0, np.nan]), ValueError, "labels: expected zeros and ones, some of each"),
        (np.array([np.nan, 2.0]), np.array([0, 1]), ValueError, "scores: 1 of 2 are not finite"),
        (np.array([np.inf, 2.0]), np.array([0, 1]), ValueError, "scores: 1 of 2 are not finite"),
    ],
)
def test_what_is_no_answer_of_two(metric: Any, scores: Any, labels: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        metric(scores, labels)


P = np.array([[0.2, 0.8], [0.7, 0.3]])
OF_PROBABILITIES: list[Callable[..., Any]] = [
    metrics.macro_auc,
    metrics.auc_per_class,
    metrics.reliability,
    metrics.expected_calibration_error,
    metrics.brier_score,
]


@pytest.mark.parametrize("metric", OF_PROBABILITIES)
@pytest.mark.parametrize(
    ("probabilities", "labels", "error", "message"),
    [
        (P.tolist(), np.array([1, 0]), TypeError, "probabilities: expected an array, got list"),
        (P, [1, 0], TypeError, "labels: expected an array, got list"),
        (P, np.array([1.0, 0.0]), TypeError, "labels: expected integers, got float64"),
        (P, np.array([1, 2]), ValueError, "labels: expected 0 to 1, got 1 to 2"),
        (P, np.array([1, 0, 0]), ValueError, r"probabilities and labels: expected \(N,K\) and \(N,\)"),
        (P[:, 1], np.array([1, 0]), ValueError, r"probabilities and labels: expected \(N,K\) and \(N,\)"),
        (P[:0], np.zeros(0, int), ValueError, "N > 0"),
        (P * np.nan, np.array([1, 0]), ValueError, "probabilities: expected numbers, got NaN in 2 of 2 rows"),
        (np.log(P), np.array([1, 0]), ValueError, r"add up to 1, got .* in row 0; of logits pass metrics.probabilities"),
        (2 * P - 0.5, np.array([1, 0]), ValueError, "probabilities: expected rows in"),  # they add up to 1
        (np.array([[-0.1, 0.6, 0.5], [0, 0, 1]]), np.array([1, 0]), ValueError, "probabilities: expected rows in"),
        (P * [1, 0.9], np.array([1, 0]), ValueError, "probabilities: expected rows in"),
        (np.array([[1.2], [0.1]]), np.array([1, 0]), ValueError, "probabilities: expected rows in"),
        (P[:, :0], np.array([1, 0]), ValueError, "probabilities and labels: expected"),
    ],
)
def test_what_is_no_probability(metric: Any, probabilities: Any, labels: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        metric(probabilities, labels)


def test_another_way_to_compare_classes() -> None:
    with pytest.raises(ValueError, match=r"multi_class: expected one of \('ovr', 'ovo'\), got 'raise'"):
        metrics.macro_auc(P, np.array([1, 0]), "raise")
