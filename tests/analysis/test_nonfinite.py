"""The first value that is not finite is named: the leaf or the op, its layer, the line that called for it, and how many."""

from __future__ import annotations

import numpy as np
import pytest

from minidl import Parameter, Tensor, nn, ops
from minidl.analysis.nonfinite import count_nonfinite, first_nonfinite

RNG = np.random.default_rng(0)


class Net(nn.Module):
    def __init__(self) -> None:
        self.conv = nn.Conv2d(1, 3, 3, rng=np.random.default_rng(1))
        self.bn = nn.BatchNorm2d(3)
        self.linear = nn.Linear(3, 2, rng=np.random.default_rng(2))
        self.shift = 0.0
        self.name_parameters()

    def forward(self, x: Tensor) -> Tensor:
        y = ops.exp(self.bn(self.conv(x)) + self.shift)
        return self.linear(ops.global_avg_pool2d(y))


def image() -> np.ndarray:
    return RNG.normal(size=(4, 1, 6, 6)).astype(np.float32)


def loss(net: Net, x: np.ndarray) -> Tensor:
    with np.errstate(all="ignore"):
        return ops.cross_entropy(net(x), np.array([0, 1, 0, 1]))


def test_nothing_to_find() -> None:
    assert first_nonfinite(loss(Net(), image())) is None
    assert count_nonfinite(np.array([1.0, np.nan, np.inf, -np.inf])) == 3


def test_an_image() -> None:
    x = image()
    x[1, 0, 2, 3] = np.nan
    found = first_nonfinite(loss(Net(), x))
    assert found is not None and found.startswith("the input") and "Conv2d" in found and "1 of 144 values" in found


@pytest.mark.parametrize("name", ["conv.weight", "bn.bias", "linear.weight"])
def test_a_parameter(name: str) -> None:
    net = Net()
    dict(net.named_parameters())[name].data.flat[0] = np.inf
    found = first_nonfinite(loss(net, image()))
    assert found is not None and found.startswith(f"the parameter {name} of <") and "1 of " in found


def test_the_first_of_two_parameters() -> None:
    net = Net()
    for p in (net.linear.weight, net.conv.weight):
        p.data.flat[0] = np.nan
    found = first_nonfinite(loss(net, image()))
    assert found is not None and found.startswith("the parameter conv.weight")


def test_an_op_without_parameters() -> None:
    net = Net()
    net.shift = 1000.0
    found = first_nonfinite(loss(net, image()))
    assert found is not None and found.startswith("the output after layer bn of <Exp")
    assert "test_nonfinite.py" in found and "in forward" in found and "192 of 192 values" in found


def test_a_layer() -> None:
    net = Net()
    net.bn.weight.data[:] = 3e38  # finite, but not once it is multiplied
    found = first_nonfinite(loss(net, image()))
    assert found is not None and found.startswith("the output in layer bn of <BatchNorm") and "bn.weight" in found


def test_the_last_op_and_one_without_a_layer() -> None:
    x = Parameter(np.array([-1.0, 2.0], np.float32), "x")
    with np.errstate(all="ignore"):
        found = first_nonfinite(ops.log(Tensor(np.array([1.0, -2.0]), requires_grad=True)))
        assert found is not None and found.startswith("the output of <Log") and "1 of 2 values" in found
    assert first_nonfinite(x) is None  # no op, nothing to look at
