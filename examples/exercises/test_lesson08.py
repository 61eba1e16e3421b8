"""Judge of exercise 8: the values of known slips, and what the block does where F is 0."""

from types import ModuleType

import judge
import numpy as np

from minidl import Tensor, gradients, ops

rng = np.random.default_rng(8)
x, w1, w2 = (Tensor(rng.normal(size=shape)) for shape in ((2, 3, 5, 5), (3, 3, 3, 3), (3, 3, 3, 3)))


def conv(x: Tensor, w: Tensor) -> Tensor:
    return ops.conv2d(x, w, padding=1)


def test_as_minidl_has_it(exercise: ModuleType) -> None:
    F = conv(ops.relu(conv(x, w1)), w2)
    slips = {
        "x is not added: that is the plain block": ops.relu(F).data,
        "the last relu is missing": (F + x).data,
        "the last relu stands before the sum: it should be relu(F(x) + x)": (ops.relu(F) + x).data,
        "the relu between the convolutions is missing": ops.relu(conv(conv(x, w1), w2) + x).data,
        "the weights are exchanged: w1 comes first": ops.relu(conv(ops.relu(conv(x, w2)), w1) + x).data,
        "x is multiplied: it should be added": ops.relu(F * x).data,
    }
    judge.equal(exercise.residual_block(x, w1, w2), ops.relu(F + x).data, slips)


def test_with_f_of_zero_the_gradient_passes_as_it_is(exercise: ModuleType) -> None:
    x, zero = Tensor(rng.uniform(1, 2, (1, 3, 5, 5)), requires_grad=True), Tensor(np.zeros((3, 3, 3, 3)))
    gy = rng.normal(size=x.shape)
    judge.equal(gradients(exercise.residual_block(x, zero, zero), [x], gy)[0], gy, {"no gradient arrives": 0 * gy})
