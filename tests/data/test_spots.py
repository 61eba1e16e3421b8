"""Generated large images with a small lesion: what is told by its size alone."""

from __future__ import annotations

import numpy as np
import pytest

from minidl import data, metrics
from minidl.data.spots import _add_spot as add_spot


def test_labels_masks_and_a_lesion_in_its_circle() -> None:
    found = data.spots(6, 256, 16, seed=3)
    assert found.images.shape == (6, 1, 256, 256) and found.images.dtype == np.uint8
    assert found.labels.tolist() == [0, 1, 0, 1, 0, 1] and found.classes == ("healthy", "lesion")
    areas = found.masks["lesion"].sum((1, 2))
    assert (areas[::2] == 0).all()
    np.testing.assert_allclose(areas[1::2], np.pi * 8**2, rtol=0.03)
    for image, mask in zip(found.images[1::2, 0], found.masks["lesion"][1::2], strict=True):
        rows, columns = np.nonzero(mask)
        assert np.ptp(rows) + 1 <= 17 and np.ptp(columns) + 1 <= 17
        y, x = round(rows.mean()), round(columns.mean())
        core, ring = image[y - 1 : y + 2, x - 1 : x + 2].mean(), image[mask].mean()
        assert core < image.mean() - 30 and ring > core + 20


def test_an_image_depends_on_its_number_alone() -> None:
    whole, part = data.spots(5, 128, 8, seed=1), data.spots(2, 128, 8, seed=1, first=3)
    np.testing.assert_array_equal(part.images, whole.images[3:])
    np.testing.assert_array_equal(part.labels, whole.labels[3:])
    np.testing.assert_array_equal(part.masks["lesion"], whole.masks["lesion"][3:])
    assert (data.spots(1, 128, 8, seed=2).images != whole.images[:1]).any()


def test_no_statistic_of_the_whole_image_gives_it_away() -> None:
    found = data.spots(160, 128, 8, seed=0)
    x = found.images.reshape(160, -1).astype(np.float32)
    for statistic in (x.mean(1), x.std(1), x.min(1), x.max(1), np.quantile(x, 0.01, 1), np.quantile(x, 0.99, 1)):
        assert abs(metrics.auc(statistic, found.labels) - 0.5) < 0.13  # three standard errors, nearly


def test_a_spot_adds_up_to_nothing() -> None:
    image = np.zeros((200, 200), np.float32)
    add_spot(image, 100.3, 99.6, 40, 0.3)
    assert abs(image.sum()) < 1e-3 * np.abs(image).sum()
    assert image.min() == image[100, 99] < -0.29
    np.testing.assert_allclose(image.max(), 0.3 * np.exp(-2), rtol=1e-2)  # where 4 r^2 = 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n: expected an integer of at least 1, got 0"),
        ({"n": 1, "diameter": 7}, "diameter: expected an integer of at least 8, got 7"),
        ({"n": 1, "size": 255}, "size: expected an integer of at least 256, got 255"),
        ({"n": 1, "seed": -1}, "seed: expected an integer of at least 0, got -1"),
        ({"n": 1, "first": -1}, "first: expected an integer of at least 0, got -1"),
    ],
)
def test_what_cannot_be(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        data.spots(**arguments)
