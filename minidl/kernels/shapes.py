"""Shapes, and how many positions a window has: what every set of kernels and the ops that call them must agree on."""

from __future__ import annotations

from minidl.contexts import Setting

Pair = tuple[int, int]  # (vertical, horizontal)
Shape = tuple[int, ...]

parts = Setting("parts", 1)  # in which several processes compute a batch, and one of which is seen here


def conv_size(size: int, kernel_size: int, stride: int, padding: int, dilation: int = 1) -> int:
    """How many positions a kernel has along an axis: floor((size + 2 p - d (k - 1) - 1) / s) + 1"""
    return (size + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1


def whole(y: Shape) -> Shape:
    """The shape of all parts of y (N,C,H,W), by which an algorithm is chosen: the same for each, as in one process."""
    return y[0] * parts.state()[0], *y[1:]
