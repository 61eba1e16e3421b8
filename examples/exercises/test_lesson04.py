"""Judge of exercise 4: a random gradient that arrives, known slips, and differences of the values."""

from types import ModuleType

import judge
import numpy as np

from minidl import Op, Tensor, gradients, ops

rng = np.random.default_rng(4)
x, gamma, gy = rng.normal(1, 2, (5, 3)), rng.uniform(0.5, 2, 3), rng.normal(size=(5, 3))
std = np.sqrt(x.var(0) + 1e-5)
x_hat = (x - x.mean(0)) / std


def test_the_gradient_that_minidl_has(exercise: ModuleType) -> None:
    leaf = Tensor(x, requires_grad=True)
    wanted = gradients(ops.batch_norm(leaf, Tensor(gamma), Tensor(np.zeros(3))), [leaf], gy)[0]
    mean, spread = gy.mean(0), x_hat * (gy * x_hat).mean(0)
    slips = {
        "only the direct way: an input also changes the mean and the variance": gamma / std * gy,
        "the way through the variance is missing: - x_hat mean(gy x_hat)": gamma / std * (gy - mean),
        "the way through the mean is missing: - mean(gy)": gamma / std * (gy - spread),
        "gamma is missing": (gy - mean - spread) / std,
        "1 / sqrt(var + eps) is missing": gamma * (gy - mean - spread),
        "sums in place of means: divide by the number of images": gamma / std * (gy - 5 * mean - 5 * spread),
        "the means run over the channels: take axis=0, over the images": gamma
        / std
        * (gy - gy.mean(1, keepdims=True) - x_hat * (gy * x_hat).mean(1, keepdims=True)),
    }
    judge.equal(exercise.batch_norm_backward(gy.copy(), x.copy(), gamma), wanted, slips)


def test_differences_agree(exercise: ModuleType) -> None:
    class Norm(Op):
        """Forward by minidl, backward by the exercise."""

        def forward(self, x: np.ndarray) -> np.ndarray:
            self.x = x
            return gamma * (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)

        def backward(self, gy: np.ndarray) -> tuple[np.ndarray]:
            return (exercise.batch_norm_backward(gy, self.x, gamma),)

    judge.differentiable(lambda x: Norm()(x), [x])
