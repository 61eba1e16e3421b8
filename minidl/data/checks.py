"""Argument checks that the whole package shares."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def integer(name: str, value: object, minimum: int) -> int:
    """`value` as an int that is at least `minimum`.

    Raises TypeError for anything but an integer (True and 2.0 are none) and ValueError below the minimum.
    """
    if isinstance(value, bool | np.bool_) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be an integer, got {type(value).__name__} {value!r}")
    number = operator.index(value)
    if number < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {number}")
    return number
