"""Pointing game, mass and overlap on maps whose scores are known without computing them."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidl.array import to_gpu
from minidl.data import lesions
from minidl.evaluate import MaskScore, iou, mass_in_mask, pointing_game
from minidl.evaluate.pointing import grown
from tests.gpu import strict_cupy

MEASURES = [pointing_game, mass_in_mask, iou]
LESIONS = lesions(12, 48).masks["lesion"]
MASKS = np.concatenate([LESIONS, np.ones((1, 48, 48), bool)])
AREA = MASKS.mean((1, 2))


@pytest.mark.parametrize("measure", MEASURES)
def test_a_map_that_is_the_mask(measure: Callable[..., MaskScore]) -> None:
    np.testing.assert_allclose(measure(MASKS.astype(np.float32), MASKS).value, 1)
    np.testing.assert_array_equal(measure((~LESIONS).astype(np.float32), LESIONS).value, 0)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("level", [0.0, 3.5])
def test_a_uniform_map_scores_chance(measure: Callable[..., MaskScore], level: float) -> None:
    measured = measure(np.full(MASKS.shape, level), MASKS)
    np.testing.assert_allclose(measured.value, measured.chance)
    np.testing.assert_allclose(measured.enrichment, 1)
    expected = AREA / (2 - AREA) if measure is iou else AREA
    np.testing.assert_allclose(measured.chance, expected)


@pytest.mark.parametrize("measure", MEASURES)
def test_random_maps_score_chance_on_average(measure: Callable[..., MaskScore]) -> None:
    masks = np.repeat(LESIONS[:2], 3000, axis=0)
    measured = measure(np.random.default_rng(0).random(masks.shape), masks)
    error = measured.value.std() / np.sqrt(len(masks))
    assert abs(measured.value.mean() - measured.chance.mean()) < 4 * error + 1e-3


def test_mass_and_overlap_by_hand() -> None:
    masks = np.zeros((1, 2, 4), bool)
    masks[0, 0, :2] = True
    maps = np.array([[[3.0, 1.0, 2.0, 0.0], [0.0, 0.0, 1.0, 1.0]]])
    mass = mass_in_mask(maps, masks)
    assert mass.value[0] == 4 / 8 and mass.chance[0] == 2 / 8 and mass.enrichment[0] == 2
    assert iou(maps, masks).value[0] == pytest.approx(1 / 3)  # the top two are 3 and 2, of which one is in the mask
    assert pointing_game(maps, masks).value[0] == 1 and pointing_game(maps % 3, masks).value[0] == 0
    maps[0, 0, 2] = 1.0  # four ones share the one place that 3 leaves: 1 + 1/4 of 2
    assert iou(maps, masks).value[0] == pytest.approx(1.25 / (4 - 1.25))


def test_tolerance_is_a_share_of_the_radius() -> None:
    y, x = np.indices((81, 81)) - 40
    disc = (np.hypot(y, x) <= 20)[None]
    radius = np.sqrt(disc.sum() / np.pi)
    for far, tolerance, hit in (
        (20, 0.0, 1),
        (21, 0.0, 0),
        (21, 0.1, 1),
        (23, 0.1, 0),
        (24, 0.24, 1),
        (25, 0.25, 1),
        (26, 0.25, 0),
    ):
        maps = np.zeros((1, 81, 81))
        maps[0, 40, 40 + far] = 1
        measured = pointing_game(maps, disc, tolerance)
        assert measured.value[0] == hit, (far, tolerance)
        assert measured.chance[0] == pytest.approx(np.pi * (radius * (1 + tolerance)) ** 2 / 81**2, rel=0.05)


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9), st.floats(0, 5))
def test_grown_by_its_definition(seed: int, H: int, W: int, by: float) -> None:
    mask = np.random.default_rng(seed).random((H, W)) < 0.2
    inside = np.argwhere(mask)
    far = [[np.hypot(*(inside - (i, j)).T).min(initial=np.inf) for j in range(W)] for i in range(H)]
    assert np.array_equal(grown(mask, by), np.array(far) <= by)


@pytest.mark.parametrize("measure", MEASURES)
def test_one_image_at_a_time(measure: Callable[..., MaskScore]) -> None:
    maps = np.random.default_rng(1).random(MASKS.shape)
    together = measure(maps, MASKS)
    alone = [measure(maps[i : i + 1], MASKS[i : i + 1]) for i in range(len(maps))]
    assert together.value.tolist() == [m.value[0] for m in alone] and together.chance.tolist() == [m.chance[0] for m in alone]


def test_it_prints_chance() -> None:
    assert str(mass_in_mask(np.ones((3, 8, 8)), np.ones((3, 8, 8), bool))) == "1.000 [1.000, 1.000], chance 1.000, 3 images"


@pytest.mark.parametrize("measure", MEASURES)
def test_on_the_gpu(measure: Callable[..., MaskScore], monkeypatch: pytest.MonkeyPatch) -> None:
    maps = np.random.default_rng(1).random(MASKS.shape).astype(np.float32)
    on_cpu = measure(maps, MASKS)
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy.cupy())
    np.testing.assert_array_equal(measure(to_gpu(maps), to_gpu(MASKS)).value, on_cpu.value)
    np.testing.assert_array_equal(measure(to_gpu(maps), MASKS).value, on_cpu.value)


GOOD = np.ones((2, 4, 4))


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    ("maps", "masks", "error", "message"),
    [
        (GOOD[0], GOOD > 0, ValueError, r"maps: expected maps \(N,H,W\), none of these 0, got shape \(4, 4\)"),
        (GOOD[:0], GOOD > 0, ValueError, "maps: expected maps"),
        (GOOD.tolist(), GOOD > 0, TypeError, "maps: expected an array of numbers, got list"),
        (GOOD * 1j, GOOD > 0, TypeError, "maps: expected an array of numbers, got complex128"),
        (GOOD * np.nan, GOOD > 0, ValueError, "maps: hold NaN or infinity"),
        (GOOD, GOOD, TypeError, "masks: expected an array of bool, got float64"),
        (GOOD, GOOD[:1] > 0, ValueError, r"masks: expected the shape of the maps, \(2, 4, 4\), got \(1, 4, 4\)"),
        (GOOD, np.array([GOOD[0] > 0, GOOD[0] < 0]), ValueError, r"no pixel is in the mask of the images \[1\]"),
    ],
)
def test_bad_arguments(measure: Callable[..., MaskScore], maps: object, masks: object, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        measure(maps, masks)


def test_bad_tolerance_and_negative_mass() -> None:
    for tolerance, error in (-0.1, ValueError), (0.3, ValueError), (float("nan"), ValueError), ("1", TypeError):
        with pytest.raises(error, match=rf"tolerance: expected a number in \[0, 0.25\], got {tolerance!r}"):
            pointing_game(GOOD, GOOD > 0, tolerance)
    with pytest.raises(ValueError, match=r"maps: expected no negative value .* got -1"):
        mass_in_mask(-GOOD, GOOD > 0)
