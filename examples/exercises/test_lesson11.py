"""Judge of exercise 11: what a grey image gives before and after."""

from types import ModuleType

import judge
import numpy as np

from minidl import Tensor, ops

rng = np.random.default_rng(11)
w, grey = rng.normal(size=(4, 3, 3, 3)), rng.normal(size=(2, 1, 6, 6))


def answer(w: np.ndarray) -> np.ndarray:
    return ops.conv2d(Tensor(np.repeat(grey, w.shape[1], axis=1)), Tensor(w)).data


def test_a_grey_image_gives_what_it_gave(exercise: ModuleType) -> None:
    for N in 1, 2, 5:
        found = exercise.adapted(w.copy(), N)
        total = w.sum(1, keepdims=True)
        wanted = np.repeat(total / N, N, axis=1)
        slips = {
            "the mean over the old channels: it is their sum that a grey image sees": np.repeat(total / 3 / N, N, axis=1),
            "the old first channel alone: all of them count": np.repeat(w[:, :1] / N, N, axis=1),
        }
        if N > 1:
            slips["each new channel has the whole sum: N of them count N times, so divide by N"] = np.repeat(total, N, axis=1)
            slips["one channel came out: repeat it"] = total / N
        judge.equal(found, wanted, slips)
        judge.equal(answer(np.asarray(found)), answer(w), {})
