"""Judge of exercise 2: known slips first, then the gradient check, which knows none and finds them all."""

from types import ModuleType

import judge
import numpy as np

rng = np.random.default_rng(2)
a, b, gy = rng.normal(size=(3, 2, 3))


def test_multiplication(exercise: ModuleType) -> None:
    gradients = judge.backward(exercise.Multiply(), [a, b], gy)
    for got, mine, other in zip(gradients, (a, b), (b, a), strict=True):
        slips = {
            "the gradient of a is a gy: it should be b gy, for it is b that a is multiplied by": mine * gy,
            "gy is missing: what arrives is multiplied by the slope": other,
            "the gradient of a product is a product here, no sum": other + gy,
        }
        judge.equal(got, other * gy, slips)
    judge.differentiable(lambda a, b: exercise.Multiply()(a, b), [a, b])


def test_tanh(exercise: ModuleType) -> None:
    y = np.tanh(a)
    slips = {
        "gy is missing: what arrives is multiplied by the slope": 1 - y**2,
        "self.y is tanh(x) already: tanh was taken twice": (1 - np.tanh(y) ** 2) * gy,
        "1 - y is not 1 - y^2": (1 - y) * gy,
        "that is the slope of the sigmoid, y (1 - y)": y * (1 - y) * gy,
    }
    judge.equal(judge.backward(exercise.HyperbolicTangent(), [a], gy)[0], (1 - y**2) * gy, slips)
    judge.differentiable(lambda x: exercise.HyperbolicTangent()(x), [a])


def test_bias(exercise: ModuleType) -> None:
    x, bias, gy = rng.normal(size=(4, 3)), rng.normal(size=3), rng.normal(size=(4, 3))
    gx, gb = judge.backward(exercise.AddBias(), [x, bias], gy)
    judge.equal(gx, gy, {"x is used once for each y, with the slope 1: its gradient is gy": gy.sum(axis=0)})
    slips = {
        "this is one gradient for each row: b is the same in all of them, so add them up": gy,
        "that is the mean over the rows: every row's use of b counts in full": gy.mean(axis=0),
        "that is summed over the columns: an entry of b is used in every row": gy.sum(axis=1),
        "that is summed over everything: each entry of b has its own column": gy.sum(),
        "a row is counted by its gy, not by 1": np.full(3, 4.0),
    }
    judge.equal(gb, gy.sum(axis=0), slips)
    judge.differentiable(lambda x, b: exercise.AddBias()(x, b), [x, bias])
