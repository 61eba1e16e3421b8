"""Generated large images with a small lesion, or none: what a net must see of it is lost where the image is made smaller."""

from __future__ import annotations

import numpy as np

from minidl.arguments import count
from minidl.array import Array
from minidl.data.dataset import Dataset

CLASSES = ("healthy", "lesion")
LARGER = (2.0, 5.0)  # distractors, in diameters of the lesion
APART = 32  # diameters: of every square of so many there is one distractor on average, and two more
DEEP = (0.25, 0.35)  # the centre of a lesion or a distractor below its surroundings
TEXTURE, NOISE = 0.04, 0.02  # standard deviations
MARGIN = 1.0  # diameters of the lesion that lie between it and everything else


def spots(n: int, size: int = 512, diameter: int = 16, seed: int = 0, first: int = 0) -> Dataset:
    """`n` generated grey images (n,1,size,size) uint8, labels 0 "healthy" and 1 "lesion" in turn, and the mask "lesion".

    A lesion is a dark spot in a light ring, `diameter` pixels across. Distractors are the same, 2 to 5 times as large, and as
    many in both classes. So lesions are told by their size alone: lightest and darkest pixel, mean and histogram say next to
    nothing, and where an image is made so small that a lesion is a pixel, it is gone, as its light and its dark cancel. With r
    the distance from its centre in radii, a spot is

        -depth (1 - 4 r^2) exp(-4 r^2)

    the Laplacian of a Gaussian (Marr and Hildreth 1980, "Theory of edge detection"), which adds up to 0. Spots lie apart, on a
    1/f texture. The mask (n,size,size) is what lies in the circle of a lesion.

    Image i depends on (seed, i) alone; `first` is that of the first image, so that a set that is too large for the memory is
    drawn in parts. Raises TypeError or ValueError for n < 1, diameter < 8, size below 16 diameters, seed or first < 0, and what
    are no integers.
    """
    n, diameter, seed = count(n, "n"), count(diameter, "diameter", 8), count(seed, "seed", 0)
    size, first = count(size, "size", 16 * diameter), count(first, "first", 0)
    images, masks = np.empty((n, 1, size, size), np.uint8), np.zeros((n, size, size), bool)
    labels = np.arange(first, first + n, dtype=np.int64) % 2
    for i in range(n):
        rng = np.random.default_rng((seed, first + i))
        image = 0.55 + TEXTURE * _one_over_f(rng, size) + NOISE * rng.standard_normal((size, size), np.float32)
        for number, (y, x, d) in enumerate(_places(rng, size, diameter, bool(labels[i]))):
            _add_spot(image, y, x, d, rng.uniform(*DEEP))
            if labels[i] and number == 0:
                masks[i] = _distances(size, y, x) <= d / 2
        images[i, 0] = np.rint(255 * image.clip(0, 1))
    return Dataset(images, labels, CLASSES, {"lesion": masks}, name=f"spots {size}x{size}")


def _places(rng: np.random.Generator, size: int, diameter: int, lesion: bool) -> list[tuple[float, float, float]]:
    """Centre and diameter of each spot, a lesion first. What finds no room after some tries is left out."""
    found = list[tuple[float, float, float]]()
    sizes = diameter * rng.uniform(*LARGER, 2 + rng.poisson((size / (APART * diameter)) ** 2))
    for d in [*([diameter] if lesion else []), *sizes]:
        for y, x in rng.uniform(d, size - d, (50, 2)):
            if all(np.hypot(y - v, x - u) > (d + e) / 2 + MARGIN * diameter for v, u, e in found):
                found.append((float(y), float(x), float(d)))
                break
    return found


def _add_spot(image: Array, y: float, x: float, diameter: float, depth: float) -> None:
    """Where it is not 0: up to two radii from its centre, where it is a millionth."""
    top, left = max(0, int(y - diameter)), max(0, int(x - diameter))
    part = image[top : int(y + diameter) + 1, left : int(x + diameter) + 1]
    rows, columns = np.indices(part.shape, np.float32)
    r2 = ((rows + np.float32(top + 0.5 - y)) ** 2 + (columns + np.float32(left + 0.5 - x)) ** 2) / np.float32(diameter / 2) ** 2
    part -= depth * (1 - 4 * r2) * np.exp(-4 * r2)


def _distances(size: int, y: float, x: float) -> Array:
    """(size,size), of each pixel's middle from the point"""
    middle = np.arange(size) + 0.5
    return np.hypot(middle[:, None] - y, middle - x)


def _one_over_f(rng: np.random.Generator, size: int) -> Array:
    """(size,size) float32 of mean 0 and standard deviation 1, whose amplitudes fall as 1/f"""
    spectrum = np.fft.rfft2(rng.standard_normal((size, size), np.float32))
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    f[0, 0] = np.inf
    texture = np.fft.irfft2(spectrum / f, (size, size))
    scaled: Array = (texture / texture.std()).astype(np.float32)
    return scaled
