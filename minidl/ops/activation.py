"""Activation functions: what stands between the linear layers."""

from __future__ import annotations

import math

from minidl import kernels
from minidl.arguments import number
from minidl.array import Array, array_module, wide
from minidl.core import Grads, Op, Tensor
from minidl.mixed import FLOAT32
from minidl.stable import log_one_plus_exp, logistic, logistic_slope

FLAT = 30.0  # beyond it gelu is 0 or x, in every type


class ReLU(Op):
    """y = max(x, 0)"""

    def forward(self, x: Array) -> Array:
        self.y = kernels.of(x).relu(x)
        return self.y

    def push(self, tx: Array) -> Array:
        """ty = tx where x > 0, else 0"""
        return tx * (self.y > 0)

    def backward(self, gy: Array) -> Grads:
        """gx = gy where x > 0, else 0"""
        return (kernels.of(gy).relu_grad(gy, self.y),)

    def gate(self) -> Array:
        return self.y > 0


class LeakyReLU(Op):
    """y = x where x > 0, else slope x"""

    def __init__(self, negative_slope: float) -> None:
        self.negative_slope = negative_slope

    def forward(self, x: Array) -> Array:
        self.positive = x > 0
        return array_module(x).where(self.positive, x, x * self.negative_slope)

    def push(self, tx: Array) -> Array:
        """ty = tx where x > 0, else slope tx"""
        return array_module(tx).where(self.positive, tx, tx * self.negative_slope)

    def backward(self, gy: Array) -> Grads:
        """gx = gy where x > 0, else slope gy"""
        return (array_module(gy).where(self.positive, gy, gy * self.negative_slope),)

    def gate(self) -> Array:
        return self.positive


class Sigmoid(Op):
    """y = 1 / (1 + exp(-x))"""

    def forward(self, x: Array) -> Array:
        self.x = x
        return logistic(x).astype(x.dtype, copy=False)

    def push(self, tx: Array) -> Array:
        """ty = y (1 - y) tx"""
        return (tx * logistic_slope(self.x)).astype(tx.dtype, copy=False)

    def backward(self, gy: Array) -> Grads:
        """gx = y (1 - y) gy"""
        return ((gy * logistic_slope(self.x)).astype(gy.dtype, copy=False),)


class Tanh(Op):
    """y = tanh(x)"""

    def forward(self, x: Array) -> Array:
        self.x = x
        return array_module(x).tanh(x)

    def push(self, tx: Array) -> Array:
        """ty = (1 - y^2) tx"""
        return (tx * self.slope()).astype(tx.dtype, copy=False)

    def backward(self, gy: Array) -> Grads:
        """gx = (1 - y^2) gy"""
        return ((gy * self.slope()).astype(gy.dtype, copy=False),)

    def slope(self) -> Array:
        """dy/dx = 1 - y^2 = 4 s'(2 x), s' the slope of the sigmoid, since y = 2 s(2 x) - 1"""
        return 4 * logistic_slope(2 * wide(self.x))


class Softplus(Op):
    """y = log(1 + exp(x))"""

    precision = (FLOAT32,)

    def forward(self, x: Array) -> Array:
        self.x = x
        return log_one_plus_exp(x).astype(x.dtype, copy=False)

    def push(self, tx: Array) -> Array:
        """ty = tx / (1 + exp(-x))"""
        return (tx * logistic(self.x)).astype(tx.dtype, copy=False)

    def backward(self, gy: Array) -> Grads:
        """gx = gy / (1 + exp(-x))"""
        return ((gy * logistic(self.x)).astype(gy.dtype, copy=False),)


class GELU(Op):
    """y = x / 2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))

    1 + tanh(u) has no digits in the tail: it is 2 s(2 u), s the sigmoid.
    """

    precision = (FLOAT32,)

    def forward(self, x: Array) -> Array:
        self.x = x
        z, _ = self.twice_u(x)
        return (array_module(x).maximum(wide(x), -FLAT) * logistic(z)).astype(x.dtype, copy=False)

    def push(self, tx: Array) -> Array:
        """ty = s(2 u) (1 + x s(-2 u) d(2 u)/dx) tx, s the sigmoid and u what stands in the tanh"""
        return (tx * self.slope()).astype(tx.dtype, copy=False)

    def backward(self, gy: Array) -> Grads:
        """gx = s(2 u) (1 + x s(-2 u) d(2 u)/dx) gy"""
        return ((gy * self.slope()).astype(gy.dtype, copy=False),)

    def slope(self) -> Array:
        """dy/dx = s(2 u) (1 + x s(-2 u) d(2 u)/dx)"""
        z, dz = self.twice_u(self.x)
        x = array_module(z).clip(wide(self.x), -FLAT, FLAT)
        return logistic(z) * (1 + x * logistic(-z) * dz)

    def twice_u(self, x: Array) -> tuple[Array, Array]:
        """2 u and its derivative"""
        x = array_module(x).clip(wide(x), -FLAT, FLAT)  # so that x^3 is finite
        c, square = 2 * math.sqrt(2 / math.pi), x * x
        return c * x * (1 + 0.044715 * square), c * (1 + 3 * 0.044715 * square)


def relu(x: Tensor) -> Tensor:
    """y = max(x, 0), any shape; the gradient at 0 is 0.

    Nair and Hinton 2010, "Rectified linear units improve restricted Boltzmann machines".
    """
    return ReLU()(x)


def leaky_relu(x: Tensor, negative_slope: float = 0.01) -> Tensor:
    """y = x where x > 0, else slope * x, any shape. Raises TypeError or ValueError for a slope that is no finite number.

    Maas, Hannun and Ng 2013, "Rectifier nonlinearities improve neural network acoustic models", section 2.
    """
    return LeakyReLU(number(negative_slope, "negative_slope"))(x)


def sigmoid(x: Tensor) -> Tensor:
    """y = 1 / (1 + exp(-x)), any shape."""
    return Sigmoid()(x)


def tanh(x: Tensor) -> Tensor:
    """y = tanh(x), any shape."""
    return Tanh()(x)


def softplus(x: Tensor) -> Tensor:
    """y = log(1 + exp(x)), without overflow, any shape."""
    return Softplus()(x)


def gelu(x: Tensor) -> Tensor:
    """y = x / 2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), any shape.

    Hendrycks and Gimpel 2016, "Gaussian error linear units (GELUs)", section 2, in its tanh form.
    """
    return GELU()(x)
