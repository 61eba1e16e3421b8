"""Judge of exercise 19: `evaluate.pointing_game`, on maps with one and with several highest pixels."""

from types import ModuleType

import judge
import numpy as np

from minidl import evaluate

rng = np.random.default_rng(19)
maps = rng.uniform(-1, 1, (12, 5, 6))
masks = rng.uniform(size=maps.shape) < 0.35
masks[:, 0, 0] = True
maps[np.arange(12), 0, 0] = np.where(np.arange(12) % 3 == 0, 2, -0.3)  # every third is a sure hit
maps[1, 0, 0], maps[1, 4, 5], masks[1, 4, 5] = -5, -6, False  # the largest size lies elsewhere than the highest value


def asked(exercise: ModuleType, maps: np.ndarray) -> tuple[float, float]:
    found = exercise.pointing_game(maps.copy(), masks.copy())
    if not isinstance(found, tuple) or len(found) != 2:
        judge.no("it should return two numbers, the share of hits and chance: `return hits, chance`")
    return found


def test_hits(exercise: ModuleType) -> None:
    wanted = evaluate.pointing_game(maps, masks).value.mean()
    flat = maps.reshape(12, -1)
    slips = {
        "the mass in the mask, and the highest pixel is asked about": (maps * masks).sum() / maps.sum(),
        "one highest pixel of all images: each map has its own": float(masks.reshape(-1)[maps.argmax()]),
        "the lowest pixel was taken": masks.reshape(12, -1)[np.arange(12), flat.argmin(1)].mean(),
        "a count: divide by the number of images": 12 * wanted,
    }
    judge.equal(asked(exercise, maps)[0], wanted, slips)


def test_ties_are_shared(exercise: ModuleType) -> None:
    """A map that is the same everywhere knows nothing: it scores exactly chance."""
    flat = np.zeros_like(maps)
    wanted = evaluate.pointing_game(flat, masks)
    slips = {"of several highest pixels the first was taken: their share in the mask counts": masks[:, 0, 0].mean()}
    judge.equal(asked(exercise, flat)[0], wanted.value.mean(), slips)


def test_chance(exercise: ModuleType) -> None:
    slips = {"chance is the area of the mask, not one pixel": 1 / 30, "chance is no coin": 0.5}
    judge.equal(asked(exercise, maps)[1], evaluate.pointing_game(maps, masks).chance.mean(), slips)
