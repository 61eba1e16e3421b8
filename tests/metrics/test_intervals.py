"""Intervals that hold the truth as often as they say, and the maps to compare with."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from minidl.evaluate import baselines
from minidl.metrics import Interval, accuracy, auc, balanced_accuracy, bootstrap, bootstrap_score, macro_auc, sensitivity


def coverage(level: float, n: int = 40, sets: int = 600) -> float:
    """The share of data sets, n draws from a normal distribution around 3 each, whose interval holds 3."""
    rng = np.random.default_rng(0)
    found = [bootstrap(rng.normal(3, 2, n), level=level, resamples=400, seed=k) for k in range(sets)]
    return float(np.mean([i.low <= 3 <= i.high for i in found]))


@pytest.mark.parametrize("level", [*(pytest.param(level, marks=pytest.mark.ci) for level in (0.5, 0.8)), 0.95])
def test_coverage_on_normal_data(level: float) -> None:
    assert coverage(level) == pytest.approx(level, abs=0.045)  # binomial: 2 standard errors are 0.02 to 0.04


def test_its_width_is_that_of_the_mean() -> None:
    values = np.random.default_rng(1).normal(0, 1, 2000)
    mean, low, high = bootstrap(values, resamples=4000)
    assert mean == values.mean()
    assert high - low == pytest.approx(2 * 1.96 / np.sqrt(2000), rel=0.06)


def test_groups_are_drawn_whole() -> None:
    one_a_group = np.random.default_rng(2).normal(0, 1, 400)
    five = np.repeat(one_a_group, 5)  # five nets that agree tell no more than one
    alone, grouped = bootstrap(one_a_group), bootstrap(five, groups=np.repeat(np.arange(400) * 7, 5))
    assert grouped.low == pytest.approx(alone.low) and grouped.high == pytest.approx(alone.high)
    naive = bootstrap(five)
    assert naive.high - naive.low == pytest.approx((alone.high - alone.low) / np.sqrt(5), rel=0.1)


def test_seeded_and_plain_cases() -> None:
    values = np.arange(10.0)
    assert bootstrap(values, seed=3) == bootstrap(values, seed=3) != bootstrap(values, seed=4)
    assert bootstrap(np.full(5, 2)) == Interval(2.0, 2.0, 2.0)
    assert str(bootstrap(np.array([True]))) == "1.000 [1.000, 1.000]"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"values": [1.0]}, TypeError, "values: expected a flat array of numbers, got list"),
        ({"values": np.ones((2, 2))}, TypeError, r"values: expected a flat array of numbers, got float64 \(2, 2\)"),
        ({"values": np.ones(0)}, ValueError, "values: expected at least one"),
        ({"values": np.array([1, np.nan])}, ValueError, "values: expected at least one, all of them finite"),
        ({"groups": np.arange(2)}, ValueError, "groups: expected one number for each of the 3 values"),
        (
            {"groups": np.array([1, np.nan, np.nan])},
            ValueError,
            "expected integers or names, got NaN for 2 of 3 values",
        ),
        ({"groups": ["a", None, "b"]}, TypeError, "groups: expected integers or names, got object"),
        ({"level": 1.0}, ValueError, r"level: expected a number in \(0, 1\), got 1.0"),
        ({"resamples": 0}, ValueError, "resamples: expected an integer of at least 1, got 0"),
    ],
)
def test_bad_arguments(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        bootstrap(**{"values": np.ones(3), **arguments})


# ---- of any score


def patients(G: int, seed: int = 0, n: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, labels and groups of G patients with n images each, which are alike"""
    rng = np.random.default_rng(seed)
    sick = rng.random(G) < 0.4
    scores = rng.normal(size=G) + 1.2 * sick
    groups = np.repeat(np.arange(G), n)
    return scores[groups] + 0.1 * rng.normal(size=n * G), sick[groups].astype(int), groups


def test_of_a_mean_it_is_the_bootstrap_of_the_mean() -> None:
    rng = np.random.default_rng(0)
    right, groups = rng.random(300) < 0.7, rng.integers(0, 80, 300)
    logits = np.eye(2)[right.astype(int)]  # the label is 1
    found = bootstrap_score(accuracy, logits, np.ones(300, int), groups, resamples=500)
    assert found == pytest.approx(bootstrap(right, groups, resamples=500))


def test_the_groups_of_a_sample_are_whole() -> None:
    groups = np.array(["c", "a", "b", "a", "c", "a"])
    answers, seen = np.arange(6.0), list[tuple[float, ...]]()

    def score(answers: np.ndarray, labels: np.ndarray) -> float:
        assert (labels == answers % 2).all()
        seen.append(tuple(answers))
        return 0.0

    with pytest.warns(UserWarning, match="samples lack a class"):
        bootstrap_score(score, answers, (answers % 2).astype(int), groups, resamples=50)
    for drawn in seen[1:]:
        times = [drawn.count(n) for n in answers]
        assert times[0] == times[4] and times[1] == times[3] == times[5]
        assert times[0] + times[1] + times[2] == 3  # of three groups, three


def test_images_of_one_patient_are_no_news() -> None:
    scores, labels, groups = patients(150)
    whole, naive = (bootstrap_score(auc, scores, labels, g, resamples=600) for g in (groups, None))
    assert whole.mean == naive.mean == auc(scores, labels)
    assert whole.high - whole.low == pytest.approx(2 * (naive.high - naive.low), rel=0.15)
    named = bootstrap_score(auc, scores, labels, [f"patient {g:03}" for g in groups], resamples=600)
    assert named == whole and named != bootstrap_score(auc, scores, labels, groups, resamples=600, seed=1)


@pytest.mark.ci
def test_it_holds_the_true_auc_as_often_as_it_says() -> None:
    truth = auc(*patients(200_000, seed=99, n=1)[:2])
    found = [bootstrap_score(auc, *patients(100, seed), resamples=300, level=0.9) for seed in range(300)]
    assert np.mean([i.low <= truth <= i.high for i in found]) == pytest.approx(0.9, abs=0.045)


def test_samples_that_lack_a_class_are_left_out_and_said() -> None:
    """One group of eight has the ones: 34% of the samples are without it, and balanced accuracy would be another score there"""
    labels, groups = np.repeat([1, 0, 0, 0, 0, 0, 0, 0], 3), np.repeat(np.arange(8), 3)
    logits = np.eye(2)[0 * labels]  # always 0
    with pytest.warns(
        UserWarning, match=r"bootstrap_score: (9\d\d|1,\d{3}) of [23],\d{3} samples lack a class, .* of them class 1;"
    ):
        assert bootstrap_score(balanced_accuracy, logits, labels, groups) == Interval(0.5, 0.5, 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bootstrap_score(balanced_accuracy, logits, np.tile([0, 1], 12), groups)


def test_too_few_groups_with_a_class() -> None:
    p, labels = np.full((12, 6), 1 / 6), np.repeat(np.arange(6), 2)
    with pytest.raises(ValueError, match=r"groups: too few of them to draw from: .* samples lack a class, \d+ of"):
        bootstrap_score(macro_auc, p, labels, labels, resamples=100)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"answers": [1.0, 2, 3]}, TypeError, "answers: expected an array, got list"),
        ({"labels": np.array([0.0, 1, 1])}, TypeError, "labels: expected integers, got float64"),
        ({"labels": np.array([0, 1])}, ValueError, r"answers and labels: expected \(N,...\) and \(N,\), N > 0, got \(3,\)"),
        ({"answers": np.ones(0), "labels": np.ones(0, int)}, ValueError, "N > 0"),
        ({"groups": np.arange(2)}, ValueError, "groups: expected one number for each of the 3 values"),
        ({"groups": np.ones(3, int)}, ValueError, "groups: expected at least two, got 1"),
        ({"level": 0.0}, ValueError, r"level: expected a number in \(0, 1\), got 0.0"),
        ({"score": lambda answers, labels: np.nan}, ValueError, "score: expected a finite number, got nan"),
        ({"score": lambda answers, labels: answers}, TypeError, "score: expected a finite number, got array"),
        ({"answers": np.array([0.5, 1, 1])}, ValueError, "decisions: expected zeros and ones"),
    ],
)
def test_what_has_no_interval(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"score": sensitivity, "answers": np.array([1, 0, 1]), "labels": np.array([1, 0, 1]), **arguments}
    with pytest.raises(error, match=message):
        bootstrap_score(**given)


# ---- baselines

X = np.random.default_rng(5).random((3, 2, 12, 16)).astype(np.float32)


@pytest.mark.parametrize("baseline", [baselines.random, baselines.centre, baselines.sobel, baselines.intensity])
def test_a_baseline(baseline: object) -> None:
    maps = baseline(X)  # type: ignore[operator]
    assert maps.shape == (3, 12, 16) and maps.min() >= 0 and np.isfinite(maps).all()
    for wrong in (X[0], X.tolist(), X[:0]):
        with pytest.raises(ValueError, match=r"x: expected images \(N,C,H,W\)"):
            baseline(wrong)  # type: ignore[operator]


def test_sobel_of_a_ramp_and_of_an_edge() -> None:
    ramp = np.broadcast_to(np.arange(16.0), (1, 1, 12, 16)).copy()
    np.testing.assert_allclose(baselines.sobel(ramp)[0, :, 1:-1], 8)  # 2 pixels apart, with weights 1, 2, 1
    np.testing.assert_allclose(baselines.sobel(3 * ramp.swapaxes(2, 3))[0, 1:-1], 24)
    edge = np.zeros((1, 1, 8, 8))
    edge[..., 4:] = 1
    assert np.flatnonzero(baselines.sobel(edge)[0].any(0)).tolist() == [3, 4]


def test_centre_and_intensity_and_random() -> None:
    centre = baselines.centre(np.zeros((1, 1, 9, 9)))[0]
    assert centre.argmax() == 40 and centre[4, 4] == 1 and np.allclose(centre, centre.T) and np.allclose(centre, centre[::-1])
    flat = np.full((1, 3, 5, 5), 7.0)
    flat[0, :, 2, 2], flat[0, :, 0, 0] = 4.0, 8.0
    unusual = baselines.intensity(flat)[0]
    assert unusual[2, 2] == 3 and unusual[0, 0] == 1 and unusual.sum() == 4
    assert np.array_equal(baselines.random(X, 1), baselines.random(X, 1)) and not np.array_equal(
        baselines.random(X, 1), baselines.random(X, 2)
    )
