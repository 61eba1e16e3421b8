"""Thresholds by hand and by trying all of them; applied to other images; what no threshold reaches is one sentence."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl import metrics
from minidl.metrics import OperatingPoint, operating_point

# from the largest: 1 1 0 1 0 0 1 0
SCORES, LABELS = np.arange(8.0)[::-1], np.array([1, 1, 0, 1, 0, 0, 1, 0])


def test_by_hand() -> None:
    assert operating_point(SCORES, LABELS) == OperatingPoint(3.5, 0.75, 0.75)  # Youden's: 1 1 0 1 | 0 0 1 0
    assert operating_point(SCORES, LABELS, sensitivity=0.5) == OperatingPoint(5.5, 0.5, 1)
    assert operating_point(SCORES, LABELS, sensitivity=0.51) == OperatingPoint(3.5, 0.75, 0.75)
    assert operating_point(SCORES, LABELS, sensitivity=1) == OperatingPoint(0.5, 1, 0.25)
    assert operating_point(SCORES, LABELS, specificity=0.6) == OperatingPoint(3.5, 0.75, 0.75)
    assert operating_point(SCORES, LABELS, specificity=0.5) == OperatingPoint(3.5, 0.75, 0.75)  # as 2.5, but more specific
    assert operating_point(SCORES, LABELS, specificity=1) == OperatingPoint(5.5, 0.5, 1)
    assert operating_point(SCORES, LABELS, sensitivity=0.7, specificity=0.7) == OperatingPoint(3.5, 0.75, 0.75)
    assert str(operating_point(SCORES, LABELS)) == "sensitivity 0.750, specificity 0.750 at 3.5"


def test_what_is_wanted_is_not_missed_by_rounding() -> None:
    scores, labels = np.arange(40.0), np.repeat([0, 1], 20)
    labels[10], labels[25] = 1, 0  # 19 of 20 ones are above 20, but one
    for wanted in 0.95, 19 / 20, np.nextafter(0.95, 1), 0.95 - 1e-15:
        assert operating_point(scores, labels, sensitivity=wanted).specificity == 0.95
        assert operating_point(scores, labels, specificity=wanted).sensitivity == 0.95


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=30),
    st.sampled_from((None, 0.3, 0.5, 0.9, 1.0)),
    st.sampled_from((None, 0.3, 0.5, 0.9, 1.0)),
)
def test_none_of_all_thresholds_is_better(
    images: list[tuple[int, bool]], sensitivity: float | None, specificity: float | None
) -> None:
    scores, ones = np.array([s for s, _ in images], np.float32), np.array([t for _, t in images])
    if ones.all() or not ones.any() or len(set(scores)) == 1:
        return
    between = [(a + b) / 2 for a, b in pairwise(sorted(set(scores)))]
    tried = [((scores >= t)[ones].mean(), (scores < t)[~ones].mean()) for t in between]
    able = [(a, b) for a, b in tried if a >= (sensitivity or 0) and b >= (specificity or 0)]
    if not able:
        with pytest.raises(ValueError, match="reaches"):
            operating_point(scores, ones, sensitivity, specificity)
        return
    found = operating_point(scores, ones, sensitivity, specificity)
    if sensitivity and not specificity:
        want = max((b, a) for a, b in able)[::-1]
    elif specificity and not sensitivity:
        want = max((a, b) for a, b in able)
    else:
        want = (found.sensitivity, found.specificity)
        assert sum(want) == pytest.approx(max(a + b for a, b in able))
    assert (found.sensitivity, found.specificity) == want
    assert found.apply(scores, ones) == found


def test_on_other_images() -> None:
    point = OperatingPoint(0.5, 0.9, 0.9)
    scores, labels = np.array([[0.5, 0.4, 0.6, 0.1, 0.7]])[0], np.array([1, 1, 0, 0, 0])
    assert point.decide(scores).tolist() == [True, False, True, False, True]
    assert point.apply(scores, labels) == OperatingPoint(0.5, 1 / 2, 1 / 3)
    assert point.apply(scores.astype(np.float16), labels) == OperatingPoint(0.5, 1 / 2, 1 / 3)
    assert metrics.sensitivity(point.decide(scores), labels) == 1 / 2


def test_a_threshold_is_not_rounded_to_the_type_of_the_scores() -> None:
    """0.3 in float32 is above 0.3, and beside float32 NumPy would round the threshold to it"""
    point = OperatingPoint(float(np.float32(0.3)) + 1e-12, 1.0, 1.0)
    assert not point.decide(np.array([0.3], np.float32)).any()
    a = np.float32(1)
    b = np.nextafter(a, np.float32(2))
    found = operating_point(np.array([a, b]), np.array([0, 1]))
    assert found.decide(np.array([a, b])).tolist() == [False, True]


@pytest.mark.parametrize(
    ("a", "b"), [(1.0, np.nextafter(1.0, 2)), (0.0, 5e-324), (-1.7e308, 1.7e308), (1.6e308, 1.7e308), (-1.0, 0.0)]
)
def test_neighbours_are_told_apart(a: float, b: float) -> None:
    found = operating_point(np.array([a, b]), np.array([0, 1]))
    assert found == OperatingPoint(found.threshold, 1, 1) and found.apply(np.array([a, b]), np.array([0, 1])) == found


@pytest.mark.parametrize(
    ("labels", "wanted", "message"),
    [
        ([1, 1, 0, 1, 0, 0, 0, 1], {"sensitivity": 0.8}, "sensitivity: expected what a threshold reaches, here at most 0.75, "
         "got 0.8; more takes calling every image 1"),
        ([0, 1, 0, 1, 0, 0, 1, 1], {"specificity": 0.8}, "specificity: expected what a threshold reaches, here at most 0.75, "
         "got 0.8; more takes calling every image 0"),
        (LABELS, {"sensitivity": 0.9, "specificity": 0.5}, "sensitivity, specificity: expected what one threshold reaches, got "
         "0.9 and 0.5; at that sensitivity the specificity is at most 0.25"),
        (LABELS, {"sensitivity": 0}, "sensitivity: expected a number in (0, 1], got 0"),
        (LABELS, {"specificity": 1.1}, "specificity: expected a number in (0, 1], got 1.1"),
    ],
)  # fmt: skip
def test_out_of_reach(labels: list[int], wanted: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        operating_point(SCORES, np.array(labels), **wanted)


def test_constant_scores_have_no_threshold() -> None:
    with pytest.raises(ValueError, match=r"scores: expected different ones to choose a threshold from, got 8 times 0\.5"):
        operating_point(np.full(8, 0.5), LABELS)


def test_what_is_no_score() -> None:
    with pytest.raises(ValueError, match="scores: 1 of 2 are not finite"):
        OperatingPoint(0.5, 1.0, 1.0).decide(np.array([np.nan, 1]))
