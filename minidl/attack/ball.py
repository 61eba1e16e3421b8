"""The pictures that an attack may choose from: those in bounds, no further than eps from the original.

linf   max_i |d_i| <= eps         l2   sqrt(sum_i d_i^2) <= eps         over all channels and pixels i of a picture
"""

from __future__ import annotations

import numpy as np

from minidl.array import Array, array_module

NORMS = ("linf", "l2")
Bounds = tuple[float, float]  # the smallest and the largest value of a picture


def check_norm(norm: str) -> None:
    if norm not in NORMS:
        raise ValueError(f"norm: expected one of {NORMS}, got {norm!r}")


def sizes(d: Array, norm: str) -> Array:
    """How large each picture of d (N,C,H,W) is: (N,1,1,1)."""
    largest = array_module(d).abs(d).max(axis=(1, 2, 3), keepdims=True)
    if norm == "linf":
        return largest
    scale = array_module(d).maximum(largest, np.finfo(d.dtype).tiny)  # without which tiny squares would be 0
    return scale * array_module(d).sqrt(((d / scale) ** 2).sum(axis=(1, 2, 3), keepdims=True))


def unit(d: Array) -> Array:
    """d / ||d||_2, picture by picture; 0 stays 0."""
    return d / array_module(d).maximum(sizes(d, "l2"), np.finfo(d.dtype).tiny)


def shrink(d: Array, eps: float, norm: str) -> Array:
    """The nearest to d (N,C,H,W) of those that are no larger than eps."""
    xp = array_module(d)
    if norm == "linf":
        return xp.clip(d, -eps, eps)
    return d * (eps / xp.maximum(sizes(d, norm), max(eps, float(np.finfo(d.dtype).tiny))))


def project(x: Array, d: Array, eps: float, norm: str, bounds: Bounds) -> Array:
    """x + d, brought into the ball of eps around x, and then into bounds, where x is: that brings it only closer to x."""
    return array_module(x).clip(x + shrink(d, eps, norm), *bounds)


def draw(x: Array, numbers: range, eps: float, norm: str, seed: int) -> Array:
    """One d for each picture of x (N,C,H,W), uniform in the ball. Picture i of all depends on (seed, i) alone."""
    drawn = np.empty(x.shape)
    for d, i in zip(drawn, numbers, strict=True):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(i,)))
        if norm == "linf":
            d[:] = rng.uniform(-eps, eps, d.shape)
        else:  # a direction, and a radius r with P(r < t) = (t / eps)^size
            direction = rng.standard_normal(d.shape)
            d[:] = direction / np.sqrt((direction**2).sum()) * eps * rng.random() ** (1 / d.size)
    return array_module(x).asarray(drawn, dtype=x.dtype)
