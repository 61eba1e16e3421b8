"""Complexity and sparseness of maps of which they are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from minidl.array import Array
from minidl.evaluate import complexity, sparseness

MEASURES = [complexity, sparseness]
RNG = np.random.default_rng(0)
ONE = np.zeros((1, 4, 5))
ONE[0, 2, 3] = -7


def test_of_a_uniform_map_and_of_one_pixel() -> None:
    for uniform in np.ones((1, 4, 5)), np.full((1, 4, 5), -0.3), np.zeros((1, 4, 5)):
        assert complexity(uniform)[0] == pytest.approx(np.log(20), rel=1e-12)
        assert sparseness(uniform)[0] == pytest.approx(0, abs=1e-12)
    assert complexity(ONE)[0] == 0 and sparseness(ONE)[0] == pytest.approx(1 - 1 / 20, rel=1e-12)


@pytest.mark.parametrize("k", [1, 3, 20])
def test_of_k_equal_pixels(k: int) -> None:
    maps = np.zeros(20)
    maps[:k] = 0.4
    maps = RNG.permutation(maps).reshape(1, 4, 5)
    assert complexity(maps)[0] == pytest.approx(np.log(k), abs=1e-12)
    assert sparseness(maps)[0] == pytest.approx(1 - k / 20, abs=1e-12)


def test_by_definition() -> None:
    maps = RNG.normal(size=(3, 6, 7))
    for m, entropy, gini in zip(maps, complexity(maps), sparseness(maps), strict=True):
        p = np.abs(m).ravel() / np.abs(m).sum()
        assert entropy == pytest.approx(-(p * np.log(p)).sum())
        assert gini == pytest.approx(np.abs(p[:, None] - p).mean() / (2 * p.mean()))  # half of the relative mean difference


@pytest.mark.parametrize("measure", MEASURES)
def test_neither_units_nor_signs_nor_places_matter(measure: Callable[[Array], Array]) -> None:
    maps = RNG.normal(size=(2, 6, 7))
    for same in (1e-300 * maps, 1e300 * maps, -maps, np.abs(maps), maps[:, ::-1], maps.swapaxes(1, 2), 0.5 * maps):
        np.testing.assert_allclose(measure(same), measure(maps), rtol=1e-9)
    np.testing.assert_array_equal(measure(maps)[1:], measure(maps[1:]))


@pytest.mark.parametrize("measure", MEASURES)
def test_bad_arguments(measure: Callable[[Array], Array]) -> None:
    with pytest.raises(ValueError, match="maps: hold NaN or infinity"):
        measure(np.full((1, 2, 2), np.inf))
    with pytest.raises(ValueError, match=r"maps: expected maps \(N,H,W\)"):
        measure(np.ones((2, 2)))
    with pytest.raises(TypeError, match="maps: expected an array of numbers, got list"):
        measure([[1.0]])  # type: ignore[arg-type]
