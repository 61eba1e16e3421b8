"""Augmentation that moves or colours pixels by fractions: rotation, zoom, brightness, contrast, saturation, hue.

As in `augment.py`: f(x, rng) -> x of whole batches (N,C,H,W), all draws made on the CPU, one or a few numbers an image, and the
type of `x` kept. On a GPU the same operations follow each other, so that the images are those of the CPU; the mean that
contrast takes of floats may differ in its last digits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from minidl.arguments import number, numbers, wrong
from minidl.array import Array, array_module
from minidl.data.augment import Fill, checked_fill, checked_shape, fill_of
from minidl.data.share import drawing

FRACTION = 2**16  # steps of a pixel to which positions are rounded: a turn by 90 degrees then meets pixels exactly
PART = 2**18  # values that are gathered at once
GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601
Matrix = tuple[tuple[Array, Array], tuple[Array, Array]]  # of (N,) each


@dataclass(frozen=True, eq=False)
class RandomRotation:
    """Each image turned counter-clockwise about its centre by an angle a, uniform in [-degrees, degrees] or (low, high).

        y[n,c,i,j] = x[n, c, u, v],    u = r + (i - r) cos a + (j - s) sin a,    r = (H - 1) / 2
                                       v = s - (i - r) sin a + (j - s) cos a,    s = (W - 1) / 2

    Between pixels x is bilinear, of the four around (u, v), rounded to 1/65536 of a pixel. What lies outside is `fill`. An
    image that is not square keeps its shape, and loses what is turned out of it. A call f(x, rng) takes and gives x (N,C,H,W).
    Simard, Steinkraus and Platt 2003, "Best Practices for Convolutional Neural Networks Applied to Visual Document Analysis",
    section 2.

    Raises TypeError or ValueError where degrees is neither a number of at least 0 nor (low, high), low <= high, `fill` neither
    a finite number nor one a channel, or x no batch of images.
    """

    degrees: float | tuple[float, float]
    fill: Fill = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.degrees, tuple | list):
            low, high = numbers(self.degrees, "degrees", length=2)
            if low > high:
                wrong(ValueError, "degrees", "(low, high), low <= high", self.degrees)
        else:
            high = number(self.degrees, "degrees", "[0, inf)")
            low = -high
        object.__setattr__(self, "degrees", (low, high))
        object.__setattr__(self, "fill", checked_fill(self.fill))

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        N, *_ = checked_shape(x)
        low, high = self.degrees  # type: ignore[misc]
        a = np.deg2rad(drawing(rng).uniform(low, high, N))
        cos, sin = np.cos(a), np.sin(a)
        return _warped(x, ((cos, sin), (-sin, cos)), self.fill)


@dataclass(frozen=True, eq=False)
class RandomZoom:
    """Each image made larger about its centre by a factor f, uniform in `scale` = (low, high); smaller where f < 1.

        y[n,c,i,j] = x[n, c, r + (i - r) / f, s + (j - s) / f],    r = (H - 1) / 2,    s = (W - 1) / 2

    The shape stays. Bilinear, `fill` and the source as of `RandomRotation`: Simard, Steinkraus and Platt 2003, "Best Practices
    for Convolutional Neural Networks Applied to Visual Document Analysis", section 2. A call f(x, rng) takes and gives x
    (N,C,H,W).

    Raises TypeError or ValueError where scale is no (low, high), 0 < low <= high, `fill` neither a finite number nor one a
    channel, or x no batch of images.
    """

    scale: tuple[float, float] = (0.9, 1.1)
    fill: Fill = 0.0

    def __post_init__(self) -> None:
        low, high = numbers(self.scale, "scale", "(0, inf)", 2)
        if low > high:
            wrong(ValueError, "scale", "(low, high), low <= high", self.scale)
        object.__setattr__(self, "scale", (low, high))
        object.__setattr__(self, "fill", checked_fill(self.fill))

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        N, *_ = checked_shape(x)
        f, none = drawing(rng).uniform(*self.scale, N), np.zeros(N)
        return _warped(x, ((1 / f, none), (none, 1 / f)), self.fill)


@dataclass(frozen=True, eq=False)
class ColorJitter:
    """Each image in another light: four steps, in this order, each with a factor of its own.

        brightness   y = f x                 f uniform in [max(0, 1 - brightness), 1 + brightness]
        contrast     y = m + f (x - m)       f likewise; m, the mean of the whole image, over its channels, too
        saturation   y = g + f (x - g)       f likewise; g = 0.299 R + 0.587 G + 0.114 B in each pixel (ITU-R BT.601)
        hue          y = M(t) x              t uniform in [-hue, hue] of a full turn

    M turns (R,G,B) about the axis of greys, R = G = B, and keeps R + G + B: a third of a turn makes red green, green blue, and
    blue red, and greys stay. Haeberli 1993, "Matrix Operations for Image Processing". Brightness and contrast take any number
    of channels; what saturation and hue of other than three might be nobody knows, and they are refused.

    uint8 is rounded and cut off at 0 and 255 once, behind the four; floats may be of any range, and are not cut off. A step of
    strength 0 is left out. A call f(x, rng) takes and gives x (N,C,H,W).

    Raises TypeError or ValueError for a strength below 0, a hue beyond 0.5, saturation or hue of images of other than 3
    channels, and x that is no batch of images.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __post_init__(self) -> None:
        for name in "brightness", "contrast", "saturation":
            object.__setattr__(self, name, number(getattr(self, name), name, "[0, inf)"))
        object.__setattr__(self, "hue", number(self.hue, "hue", "[0, 0.5]"))

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        N, C, _, _ = checked_shape(x)
        for name in "saturation", "hue":
            if getattr(self, name) and C != 3:
                raise ValueError(f"{name}: expected images of 3 channels, red, green and blue, got {C}: pass {name}=0")
        draws = drawing(rng).random((4, N))  # as many whatever the strengths, so that these do not change each other's
        xp = array_module(x)

        def factor(strength: float, draw: Array) -> Array:
            low = max(0.0, 1 - strength)
            f: Array = xp.asarray((low + (1 + strength - low) * draw).astype(kind)[:, None, None, None])
            return f

        kind = np.dtype(np.float64 if x.dtype == np.float64 else np.float32)
        y = x.astype(kind)
        if self.brightness:
            y = y * factor(self.brightness, draws[0])
        if self.contrast:
            mean = y.mean((1, 2, 3), dtype=np.float64, keepdims=True).astype(kind)
            y = mean + (y - mean) * factor(self.contrast, draws[1])
        if self.saturation:
            r, g, b = (y[:, i : i + 1] * kind.type(weight) for i, weight in enumerate(GREY))
            grey = r + g + b
            y = grey + (y - grey) * factor(self.saturation, draws[2])
        if self.hue:
            y = _turned(y, self.hue * (2 * draws[3] - 1), xp.asarray)
        return _as(y, x.dtype)


def _turned(y: Array, turns: Array, asarray: Callable[[Array], Array]) -> Array:
    """(N,3,H,W) turned about the grey axis: R' = k0 R + k1 G + k2 B, and so on in a circle."""
    t = 2 * np.pi * turns
    third = (1 - np.cos(t)) / 3
    k = [np.cos(t) + third, third - np.sin(t) / np.sqrt(3), third + np.sin(t) / np.sqrt(3)]
    k0, k1, k2 = (asarray(values.astype(y.dtype)[:, None, None]) for values in k)
    out = y.copy()
    for i in range(3):
        out[:, i] = k0 * y[:, i] + k1 * y[:, (i + 1) % 3] + k2 * y[:, (i + 2) % 3]
    return out


def _warped(x: Array, m: Matrix, fill: Fill) -> Array:
    """y[n,c,i,j] = x[n,c,u,v], (u - r, v - s) = m[n] (i - r, j - s), bilinear, `fill` outside."""
    xp, (N, C, H, W) = array_module(x), x.shape
    out = xp.empty_like(x)
    i, j = (xp.asarray(np.arange(length) - (length - 1) / 2) for length in (H, W))
    kind = np.float64 if x.dtype == np.float64 else np.float32
    images = max(1, PART // max(1, C * H * W))
    for first in range(0, N, images):
        part = slice(first, first + images)
        padded = xp.empty((C, len(x[part]), H + 3, W + 3), x.dtype)  # one pixel before, two behind
        padded[:] = fill_of(fill, x)[:, None]
        padded[:, :, 1:-2, 1:-2] = x[part].swapaxes(0, 1)
        (u, a), (v, b) = (
            _position(xp, [xp.asarray(k[part, None, None]) for k in row], i[:, None], j, length, kind)
            for row, length in zip(m, (H, W), strict=True)
        )
        pixels = padded.reshape(C, -1)
        first_of = xp.arange(padded.shape[1])[:, None, None] * ((H + 3) * (W + 3)) + u * (W + 3) + v  # (n,H,W)
        above, right, below, across = (pixels.take(first_of + k, 1).astype(kind) for k in (0, 1, W + 3, W + 4))  # (C,n,H,W)
        above += b * (right - above)
        below += b * (across - below)
        above += a * (below - above)
        out[part] = _as(above, x.dtype).swapaxes(0, 1)
    return out


def _position(xp: Any, k: list[Array], i: Array, j: Array, length: int, kind: type) -> tuple[Array, Array]:
    """Where in the padded image, (n,H,W) whole pixels and the fraction that is left."""
    place = k[0] * i + k[1] * j + (length - 1) / 2
    place = xp.rint(place * FRACTION) / FRACTION
    place = place.clip(-1, length)  # beyond, all is fill
    whole = xp.floor(place)
    return whole.astype(np.int64) + 1, (place - whole).astype(kind)


def _as(y: Array, dtype: np.dtype[Any]) -> Array:
    return array_module(y).rint(y).clip(0, 255).astype(dtype) if dtype == np.uint8 else y.astype(dtype)
