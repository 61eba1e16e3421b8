"""Linear maps of images that treat rows and columns apart: resizing, blurring, adaptive average pooling.

All are  y[n,c] = A x[n,c] B^T  with a small matrix A for the rows and B for the columns, so gx[n,c] = A^T gy[n,c] B.
What differs is only how one row of the matrix weighs the input pixels.
"""

from __future__ import annotations

from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np

from minidl import kernels
from minidl.arguments import Pair, flag, images, number, numbers, pair
from minidl.array import Array, array_module, sum_type
from minidl.core import Grads, Op, Tensor
from minidl.mixed import FLOAT32


class RowsAndColumns(Op):
    """y[n,c] = A x[n,c] B^T, A (OH,H), B (OW,W) the matrices of `kind`"""

    precision = (FLOAT32,)

    def __init__(self, kind: str, *settings: tuple[float, float]) -> None:
        self.kind, self.settings = kind, settings

    def forward(self, x: Array) -> Array:  # (N,C,H,W)
        images(x)
        rows, columns = zip(*self.settings, strict=True)
        self.A = _matrix(array_module(x), sum_type(x.dtype), self.kind, x.shape[2], *rows)
        self.B = _matrix(array_module(x), sum_type(x.dtype), self.kind, x.shape[3], *columns)
        return kernels.of(x).rows_and_columns(x, self.A, self.B)  # (N,C,OH,OW)

    def push(self, tx: Array) -> Array:  # (N,C,H,W)
        """ty[n,c] = A tx[n,c] B^T"""
        return kernels.of(tx).rows_and_columns(tx, self.A, self.B)

    def backward(self, gy: Array) -> Grads:  # (N,C,OH,OW)
        """gx[n,c] = A^T gy[n,c] B"""
        return (kernels.of(gy).rows_and_columns(gy, self.A.T, self.B.T),)


def resize(x: Tensor, size: int | Pair, mode: str = "bilinear", align_corners: bool = False) -> Tensor:
    """y[n,c] = A x[n,c] B^T, the images at another size, without antialiasing: (N,C,H,W) -> (N,C,*size).

    A row of A (OH,H) holds how much each row of x counts, one of B (OW,W) each column. mode "bilinear" interpolates between
    pixel centres, which sit at i + 1/2, or at i (H-1)/(OH-1) of the new grid with `align_corners`; "nearest" repeats or skips
    pixels: y[i] = x[floor(i H / OH)]. Raises ValueError for another mode, `align_corners` with "nearest" or x of another shape,
    TypeError or ValueError for a size that is no integer of at least 1, or a pair of them.
    """
    if mode not in ("bilinear", "nearest"):
        raise ValueError(f"mode: expected 'bilinear' or 'nearest', got {mode!r}")
    if flag(align_corners, "align_corners") and mode == "nearest":
        raise ValueError("align_corners: has a meaning for mode 'bilinear' only")
    kind = "bilinear, corners aligned" if align_corners else mode
    return RowsAndColumns(kind, pair(size, "size", 1))(x)


def gaussian_blur(x: Tensor, sigma: float | tuple[float, float], radius: int | Pair | None = None) -> Tensor:
    """y[n,c,i,j] = sum_{s,t} w[s] w[t] x[n,c,i+s,j+t], w[t] ~ exp(-t^2 / (2 sigma^2)) with sum 1: (N,C,H,W) -> (N,C,H,W).

    Beyond the border the image is mirrored, without repeating the border pixel. sigma: standard deviation in pixels, one or
    (vertical, horizontal); the kernel reaches `radius` pixels (3 sigma, rounded up, by default), and must be smaller than the
    image. Raises ValueError where it is not, for x of another shape and for a sigma that is not positive, TypeError for what
    are no numbers.
    """
    two = isinstance(sigma, tuple | list)
    vertical, horizontal = numbers(sigma, "sigma", "(0, inf)", 2) if two else 2 * (number(sigma, "sigma", "(0, inf)"),)
    if radius is None:
        radius = int(np.ceil(3 * vertical)), int(np.ceil(3 * horizontal))
    return RowsAndColumns("gaussian blur", (vertical, horizontal), pair(radius, "radius", 0))(x)


@lru_cache(256)
def _matrix(xp: ModuleType, dtype: Any, kind: str, size: int, *settings: float) -> Array:
    """A matrix on the device of the images, and in the type of their sums, kept there for the next ones"""
    return xp.asarray(MATRICES[kind](size, *settings), dtype)


@lru_cache(64)
def _nearest(size: int, out: int) -> Array:
    """A[i, floor(i size / out)] = 1"""
    A = np.zeros((out, size))
    A[np.arange(out), np.arange(out) * size // out] = 1
    return A


def _interpolation(position: Array, size: int) -> Array:
    """A[i] weighs the two pixels around position[i] by their distance to it."""
    A = np.zeros((len(position), size))
    i, low = np.arange(len(position)), np.minimum(np.floor(position).astype(int), size - 1)
    A[i, low] = 1 - (position - low)
    A[i, np.minimum(low + 1, size - 1)] += position - low
    return A


@lru_cache(64)
def _bilinear(size: int, out: int) -> Array:
    return _interpolation(np.maximum((np.arange(out) + 0.5) * size / out - 0.5, 0), size)


@lru_cache(64)
def _bilinear_corners(size: int, out: int) -> Array:
    return _interpolation(np.arange(out) * ((size - 1) / max(out - 1, 1)), size)


@lru_cache(64)
def _adaptive_average(size: int, out: int) -> Array:
    """A[i, j] = 1 / count for floor(i size / out) <= j < ceil((i+1) size / out)"""
    i, j = np.arange(out)[:, None], np.arange(size)
    inside = (i * size // out <= j) & (j < -(-(i + 1) * size // out))
    return inside / inside.sum(axis=1, keepdims=True)


@lru_cache(64)
def _gaussian(size: int, sigma: float, radius: int) -> Array:
    """A[i, mirror(i + t)] += exp(-t^2 / (2 sigma^2)) / sum, |t| <= radius"""
    if radius >= size:
        raise ValueError(f"radius: a blur that reaches {radius} pixels needs images of more than {radius}, got {size}")
    t = np.arange(-radius, radius + 1)
    weight = np.exp(-0.5 * (t / sigma) ** 2)
    at = np.abs(np.arange(size)[:, None] + t)  # mirrored at the first pixel
    at = np.where(at < size, at, 2 * (size - 1) - at)  # and at the last
    A = np.zeros((size, size))
    np.add.at(A, (np.arange(size)[:, None], at), weight / weight.sum())
    return A


MATRICES = {
    "nearest": _nearest,
    "bilinear": _bilinear,
    "bilinear, corners aligned": _bilinear_corners,
    "adaptive average": _adaptive_average,
    "gaussian blur": _gaussian,
}
