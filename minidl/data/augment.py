"""Augmentation: functions f(x, rng) -> x of a whole batch of images (N,C,H,W).

All randomness comes from the generator that is passed in, one draw an image; `x` itself is never changed. Everything
but `Normalize` keeps the type of `x`, uint8 or floating, and works best on uint8, before normalising.

Where an image is filled (beyond its border, inside a cutout), `fill` is one number or one a channel in the units of
`Dataset.mean_std`, that is [0, 1] for uint8 images: fill=mean becomes about 0 after `Normalize`, which is what recipes
do that pad normalised images with zeros; the default 0 is black.

Images on the GPU stay there: the same draws are made on the CPU, a few integers an image, and decide which pixels are
gathered on the device. The same generator gives the same images on both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from minidl.arguments import channels_first, count, function, number, numbers, one_of
from minidl.array import Array, array_module, is_array, shape_of
from minidl.data.share import drawing

Augmentation = Callable[[Array, np.random.Generator], Array]
Fill = float | Sequence[float] | Array


@dataclass(frozen=True, eq=False)
class RandomCrop:
    """A window of the original size, anywhere in the image padded by `padding` on each side.

    y[n,c,i,j] = padded[n, c, i + top_n, j + left_n], top and left uniform in 0..2*pad

    He, Zhang, Ren and Sun 2016, "Deep residual learning for image recognition", section 4.2. A call f(x, rng) takes and gives
    x (N,C,H,W). Raises TypeError or ValueError where padding is no integer of at least 0, `fill` neither a finite number nor
    one a channel, or x no batch of images.
    """

    padding: int
    fill: Fill = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "padding", count(self.padding, "padding", 0))
        object.__setattr__(self, "fill", checked_fill(self.fill))

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        N, C, H, W = checked_shape(x)
        p = self.padding
        top, left = drawing(rng).integers(0, 2 * p + 1, (2, N))
        if array_module(x) is not np:
            rows, columns = top[:, None] + np.arange(H) - p, left[:, None] + np.arange(W) - p  # (N,H) (N,W)
            return _gather(x, rows, columns, fill_of(self.fill, x))
        padded = np.empty((N, C, H + 2 * p, W + 2 * p), x.dtype)
        padded[:] = fill_of(self.fill, x)
        padded[:, :, p : p + H, p : p + W] = x
        windows = sliding_window_view(padded, (H, W), (2, 3))  # (N,C,2p+1,2p+1,H,W), a view
        y: Array = windows[np.arange(N), :, top, left]  # (N,C,H,W)
        return y


@dataclass(frozen=True, eq=False)
class RandomFlip:
    """Each image mirrored with probability `p`, along its "horizontal" (left to right) or "vertical" axis.

    Krizhevsky, Sutskever and Hinton 2012, "ImageNet classification with deep convolutional neural networks", section 4.1,
    mirror left to right. A call f(x, rng) takes and gives x (N,C,H,W). Raises TypeError or ValueError for p outside [0, 1],
    another axis, and x that is no batch of images.
    """

    p: float = 0.5
    axis: str = "horizontal"

    def __post_init__(self) -> None:
        object.__setattr__(self, "p", number(self.p, "p", "[0, 1]"))
        one_of(self.axis, "axis", ("horizontal", "vertical"))

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        N, _, H, W = checked_shape(x)
        flip = drawing(rng).random(N) < self.p
        if array_module(x) is not np:
            rows, columns = np.tile(np.arange(H), (N, 1)), np.tile(np.arange(W), (N, 1))  # (N,H) (N,W)
            mirrored = columns if self.axis == "horizontal" else rows
            mirrored[flip] = mirrored[flip, ::-1]
            return _gather(x, rows, columns)
        y = x.copy()
        y[flip] = x[flip, :, :, ::-1] if self.axis == "horizontal" else x[flip, :, ::-1]
        return y


@dataclass(frozen=True, eq=False)
class Cutout:
    """A square of `size` pixels, centred anywhere in the image and cut at its border, is filled.

    DeVries and Taylor 2017, "Improved Regularization of Convolutional Neural Networks with Cutout", section 3. A call
    f(x, rng) takes and gives x (N,C,H,W). Raises TypeError or ValueError where size is no integer of at least 1, `fill` neither
    a finite number nor one a channel, or x no batch of images.
    """

    size: int
    fill: Fill = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", count(self.size, "size"))
        object.__setattr__(self, "fill", checked_fill(self.fill))

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        N, _, H, W = checked_shape(x)
        xp = array_module(x)
        rows = xp.asarray(_inside(drawing(rng).integers(0, H, N), self.size, H))  # (N,H)
        columns = xp.asarray(_inside(rng.integers(0, W, N), self.size, W))  # (N,W)
        hole = rows[:, None, :, None] & columns[:, None, None, :]  # (N,1,H,W)
        y: Array = xp.where(hole, fill_of(self.fill, x), x)
        return y


@dataclass(frozen=True, eq=False)
class Normalize:
    """y = (x - mean) / std by channel, float32; uint8 images count as x / 255. Draws nothing: rng may be left out.

    mean, std: (C,) each; a call takes and gives x (N,C,H,W). Raises ValueError where the two differ in length, a number is not
    finite, a std is not positive, or x is no batch of C channels, TypeError for what are no numbers.
    """

    mean: Sequence[float] | Array
    std: Sequence[float] | Array

    def __post_init__(self) -> None:
        mean, std = numbers(self.mean, "mean"), numbers(self.std, "std", "(0, inf)")
        if len(mean) != len(std):
            raise ValueError(f"mean, std: expected one number a channel, got {len(mean)} and {len(std)}")
        if (np.asarray(std, np.float32) == 0).any():
            raise ValueError(f"std: expected numbers that float32 can tell from 0, got {self.std!r}")

    def __call__(self, x: Array, rng: np.random.Generator | None = None) -> Array:
        _, C, _, _ = checked_shape(x)
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        if len(mean) != C:
            raise ValueError(f"mean, std: expected one number for each of {C} channels, got {len(mean)}")
        xp, scale = array_module(x), (1 / 255 if x.dtype == np.uint8 else 1) / std
        y = x.astype(np.float32)
        y *= xp.asarray(scale[:, None, None])
        y -= xp.asarray((mean / std)[:, None, None])
        return y


@dataclass(frozen=True, eq=False)
class Compose:
    """The functions one after the other, first to last, of x (N,C,H,W). Raises TypeError for one that is no function."""

    functions: Sequence[Augmentation]

    def __post_init__(self) -> None:
        for i, f in enumerate(self.functions):
            function(f, f"functions[{i}]", "f(x, rng)")

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        for f in self.functions:
            x = f(x, rng)
        return x


def checked_shape(x: Array) -> tuple[int, int, int, int]:
    if not is_array(x) or x.ndim != 4:
        raise ValueError(f"x: expected a NumPy or CuPy array (N,C,H,W), got {getattr(x, 'shape', type(x).__name__)}")
    if x.dtype != np.uint8 and not np.issubdtype(x.dtype, np.floating):
        raise TypeError(f"x: expected uint8 or floats, got {x.dtype}")
    channels_first(x)
    N, C, H, W = x.shape
    return N, C, H, W


def checked_fill(fill: Fill) -> tuple[float, ...]:
    """One number, or one a channel."""
    return (number(fill, "fill"),) if shape_of(fill) == () else numbers(fill, "fill")


def fill_of(fill: Fill, x: Array) -> Array:
    """`fill` in the units and type of `x` and where `x` is, (C,1,1) or (1,1,1)."""
    values = np.asarray(fill, np.float64)
    if len(values) not in (1, x.shape[1]):
        raise ValueError(f"fill: expected one number, or one for each of {x.shape[1]} channels, got {fill!r}")
    if x.dtype == np.uint8:
        if not ((values >= 0) & (values <= 1)).all():
            raise ValueError(f"fill: expected numbers in [0, 1] for uint8 images (they count as x / 255), got {fill!r}")
        values = np.rint(values * 255)
    y: Array = array_module(x).asarray(values.astype(x.dtype)[:, None, None])
    return y


def _gather(x: Array, rows: Array, columns: Array, fill: Array | None = None) -> Array:
    """y[n,c,i,j] = x[n, c, rows[n,i], columns[n,j]], or fill[c] where that is no pixel: x on the GPU, the indices of NumPy"""
    xp, (N, C, H, W) = array_module(x), x.shape
    n, c = xp.arange(N)[:, None, None, None], xp.arange(C)[:, None, None]
    rows, columns = xp.asarray(rows)[:, None, :, None], xp.asarray(columns)[:, None, None, :]
    y: Array = x[n, c, rows.clip(0, H - 1), columns.clip(0, W - 1)]  # (N,C,H,W)
    if fill is not None:
        inside = (rows >= 0) & (rows < H) & (columns >= 0) & (columns < W)
        y = xp.where(inside, y, fill)
    return y


def _inside(centre: Array, size: int, length: int) -> Array:
    """Which of 0..length-1 lie in the `size` cells around each centre, (N, length) bool."""
    first = centre[:, None] - size // 2
    cells = np.arange(length)
    inside: Array = (cells >= first) & (cells < first + size)
    return inside
