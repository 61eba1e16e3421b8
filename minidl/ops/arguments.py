"""Checks that several ops share: what came, and what was expected."""

from __future__ import annotations

import operator
from typing import Any

Pair = tuple[int, int]


def pair(value: int | tuple[int, int], name: str, at_least: int) -> Pair:
    """An int or a (vertical, horizontal) pair of ints as a pair. Raises ValueError naming the argument."""
    both: Any = value if isinstance(value, tuple | list) else (value, value)
    try:
        v, h = (operator.index(i) for i in both)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected an int or a pair of ints, got {value!r}") from None
    if v < at_least or h < at_least:
        raise ValueError(f"{name}: expected at least {at_least}, got {value!r}")
    return v, h


def pictures(x: Any, name: str = "x") -> None:
    """x must be (N, C, H, W)."""
    if x.ndim != 4:
        raise ValueError(f"{name}: expected (N, C, H, W), got shape {x.shape}")
