"""How alike two maps are, whatever their scales: by ranks, or by structure."""

from __future__ import annotations

import numpy as np

from minidl import arguments
from minidl.array import Array

K1, K2, SIGMA = 0.01, 0.03, 1.5  # Wang et al. 2004
WINDOW = 11


def rank_correlation(a: Array, b: Array) -> Array:
    """<ra, rb> / (|ra| |rb|), ra and rb the pixels' ranks less their mean: Spearman's correlation (N,) of maps a and b (N,H,W).

    Equal pixels share their mean rank. 1 for the same order of pixels, -1 for the reverse, 0 where one map is constant.
    Spearman 1904, "The proof and measurement of association between two things".
    Raises TypeError and ValueError for maps that are no finite (N,H,W) of the same shape.
    """
    a, b = _pair(a, b)
    ra, rb = (np.stack([ranks(m.ravel()) for m in maps]) for maps in (a, b))
    ra, rb = ra - ra.mean(1, keepdims=True), rb - rb.mean(1, keepdims=True)
    size = np.sqrt((ra**2).sum(1) * (rb**2).sum(1))
    return np.divide((ra * rb).sum(1), size, out=np.zeros(len(a)), where=size > 0)


def ranks(values: Array) -> Array:
    """0 for the smallest of the values (n,) to n - 1, equal ones their mean."""
    _, which, ties = np.unique(values, return_inverse=True, return_counts=True)
    mean_rank: Array = (np.cumsum(ties) - (ties + 1) / 2)[which]
    return mean_rank


def ssim(a: Array, b: Array) -> Array:
    """mean of (2 ma mb + c1) (2 cov + c2) / ((ma^2 + mb^2 + c1) (va + vb + c2)),  c1 = 0.01^2, c2 = 0.03^2

    The mean structural similarity (N,) of maps a and b, (N,H,W), not negative, each divided by its largest value first, with
    means, variances and covariance under a Gaussian window of 11x11 pixels and sigma 1.5. Wang et al. 2004, "Image quality
    assessment", equation 13. It is made for light, which is not negative: of a map m and -m both factors would be near -1, and
    the two as good as equal. Raises ValueError for a negative value, for maps smaller than the window, and, with TypeError, as
    `rank_correlation` does.
    """
    a, b = _pair(a, b)
    if min(a.shape[1:]) < WINDOW:
        raise ValueError(f"a, b: expected maps of at least {WINDOW}x{WINDOW} pixels, got {a.shape[1:]}")
    for name, maps in ("a", a), ("b", b):
        if (maps < 0).any():
            raise ValueError(
                f"{name}: expected no negative value (take the size, or the positive part), got {maps.min():.3g}; "
                "rank_correlation takes signed maps"
            )
    a, b = (maps / np.maximum(maps.max((1, 2), keepdims=True), np.finfo(float).tiny) for maps in (a, b))
    ma, mb = _windowed(a), _windowed(b)
    va, vb, cov = _windowed(a * a) - ma**2, _windowed(b * b) - mb**2, _windowed(a * b) - ma * mb
    c1, c2 = K1**2, K2**2
    alike: Array = (2 * ma * mb + c1) * (2 * cov + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    return alike.mean((1, 2))


def _windowed(maps: Array) -> Array:
    """Means under the window, wherever it fits: (N,H,W) -> (N,H-10,W-10)"""
    bell = np.exp(-0.5 * ((np.arange(WINDOW) - WINDOW // 2) / SIGMA) ** 2)
    bell /= bell.sum()
    for axis in (1, 2):
        maps = np.lib.stride_tricks.sliding_window_view(maps, WINDOW, axis) @ bell
    return maps


def _pair(a: Array, b: Array) -> tuple[Array, Array]:
    a, b = arguments.maps(a, "a"), arguments.maps(b, "b")
    if a.shape != b.shape:
        raise ValueError(f"a, b: expected the same shape, got {a.shape} and {b.shape}")
    return a, b
