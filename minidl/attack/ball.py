"""The images that an attack may choose from: those in bounds, no further than eps from the original.

linf   max_i |d_i| <= eps         l2   sqrt(sum_i d_i^2) <= eps         over all channels and pixels i of an image
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minidl.arguments import one_of
from minidl.array import Array, array_module

NORMS = ("linf", "l2")
Bounds = tuple[float, float]  # the smallest and the largest value of an image


def check_norm(norm: str) -> None:
    one_of(norm, "norm", NORMS)


def below(value: float, dtype: Any) -> float:
    """The largest number of this float type that is not above the value."""
    rounded = np.asarray(value, dtype)
    return float(rounded if float(rounded) <= value else np.nextafter(rounded, np.asarray(-np.inf, dtype)))


def sizes(d: Array, norm: str) -> Array:
    """How large each image of d (N,C,H,W) is: (N,1,1,1)."""
    largest = array_module(d).abs(d).max(axis=(1, 2, 3), keepdims=True)
    if norm == "linf":
        return largest
    scale = array_module(d).maximum(largest, np.finfo(d.dtype).tiny)  # without which tiny squares would be 0
    squares = ((d / scale) ** 2).sum(axis=(1, 2, 3), keepdims=True, dtype="float64")
    return scale * array_module(d).sqrt(squares).astype(d.dtype)


def normalize(d: Array) -> Array:
    """d / ||d||_2, image by image; 0 stays 0."""
    return d / array_module(d).maximum(sizes(d, "l2"), np.finfo(d.dtype).tiny)


def clip_norm(d: Array, eps: float, norm: str) -> Array:
    """The nearest to d (N,C,H,W) of those that are no larger than eps, in l2 but for 4 roundings: these make none larger."""
    xp, eps = array_module(d), below(eps, d.dtype)
    if norm == "linf":
        return xp.clip(d, -eps, eps)
    size, less = sizes(d, norm), eps * (1 - 4 * float(np.finfo(d.dtype).eps))
    return xp.where(size <= less, d, d * (less / xp.maximum(size, np.finfo(d.dtype).tiny)))


def add(x: Array, d: Array) -> Array:
    """x + d, each value rounded towards x: so no change |(x + d) - x| is larger than |d|."""
    xp, y = array_module(x), x + d
    return xp.where(xp.abs(y - x) > xp.abs(d), xp.nextafter(y, x), y)


def project(x: Array, d: Array, eps: float, norm: str, bounds: Bounds) -> Array:
    """x + d, brought into the ball of eps around x, and then into bounds, where x is: that brings it only closer to x."""
    return array_module(x).clip(add(x, clip_norm(d, eps, norm)), *bounds)


def random_in_ball(x: Array, numbers: range, eps: float, norm: str, seed: int) -> Array:
    """One d for each image of x (N,C,H,W), uniform in the ball. Image i of all depends on (seed, i) alone."""
    drawn: Array = np.empty(x.shape)
    for d, i in zip(drawn, numbers, strict=True):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(i,)))
        if norm == "linf":
            d[:] = rng.uniform(-eps, eps, d.shape)
        else:  # a direction, and a radius r with P(r < t) = (t / eps)^size
            direction = rng.standard_normal(d.shape)
            d[:] = direction / np.sqrt((direction**2).sum()) * eps * rng.random() ** (1 / d.size)
    return array_module(x).asarray(drawn, dtype=x.dtype)
