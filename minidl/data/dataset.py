"""A labelled set of images, held in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from minidl.arguments import count, counts, numbers
from minidl.array import Array


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images with one label each, and optional masks that say where something is.

    Args:
        images: (N,C,H,W), uint8 in 0..255, or float32, by convention in [0, 1].
        labels: (N,) int64, indices into `classes`.
        classes: the name of each class.
        masks: name -> (N,H,W) bool.
        name: what the set is called in messages and plots.

    Raises:
        TypeError: an array is of another type, or `classes` is a single string.
        ValueError: shapes disagree, the set is empty, a label is out of range, or a float image is not finite.
    """

    images: Array
    labels: Array
    classes: tuple[str, ...]
    masks: Mapping[str, Array] = field(default_factory=dict)
    name: str = "dataset"

    def __post_init__(self) -> None:
        _check_array("images", self.images, 4, (np.uint8, np.float32))
        N, _, H, W = self.images.shape
        if self.images.size == 0:
            raise ValueError(f"images: expected at least one pixel, got shape {self.images.shape}")
        if self.images.dtype == np.float32 and not np.isfinite(self.images).all():
            bad = np.flatnonzero(~np.isfinite(self.images).all((1, 2, 3)))
            raise ValueError(f"images: hold NaN or infinity in {len(bad)} of {N} images, first in image {bad[0]}")

        _check_array("labels", self.labels, 1, (np.int64,))
        if len(self.labels) != N:
            raise ValueError(f"labels: expected {N}, one for each of the images, got {len(self.labels)}")
        if isinstance(self.classes, str) or not all(isinstance(c, str) for c in self.classes):
            raise TypeError(f"classes: expected a tuple of strings, got {self.classes!r}")
        low, high, K = self.labels.min(), self.labels.max(), len(self.classes)
        if low < 0 or high >= K:
            raise ValueError(f"labels: expected 0 to {K - 1}, as there are {K} classes, got {low} to {high}")

        for name, mask in self.masks.items():
            _check_array(f"masks[{name!r}]", mask, 3, (np.bool_,))
            if mask.shape != (N, H, W):
                raise ValueError(f"masks[{name!r}]: expected shape {(N, H, W)}, got {mask.shape}")

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        shape, dtype = self.images.shape, self.images.dtype
        return f"Dataset({self.name!r}, images {shape} {dtype}, {len(self.classes)} classes, masks {list(self.masks)})"

    def take(self, indices: Sequence[int] | Array) -> Dataset:
        """The images at `indices`, (n,) of 0..N-1, in that order, copied: n images (n,C,H,W).

        Raises TypeError for indices that are not integers, IndexError for one out of range, and ValueError for none.
        """
        picked = np.asarray(indices if isinstance(indices, np.ndarray) else counts(indices, "indices", None))
        if picked.ndim != 1 or (picked.size > 0 and not np.issubdtype(picked.dtype, np.integer)):
            raise TypeError(f"indices: expected a flat list of integers, got {picked.ndim}-D {picked.dtype}")
        if picked.size == 0:
            raise ValueError("indices: expected at least one, got none")
        if picked.min() < 0 or picked.max() >= len(self):
            raise IndexError(f"indices: expected 0 to {len(self) - 1}, got {picked.min()} to {picked.max()}")
        masks = {name: mask[picked] for name, mask in self.masks.items()}
        return Dataset(self.images[picked], self.labels[picked], self.classes, masks, self.name)

    def split(self, fractions: Sequence[float], seed: int = 0) -> list[Dataset]:
        """Disjoint random parts that together are the whole, `fractions` (summing to 1) of it each.

        Raises ValueError for fractions that do not sum to 1, or outside (0, 1], a seed below 0, and where a part would be
        empty, TypeError for what are no numbers.
        """
        parts = np.asarray(numbers(fractions, "fractions", "(0, 1]"))
        if abs(parts.sum() - 1) > 1e-9:
            raise ValueError(f"fractions: expected numbers that sum to 1, got {fractions!r}")
        order = np.random.default_rng(count(seed, "seed", 0)).permutation(len(self))
        ends = np.rint(np.cumsum(parts) * len(self)).astype(np.int64)
        pieces = np.split(order, ends[:-1])
        if any(len(piece) == 0 for piece in pieces):
            raise ValueError(f"{len(self)} images cannot be split into {fractions!r}: a part would be empty")
        return [self.take(piece) for piece in pieces]

    def mean_std(self) -> tuple[Array, Array]:
        """Mean and standard deviation of each channel over images and pixels, (C,) float32 each.

        uint8 images count as x/255, so that the numbers are those that `Normalize` takes.
        """
        scale = 255.0 if self.images.dtype == np.uint8 else 1.0
        chunks = [self.images[i : i + 1024] for i in range(0, len(self), 1024)]  # float64 copies stay small
        count = self.images.size / self.images.shape[1]
        mean = sum(np.sum(x, axis=(0, 2, 3), dtype=np.float64) for x in chunks) / count
        square = sum(np.sum((x - mean[:, None, None]) ** 2, axis=(0, 2, 3), dtype=np.float64) for x in chunks) / count
        return (mean / scale).astype(np.float32), (np.sqrt(square) / scale).astype(np.float32)


def _check_array(name: str, value: object, ndim: int, dtypes: tuple[type[np.generic], ...]) -> None:
    names = " or ".join(np.dtype(d).name for d in dtypes)
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name}: expected a NumPy array of {names}, got {type(value).__name__}")
    if value.dtype not in dtypes:
        raise TypeError(f"{name}: expected {names}, got {value.dtype}")
    if value.ndim != ndim:
        raise ValueError(f"{name}: expected {ndim} axes, got shape {value.shape}")
