"""The metrics against values computed by hand and against their definitions, pair by pair and image by image."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.metrics import (
    accuracy,
    auc,
    balanced_accuracy,
    confusion_matrix,
    majority_accuracy,
    recall_per_class,
    sensitivity,
    specificity,
)

# five images of class 0, one of class 1, two of class 2; predicted 0 0 0 0 1 | 0 | 2 2
LABELS = np.array([0, 0, 0, 0, 0, 1, 2, 2])
LOGITS = np.eye(3)[[0, 0, 0, 0, 1, 0, 2, 2]]


def test_by_hand() -> None:
    assert accuracy(LOGITS, LABELS) == 6 / 8
    assert confusion_matrix(LOGITS, LABELS).tolist() == [[4, 1, 0], [1, 0, 0], [0, 0, 2]]
    assert balanced_accuracy(LOGITS, LABELS) == pytest.approx((4 / 5 + 0 + 1) / 3)
    assert recall_per_class(LOGITS, LABELS).tolist() == [4 / 5, 0, 1]
    assert majority_accuracy(LABELS) == 5 / 8  # "always class 0"


def test_the_majority_may_be_that_of_another_set() -> None:
    assert majority_accuracy(LABELS, np.array([2, 2, 0])) == 2 / 8
    assert majority_accuracy(LABELS, np.array([1, 2, 2, 1])) == 1 / 8  # of two, the first
    assert majority_accuracy(LABELS, np.array([7, 7, 0])) == 0
    for labels, error, message in (
        (LABELS[:0], ValueError, r"train_labels: expected \(N,\), N > 0, got \(0,\)"),
        (LOGITS, TypeError, "train_labels: expected integers, got float64"),
        ([1], TypeError, "train_labels: expected an array, got list"),
    ):
        with pytest.raises(error, match=message):
            majority_accuracy(LABELS, labels)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32])
def test_sensitivity_and_specificity_by_hand(dtype: type) -> None:
    decisions, labels = np.array([1, 1, 0, 0, 1, 0, 0]).astype(dtype), np.array([1, 1, 1, 0, 0, 0, 0]).astype(dtype)
    assert sensitivity(decisions, labels) == 2 / 3 and specificity(decisions, labels) == 3 / 4
    assert sensitivity(decisions[:3], labels[:3]) == 2 / 3 and specificity(decisions[3:], labels[3:]) == 3 / 4


@pytest.mark.parametrize(
    ("decisions", "labels", "error", "message"),
    [
        ([0, 1], np.array([0, 1]), TypeError, "decisions: expected an array, got list"),
        (np.array([0, 1]), np.array([0, 1, 1]), ValueError, r"decisions and labels: expected \(N,\) each"),
        (
            np.array([0.2, 0.9]),
            np.array([0, 1]),
            ValueError,
            "got values .*; of scores write scores >= threshold",
        ),
        (np.array([np.nan, 1]), np.array([0, 1]), ValueError, "decisions: expected zeros and ones"),
        (np.array([0, 1]), np.array([1, 2]), ValueError, "labels: expected zeros and ones, some"),
        (np.array([0, 1]), np.array([0, -1]), ValueError, "labels: expected zeros and ones, some"),
        (np.zeros(0), np.zeros(0), ValueError, "labels: expected zeros and ones, some"),
    ],
)
def test_what_is_no_decision(decisions: object, labels: object, error: type[Exception], message: str) -> None:
    for metric in sensitivity, specificity:
        with pytest.raises(error, match=message):
            metric(decisions, labels)  # type: ignore[arg-type]


def test_a_share_of_nothing_is_no_number() -> None:
    ones = np.ones(3, int)
    with pytest.raises(ValueError, match=r"labels: expected zeros and ones, some 1 for the sensitivity, got values \[0\]"):
        sensitivity(ones, 1 - ones)
    with pytest.raises(ValueError, match=r"labels: expected zeros and ones, some 0 for the specificity, got values \[1\]"):
        specificity(ones, ones)


def test_a_class_that_does_not_occur_does_not_count() -> None:
    keep = LABELS != 1
    assert balanced_accuracy(LOGITS[keep], LABELS[keep]) == pytest.approx((4 / 5 + 1) / 2)
    assert np.array_equal(recall_per_class(LOGITS[keep], LABELS[keep]), [4 / 5, np.nan, 1], equal_nan=True)


@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], 1.0),
        ([0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1], 0.0),
        ([0.5, 0.5, 0.5, 0.5], [0, 1, 0, 1], 0.5),
        ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], 0.75),  # the pair (0.35, 0.4) is the wrong one of four
        ([1.0, 2.0, 2.0, 3.0, 2.0], [0, 0, 1, 1, 0], (1 + 0.5 + 0.5 + 3) / 6),  # 2 beats 1 and ties twice, 3 beats three
    ],
)
def test_auc_by_hand(scores: list[float], labels: list[int], expected: float) -> None:
    assert auc(np.array(scores), np.array(labels)) == pytest.approx(expected, abs=1e-15)


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40))
def test_auc_is_its_definition(images: list[tuple[int, bool]]) -> None:
    scores, labels = np.array([s for s, _ in images], np.float32), np.array([int(t) for _, t in images])
    if labels.min() == labels.max():
        with pytest.raises(ValueError, match="some of each"):
            auc(scores, labels)
        return
    difference = scores[labels == 1][:, None] - scores[labels == 0]
    assert auc(scores, labels) == pytest.approx((difference > 0).mean() + (difference == 0).mean() / 2, abs=1e-12)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_the_others_are_their_definitions(images: list[tuple[int, int]]) -> None:
    labels, predicted = np.array(images).T
    logits = np.eye(4)[predicted]
    confusion = confusion_matrix(logits, labels)
    for t in range(4):
        for p in range(4):
            assert confusion[t, p] == images.count((t, p))
    assert accuracy(logits, labels) == pytest.approx(sum(t == p for t, p in images) / len(images))
    recalls = [np.mean([p == t for u, p in images if u == t]) for t in set(labels.tolist())]
    assert balanced_accuracy(logits, labels) == pytest.approx(np.mean(recalls))


@pytest.mark.parametrize("dtype", [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)])
@pytest.mark.parametrize("K", [20, 100])
def test_labels_of_every_integer_type(dtype: str, K: int) -> None:
    """K labels + p is up to K^2, which does not fit into 8 bits, and for one type not even with itself: uint64."""
    labels = np.repeat(np.arange(K), 2).astype(dtype)
    logits = np.eye(K, dtype=np.float32)[np.repeat(np.arange(K), 2)]
    assert accuracy(logits, labels) == balanced_accuracy(logits, labels) == 1
    assert confusion_matrix(logits, labels).tolist() == (2 * np.eye(K, dtype=int)).tolist()
    wrong = np.roll(logits, 1, axis=1)
    assert accuracy(wrong, labels) == balanced_accuracy(wrong, labels) == 0
    assert confusion_matrix(wrong, labels)[0].tolist() == [0, 2] + [0] * (K - 2)
    assert auc(np.arange(2.0 * K), (labels >= K // 2).astype(dtype)) == 1
    bad = labels.copy()
    bad[0] = np.iinfo(dtype).max
    for metric in accuracy, balanced_accuracy, confusion_matrix, recall_per_class:
        with pytest.raises(ValueError, match=f"labels: expected 0 to {K - 1}, got "):
            metric(logits, bad)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_nan_is_no_answer(dtype: type) -> None:
    """argmax takes NaN for the largest, so that logits of NaN alone were always right about class 0."""
    logits = np.full((3, 2), np.nan, dtype)
    some = np.array([[0, 1], [1, np.nan], [1, 0]], dtype)
    for metric in accuracy, balanced_accuracy, confusion_matrix, recall_per_class:
        with pytest.raises(ValueError, match="logits: expected numbers, got NaN in 3 of 3 rows"):
            metric(logits, np.zeros(3, int))
        with pytest.raises(ValueError, match="logits: expected numbers, got NaN in 1 of 3 rows"):
            metric(some, np.array([1, 0, 0]))
    assert accuracy(np.array([[-np.inf, 0], [np.inf, 0]], dtype), np.array([1, 0])) == 1  # infinities are in an order


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"expected \(N,K\) and \(N,\)"):
        accuracy(LOGITS, LABELS[:-1])
    with pytest.raises(ValueError, match="N > 0"):
        accuracy(LOGITS[:0], LABELS[:0])
    with pytest.raises(TypeError, match="integers, got float64"):
        accuracy(LOGITS, LABELS.astype(float))
    with pytest.raises(ValueError, match="expected 0 to 2, got 0 to 3"):
        confusion_matrix(LOGITS, LABELS + (LABELS == 2))
    with pytest.raises(TypeError, match=r"logits: expected an array, got list; write np.asarray\(logits\)"):
        accuracy(LOGITS.tolist(), LABELS)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="labels: expected an array, got list"):
        balanced_accuracy(LOGITS, LABELS.tolist())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"got 0 to 1; of one logit z write np.concatenate\(\[0 \* z, z\], axis=1\)"):
        accuracy(LOGITS[:, :1], LABELS % 2)
    with pytest.raises(ValueError, match="1 of 2 are not finite"):
        auc(np.array([1.0, np.nan]), np.array([0, 1]))
    with pytest.raises(ValueError, match="zeros and ones"):
        auc(np.array([1.0, 2.0]), np.array([1, 2]))
