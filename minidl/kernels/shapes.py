"""Shapes, and how many positions a window has: what every set of kernels and the ops that call them must agree on."""

from __future__ import annotations

Pair = tuple[int, int]  # (vertical, horizontal)
Shape = tuple[int, ...]


def conv_size(size: int, kernel_size: int, stride: int, padding: int, dilation: int = 1) -> int:
    """How many positions a kernel has along an axis: floor((size + 2 p - d (k - 1) - 1) / s) + 1"""
    return (size + 2 * padding - dilation * (kernel_size - 1) - 1) // stride + 1
