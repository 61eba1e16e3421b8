"""Judge of exercise 12: `ops.top_k_pool2d` and its gradient."""

from types import ModuleType

import judge
import numpy as np

from minidl import Tensor, gradients, ops

rng = np.random.default_rng(12)
x, gy, K = rng.normal(size=(3, 7)), rng.normal(size=3), 2
leaf = Tensor(x[:, None, None], requires_grad=True)
pooled = ops.top_k_pool2d(leaf, K)  # (3,1)


def asked(exercise: ModuleType) -> tuple[np.ndarray, np.ndarray]:
    found = exercise.top_k(x.copy(), gy.copy(), K)
    if not isinstance(found, tuple) or len(found) != 2:
        judge.no("it should return two arrays, y and gx: `return y, gx`")
    return found


def test_forward(exercise: ModuleType) -> None:
    wanted = pooled.data[:, 0]
    slips = {
        "the sum of the largest: divide by k": K * wanted,
        "the k smallest were taken: argsort goes upwards": np.sort(x, axis=1)[:, :K].mean(1),
        "the largest alone: the mean of k is asked for": x.max(1),
        "the mean over all places": x.mean(1),
        "the first k places, not the largest": x[:, :K].mean(1),
    }
    judge.equal(asked(exercise)[0], wanted, slips)


def test_backward(exercise: ModuleType) -> None:
    wanted = gradients(pooled, [leaf], gy[:, None])[0][:, 0, 0]
    slips = {
        "gy / k: a mean shares its gradient out": K * wanted,
        "gy is missing": np.where(wanted != 0, 1 / K, 0),
        "all places get a share: only the k largest count": np.broadcast_to(gy[:, None] / 7, x.shape),
        "these are the k smallest places": np.where(np.argsort(np.argsort(x)) < K, gy[:, None] / K, 0),
    }
    judge.equal(asked(exercise)[1], wanted, slips)
