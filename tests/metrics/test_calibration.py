"""Calibration by hand, and on answers whose true probabilities are known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl import metrics

# ten images of two classes: p of class 1, and whether they are of it
P1 = np.array([0.1, 0.1, 0.3, 0.3, 0.3, 0.7, 0.7, 0.9, 0.9, 0.9])
P, LABELS = np.stack([1 - P1, P1], 1), np.array([0, 0, 0, 1, 0, 1, 0, 1, 1, 0])


def test_of_one_class_by_hand() -> None:
    table = metrics.reliability(P, LABELS, bins=5, target=1)
    np.testing.assert_allclose(table.edges, [0, 0.2, 0.4, 0.6, 0.8, 1])
    assert table.counts.tolist() == [2, 3, 0, 2, 3]
    np.testing.assert_allclose(table.confidence, [0.1, 0.3, np.nan, 0.7, 0.9])
    np.testing.assert_allclose(table.frequency, [0, 1 / 3, np.nan, 1 / 2, 2 / 3])
    want = (2 * 0.1 + 3 * (1 / 3 - 0.3) + 2 * 0.2 + 3 * (0.9 - 2 / 3)) / 10
    assert table.ece == pytest.approx(want) == metrics.expected_calibration_error(P, LABELS, 5, 1)
    assert metrics.expected_calibration_error(P1[:, None], LABELS, 5, 1) == pytest.approx(want)  # of one sigmoid


def test_of_the_answer_by_hand() -> None:
    """The largest p is 0.9 five times, of which 4 are right, and 0.7 five times, of which 3 are"""
    table = metrics.reliability(P, LABELS, bins=10)
    assert table.counts.tolist() == [0, 0, 0, 0, 0, 0, 5, 0, 5, 0]  # 0.7 and 0.9 close their bins
    np.testing.assert_allclose(table.frequency[[6, 8]], [3 / 5, 4 / 5])
    assert table.ece == pytest.approx(0.1) == metrics.expected_calibration_error(P, LABELS, 10)


def test_the_ends_of_the_bins() -> None:
    p = np.array([[0.0], [0.25], [0.5], [0.75], [1.0]])
    assert metrics.reliability(p, np.array([0, 0, 1, 1, 1]), 4, 1).counts.tolist() == [2, 1, 1, 1]
    assert metrics.reliability(p, np.array([0, 0, 1, 1, 1]), 1, 1).counts.tolist() == [5]


def test_brier_by_hand() -> None:
    assert metrics.brier_score(P, LABELS) == pytest.approx(
        (0.01 + 0.01 + 0.09 + 0.49 + 0.09 + 0.09 + 0.49 + 0.01 + 0.01 + 0.81) / 10
    )
    assert metrics.brier_score(P1[:, None], LABELS) == pytest.approx(metrics.brier_score(P, LABELS))
    three = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    assert metrics.brier_score(three, np.array([0, 1])) == pytest.approx((0.25 + 0.09 + 0.04 + 0.01 + 0.81 + 0.64) / 2)
    assert metrics.brier_score(np.eye(3), np.array([1, 2, 0])) == 2 and metrics.brier_score(np.eye(3), np.arange(3)) == 0


def test_likelihood_by_hand() -> None:
    logits = np.log(np.array([[1.0, 3], [1, 1]]))
    assert metrics.negative_log_likelihood(logits, np.array([1, 0])) == pytest.approx(-(math.log(0.75) + math.log(0.5)) / 2)
    assert metrics.negative_log_likelihood(np.array([[math.log(3)]]), np.array([1])) == pytest.approx(-math.log(0.75))
    assert metrics.negative_log_likelihood(np.array([[2000.0, 0]]), np.array([1])) == 2000  # where p is 0
    assert metrics.negative_log_likelihood(np.float16([[300, 0]]), np.array([1])) == 300


def test_probabilities_by_hand() -> None:
    logits = np.log(np.array([[1.0, 4, 9]]))
    np.testing.assert_allclose(metrics.probabilities(logits), [[1 / 14, 4 / 14, 9 / 14]])
    np.testing.assert_allclose(metrics.probabilities(logits, 2), [[1 / 6, 2 / 6, 3 / 6]])
    np.testing.assert_allclose(metrics.probabilities(np.array([[math.log(9)]]), 2), [[1 / 4, 3 / 4]])  # of one logit
    assert metrics.probabilities(np.float32([[1000, 0]])).tolist() == [[1, 0]]


def test_temperature_by_hand() -> None:
    """Three of four images whose logits differ by 2 are right: p is 3/4 where 2 / T = log 3"""
    logits = np.array([[0.0, 2], [0, 2], [2, 0], [2, 0]])
    found = metrics.fit_temperature(logits, np.array([1, 1, 0, 1]))
    assert found == pytest.approx(2 / math.log(3), rel=1e-12)
    assert metrics.probabilities(logits, found).max(1) == pytest.approx(0.75)
    one = metrics.fit_temperature(logits[:, 1:] - logits[:, :1], np.array([1, 1, 0, 1]))  # one logit, -2 or 2
    assert one == pytest.approx(2 / math.log(3), rel=1e-12)


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.floats(-200, 200))
def test_temperature_is_where_the_likelihood_is_largest(seed: int, K: int, exponent: float) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, K, 50)
    logits = 2 * rng.normal(size=(50, K)) + 2 * np.eye(K)[labels]
    found = metrics.fit_temperature(logits, labels)
    nll = [metrics.negative_log_likelihood(logits / (found * t), labels) for t in (0.99, 1, 1.01)]
    assert nll[1] == min(nll)
    scale = 10.0**exponent
    assert metrics.fit_temperature(scale * logits, labels) == pytest.approx(scale * found, rel=1e-9)
    shifted = logits + rng.normal(size=(50, 1))
    assert metrics.fit_temperature(shifted, labels) == pytest.approx(found, rel=1e-9)


def test_temperature_undoes_what_made_a_net_too_sure() -> None:
    rng = np.random.default_rng(0)
    z = 2 * rng.normal(size=(20_000, 5))
    p = metrics.probabilities(z)
    labels = (p.cumsum(1) < rng.random((len(p), 1))).sum(1)  # drawn as p says
    found = metrics.fit_temperature(3.5 * z, labels)
    assert found == pytest.approx(3.5, rel=0.03)
    before, after = (metrics.expected_calibration_error(metrics.probabilities(3.5 * z, T), labels) for T in (1, found))
    assert before > 0.2 and after < 0.02


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([[2, 0], [0, 1]], [0, 1], "got none: the lower the temperature, the likelier"),
        ([[2, 0], [1, 1]], [0, 1], "got none: the lower the temperature, the likelier"),  # a tie costs nothing
        ([[2, 0], [0, 2]], [1, 0], "got none or lower ones on average: the higher the temperature, the likelier"),
        ([[2, 0], [2, 0]], [1, 0], "got none or lower ones on average"),  # one answer to everything
        ([[1, 1], [1, 1]], [1, 0], "got none or lower ones on average"),
        ([[3], [3]], [1, 0], "got none or lower ones on average"),
    ],
)
def test_no_temperature_is_best(logits: Any, labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.fit_temperature(np.array(logits, float), np.array(labels))


@pytest.mark.parametrize("f", [metrics.negative_log_likelihood, metrics.fit_temperature])
@pytest.mark.parametrize(
    ("logits", "labels", "error", "message"),
    [
        ([[0.0, 1]], np.array([1]), TypeError, "logits: expected an array, got list"),
        (np.zeros(2), np.array([1, 0]), ValueError, r"logits: expected \(N,K\), neither of these 0, got \(2,\)"),
        (np.zeros((0, 2)), np.zeros(0, int), ValueError, "neither of these 0"),
        (
            np.array([[0, np.nan], [0, 1]]),
            np.array([1, 0]),
            ValueError,
            "logits: expected finite numbers, got others in 1",
        ),
        (np.array([[0, -np.inf], [0, 1]]), np.array([1, 0]), ValueError, "logits: expected finite numbers"),
        (np.eye(2), np.array([1]), ValueError, r"logits and labels: expected \(N,K\) and \(N,\)"),
        (np.eye(2), np.array([1, 2]), ValueError, "labels: expected 0 to 1, got 1 to 2"),
        (np.ones((2, 1)), np.array([1, 2]), ValueError, "labels: expected 0 to 1, got 1 to 2"),
        (np.eye(2), np.array([1.0, 0]), TypeError, "labels: expected integers"),
    ],
)
def test_what_are_no_logits(f: Any, logits: Any, labels: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        f(logits, labels)


def test_numbers_out_of_range() -> None:
    for temperature in 0.0, -1, math.inf, math.nan:
        with pytest.raises(ValueError, match=r"temperature: expected a number in \(0, inf\), got"):
            metrics.probabilities(np.eye(2), temperature)
    with pytest.raises(ValueError, match="target: expected a class from 0 to 1, got 2"):
        metrics.reliability(P, LABELS, target=2)
    with pytest.raises(ValueError, match="bins: expected an integer of at least 1, got 0"):
        metrics.reliability(P, LABELS, 0)
