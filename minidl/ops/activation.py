"""Activation functions: what stands between the linear layers."""

from __future__ import annotations

import math

from minidl import kernels
from minidl.arguments import number
from minidl.array import Array, array_module
from minidl.core import Grads, Op, Tensor
from minidl.mixed import FLOAT32


class ReLU(Op):
    """y = max(x, 0)"""

    def forward(self, x: Array) -> Array:
        self.y = kernels.of(x).relu(x)
        return self.y

    def backward(self, gy: Array) -> Grads:
        return (kernels.of(gy).relu_grad(gy, self.y),)

    def gate(self) -> Array:
        return self.y > 0


class LeakyReLU(Op):
    """y = x where x > 0, else slope * x"""

    def __init__(self, slope: float) -> None:
        self.slope = slope

    def forward(self, x: Array) -> Array:
        self.positive = x > 0
        return array_module(x).where(self.positive, x, x * self.slope)

    def backward(self, gy: Array) -> Grads:
        return (array_module(gy).where(self.positive, gy, gy * self.slope),)

    def gate(self) -> Array:
        return self.positive


class Sigmoid(Op):
    """y = 1 / (1 + exp(-x)) = (1 + tanh(x/2)) / 2"""

    def forward(self, x: Array) -> Array:
        self.y = 0.5 * (1 + array_module(x).tanh(0.5 * x))  # the second form cannot overflow
        return self.y

    def backward(self, gy: Array) -> Grads:
        return (gy * self.y * (1 - self.y),)


class Tanh(Op):
    """y = tanh(x)"""

    def forward(self, x: Array) -> Array:
        self.y = array_module(x).tanh(x)
        return self.y

    def backward(self, gy: Array) -> Grads:
        return (gy * (1 - self.y * self.y),)


class Softplus(Op):
    """y = log(1 + exp(x))"""

    precision = (FLOAT32,)

    def forward(self, x: Array) -> Array:
        self.x = x
        return array_module(x).logaddexp(x, x.dtype.type(0))

    def backward(self, gy: Array) -> Grads:
        return (gy * 0.5 * (1 + array_module(gy).tanh(0.5 * self.x)),)


class GELU(Op):
    """y = x / 2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))"""

    precision = (FLOAT32,)

    def forward(self, x: Array) -> Array:
        self.x = x
        self.t = array_module(x).tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
        return 0.5 * x * (1 + self.t)

    def backward(self, gy: Array) -> Grads:
        dt = (1 - self.t * self.t) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * self.x**2)
        return (gy * 0.5 * (1 + self.t + self.x * dt),)


def relu(x: Tensor) -> Tensor:
    """y = max(x, 0), any shape; the gradient at 0 is 0."""
    return ReLU()(x)


def leaky_relu(x: Tensor, slope: float = 0.01) -> Tensor:
    """y = x where x > 0, else slope * x."""
    return LeakyReLU(number(slope, "slope"))(x)


def sigmoid(x: Tensor) -> Tensor:
    """y = 1 / (1 + exp(-x))."""
    return Sigmoid()(x)


def tanh(x: Tensor) -> Tensor:
    """y = tanh(x)."""
    return Tanh()(x)


def softplus(x: Tensor) -> Tensor:
    """y = log(1 + exp(x)), without overflow."""
    return Softplus()(x)


def gelu(x: Tensor) -> Tensor:
    """y = x / 2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): the tanh form of Hendrycks and Gimpel 2016."""
    return GELU()(x)
