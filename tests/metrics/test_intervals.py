"""Intervals that hold the truth as often as they say, and the maps to compare with."""

from __future__ import annotations

import numpy as np
import pytest

from minidl.evaluate import baselines
from minidl.metrics import Interval, bootstrap


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
        ({"level": 1.0}, ValueError, r"level: expected a number in \(0, 1\), got 1.0"),
        ({"resamples": 0}, ValueError, "resamples: expected an integer of at least 1, got 0"),
    ],
)
def test_bad_arguments(arguments: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        bootstrap(**{"values": np.ones(3), **arguments})


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
