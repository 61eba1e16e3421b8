"""How sure is a mean over images? The bootstrap: as sure as means of other draws from the same images agree.

Efron 1979, "Bootstrap methods: another look at the jackknife"; the intervals are those of its percentiles.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minidl.arguments import count, number
from minidl.array import Array, is_array, shape_of, to_cpu


class Interval(NamedTuple):
    """A mean and where it may well be."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def bootstrap(
    values: Array, groups: Array | None = None, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Interval:
    """The mean of `values` (N,), and the interval that holds the middle `level` of the means of `resamples` samples of them.

    Each sample is as large as `values` and drawn from them with replacement. Efron 1979, "Bootstrap methods: another look at
    the jackknife", with the interval of the percentiles.

    To compare two methods on the same images, pass the differences: they differ where the interval does not hold 0.

    Args:
        groups: (N,) integers. Values with the same number (several nets on one image) depend on each other, so that whole
            groups are drawn; None: each value is its own.

    Raises TypeError or ValueError: no values, or not finite ones; other groups; level outside (0, 1); no draws.
    """
    if not is_array(values) or values.ndim != 1 or values.dtype.kind not in "fiub":
        got = f"{values.dtype} {values.shape}" if is_array(values) else type(values).__name__
        raise TypeError(f"values: expected a flat array of numbers, got {got}")
    v = to_cpu(values).astype(np.float64)
    if len(v) == 0 or not np.isfinite(v).all():
        raise ValueError(
            f"values: expected at least one, all of them finite, got {v[~np.isfinite(v)][:5] if len(v) else 'none'}"
        )
    level, resamples, seed = number(level, "level", "(0, 1)"), count(resamples, "resamples"), count(seed, "seed", 0)
    group = np.arange(len(v)) if groups is None else _numbers(groups, len(v))
    sums, counts = np.bincount(group, v), np.bincount(group)  # of each group
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    for d in range(resamples):
        pick = rng.integers(0, len(sums), len(sums))
        means[d] = sums[pick].sum() / counts[pick].sum()
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(v.mean()), float(low), float(high))


def _numbers(groups: Array, n: int) -> Array:
    """The groups, numbered 0, 1, ..."""
    if shape_of(groups) != (n,):
        raise ValueError(f"groups: expected one number for each of the {n} values, got shape {shape_of(groups)}")
    numbered: Array = np.unique(to_cpu(groups), return_inverse=True)[1]
    return numbered
