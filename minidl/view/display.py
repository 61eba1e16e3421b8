"""What of images and maps is shown: the window of grey values, the scale of the colours, and no more pixels than are drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from minidl.arguments import numbers, wrong
from minidl.array import Array, is_array, plain_array, to_cpu

Window = tuple[float, float]


def images_and_window(images: Any, window: Any = None, name: str = "images") -> tuple[Array, Window]:
    """Images (N,C,H,W) on the CPU, and the values that are drawn black and white.

    Without a `window` these are the ends of the range: 0 and 1 of floats and bools, those of the type of integers (0 and 255
    of uint8, 0 and 65,535 of uint16). Raises TypeError for what is no array of numbers, ValueError for other axes or none of
    something, for floats beyond [0, 1] without a window, and for a window that is not two numbers, the smaller one first.
    """
    if not is_array(images):
        raise TypeError(f"{name}: expected an array, got {type(images).__name__}")
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"{name}: expected (N,C,H,W), none of these 0, got shape {images.shape}")
    images = plain_array(to_cpu(images), name)
    if images.dtype.kind in "SUOcmM":
        raise TypeError(f"{name}: expected an array of numbers, got {images.dtype}")
    if window is not None:
        low, high = numbers(window, "window", length=2)
        if not low < high:
            wrong(ValueError, "window", "(low, high) with low < high", window)
        return images, (low, high)
    if images.dtype.kind in "iu":
        return images, (float(np.iinfo(images.dtype).min), float(np.iinfo(images.dtype).max))
    finite = images[np.isfinite(images)]
    if finite.size and not (finite.min() >= -1e-5 and finite.max() <= 1 + 1e-5):
        raise ValueError(
            f"{name}: expected integers or [0, 1], as they were before normalising, got {finite.min():.3g} to "
            f"{finite.max():.3g}; of another range say window=(low, high)"
        )
    return images, (0.0, 1.0)


def for_the_eye(image: Array, window: Window | None = None) -> Array:
    """(C,H,W) -> (H,W) grey or (H,W,3) red, green, blue in [0, 1]; of 2 channels the first, of more than 3 the first three.

    Without a window, uint8 goes from 0 to 255 and all else from 0 to 1. NaN and infinity stay NaN.
    """
    low, high = window or ((0, 255) if image.dtype == np.uint8 else (0, 1))
    x = np.asarray(image[: 1 if len(image) < 3 else 3], np.float64)
    x = np.where(np.isfinite(x), np.clip((x - low) / (high - low), 0, 1), np.nan)
    return x[0] if len(x) == 1 else x.transpose(1, 2, 0)


def values_of(values: Any, name: str, shape: tuple[int, ...]) -> Array:
    """Maps (N,H,W) on the CPU, bool or float64 with NaN for what is not finite. Raises TypeError or ValueError for others."""
    if not is_array(values):
        raise TypeError(f"{name}: expected an array, got {type(values).__name__}")
    if values.shape != shape:
        raise ValueError(f"{name}: expected a map for each image, shape {shape}, got {values.shape}")
    values = plain_array(to_cpu(values), name)
    if values.dtype == bool:
        return values
    if values.dtype.kind in "SUOcmM":
        raise TypeError(f"{name}: expected an array of numbers, got {values.dtype}")
    values = values.astype(np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def rows_of(values: Any, name: str, shape: tuple[int | None, ...]) -> Array:
    """An array of numbers on the CPU, of a shape whose None may be anything. Raises TypeError or ValueError for others."""
    values = plain_array(to_cpu(values) if is_array(values) else values, name)
    fits = len(values.shape) == len(shape) and all(want in (None, got) for want, got in zip(shape, values.shape, strict=True))
    if values.dtype.kind not in "fiub" and not np.issubdtype(values.dtype, np.floating):
        raise TypeError(f"{name}: expected an array of numbers, got {values.dtype}")
    if not fits:
        wanted = ", ".join("any" if n is None else str(n) for n in shape)
        raise ValueError(f"{name}: expected shape ({wanted}), got {values.shape}")
    return values


def limit_of(maps: Array) -> float:
    """The end of a scale for all of them; a few bright pixels must not darken all others. NaN does not count."""
    size = np.abs(maps[np.isfinite(maps)])
    return (float(np.quantile(size, 0.995)) or float(size.max()) or 1.0) if size.size else 1.0


def block(pixels: float, dots: float) -> int:
    """The side of the blocks that so many pixels are averaged over to find room on so many dots."""
    return max(1, math.ceil(pixels / dots - 1e-6))


def averaged(values: Array, k: int) -> Array:
    """(...,H,W) -> (...,ceil(H/k),ceil(W/k)): the means of blocks of k by k pixels; those at the ends may be of fewer.

    All that is there counts, and signed values are averaged as values, not as colours. NaN is left out of the means.
    """
    if k == 1:
        return values
    *more, H, W = values.shape
    h, w = -(-H // k), -(-W // k)
    padded = np.full((*more, h * k, w * k), np.nan)
    padded[..., :H, :W] = values
    blocks, axes = padded.reshape(*more, h, k, w, k), (-3, -1)
    known = np.isfinite(blocks)
    counts = known.sum(axes)
    return np.where(counts > 0, np.where(known, blocks, 0).sum(axes) / np.maximum(counts, 1), np.nan)


def of_both_answers(probabilities: Any, classes: Sequence[str]) -> tuple[Any, Sequence[str]]:
    """Of one probability p of a sigmoid (N,1) both, (1 - p, p), with the names of no and yes; all else as it is."""
    if not is_array(probabilities) or probabilities.shape[1:] != (1,):
        return probabilities, classes
    p = to_cpu(probabilities)
    return np.concatenate([1 - p, p], axis=1), classes if len(classes) == 2 else (f"not {classes[0]}", classes[0])
