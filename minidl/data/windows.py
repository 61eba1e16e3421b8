"""The window of grey values that is shown: what is below it is black, what is above it white."""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.arguments import numbers, wrong
from minidl.array import Array

Window = tuple[float, float]
WHITE = 65535


def checked_window(window: Any) -> Window | None:
    if window is None:
        return None
    low, high = numbers(window, "window", length=2)
    if low >= high:
        wrong(ValueError, "window", "(low, high), low < high", window)
    return low, high


def windowed(values: Array, low: float, high: float) -> Array:
    """y = (x - low) / (high - low), cut off at 0 and 1, in 16 bits."""
    return grey16((values.astype(np.float64) - low) / (high - low))


def grey16(y: Array) -> Array:
    """Of numbers from 0, black, to 1."""
    return np.rint(y.clip(0, 1) * WHITE).astype(np.uint16)
