"""DeZero's side of the comparison: the CIFAR residual nets, a training step with its momentum SGD (no weight decay there)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

np.int = int  # type: ignore[attr-defined]  # DeZero was written for NumPy 1

import dezero.functions as F  # noqa: E402
import dezero.layers as L  # noqa: E402
from dezero import Function, Model, optimizers  # noqa: E402


class SubsampleAndPad(Function):
    """The shortcut of option A, which DeZero's own functions cannot spell: every other pixel, and channels of zeros."""

    def __init__(self, c_in: int, c_out: int) -> None:
        self.before, self.after = (c_out - c_in) // 2, c_out - c_in - (c_out - c_in) // 2

    def forward(self, x: np.ndarray) -> np.ndarray:
        self.x_shape = x.shape
        return np.pad(x[:, :, ::2, ::2], ((0, 0), (self.before, self.after), (0, 0), (0, 0)))

    def backward(self, gy: Any) -> Any:
        gx = np.zeros(self.x_shape, gy.data.dtype)
        gx[:, :, ::2, ::2] = gy.data[:, self.before : gy.shape[1] - self.after]
        return F.as_variable(gx)


class Block(Model):
    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv1 = L.Conv2d(c_out, 3, 1 if c_in == c_out else 2, 1, nobias=True)
        self.bn1 = L.BatchNorm()
        self.conv2 = L.Conv2d(c_out, 3, 1, 1, nobias=True)
        self.bn2 = L.BatchNorm()
        self.channels = c_in, c_out

    def forward(self, x: Any) -> Any:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        c_in, c_out = self.channels
        return F.relu(y + (x if c_in == c_out else SubsampleAndPad(c_in, c_out)(x)))


class ResNet(Model):
    def __init__(self, n: int) -> None:
        super().__init__()
        self.conv1, self.bn1, self.linear = L.Conv2d(16, 3, 1, 1, nobias=True), L.BatchNorm(), L.Linear(10)
        self.names, c = [], 16
        for stage, width in enumerate((16, 32, 64)):
            for i in range(n):
                self.names.append(f"block{stage}_{i}")
                setattr(self, self.names[-1], Block(c, width))
                c = width

    def forward(self, x: Any) -> Any:
        x = F.relu(self.bn1(self.conv1(x)))
        for name in self.names:
            x = getattr(self, name)(x)
        return self.linear(F.reshape(F.average_pooling(x, x.shape[2]), (x.shape[0], 64)))


def setup(name: str, what: str, batch: int, size: int) -> Callable[[], Any]:
    model = ResNet({"resnet8": 1, "resnet20": 3, "resnet56": 9}[name])
    optimizer = optimizers.MomentumSGD(1e-3, 0.9).setup(model)
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((batch, 3, size, size), dtype=np.float32), rng.integers(0, 10, batch)

    def step() -> float:
        loss = F.softmax_cross_entropy(model(x), labels)
        model.cleargrads()
        loss.backward()
        optimizer.update()
        return float(loss.data)

    return step
