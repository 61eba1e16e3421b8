"""Judge of exercise 6: three branches of different widths, then differences of the values."""

from types import ModuleType

import judge
import numpy as np

rng = np.random.default_rng(6)
xs = [rng.normal(size=(2, c, 2, 2)) for c in (1, 3, 2)]
y = np.concatenate(xs, axis=1)
gy = rng.normal(size=y.shape)


def test_forward(exercise: ModuleType) -> None:
    slips = {
        "the branches stand in the opposite order": np.concatenate(xs[::-1], axis=1),
        "this sorts the channels: they stay in the order of the inputs": np.sort(y, axis=1),
    }
    judge.equal(exercise.Concatenate().forward(*xs), y, slips)


def test_each_input_gets_its_channels(exercise: ModuleType) -> None:
    gxs = judge.backward(exercise.Concatenate(), xs, gy)
    for gx, x, place in zip(gxs, xs, (slice(0, 1), slice(1, 4), slice(4, 6)), strict=True):
        slips = {"every input gets all of gy: it should be its own channels alone": gy}
        if place.start:
            slips["every input gets the first channels: count those of the inputs before it"] = gy[:, : x.shape[1]]
        judge.equal(gx, gy[:, place], slips)


def test_differences_agree(exercise: ModuleType) -> None:
    judge.differentiable(lambda *xs: exercise.Concatenate()(*xs), xs)
