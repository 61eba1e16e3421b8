"""Images that are left on disk, and read when somebody asks for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from minidl.array import Array
from minidl.data.ahead import ahead
from minidl.data.files import How, Image, Paths, common_type, of_type, workers

PART = 16  # images that are read at once where all are gone through


class LazyImages:
    """Stands for an array (N,C,H,W) whose images are read, in threads, when it is indexed: `x[3]`, `x[2:5]`, `x[[7, 1]]`.

    The pixels are those that `image_folder` holds in memory, bit for bit. `image_folder(lazy=True)` makes it; indexing raises
    ValueError where a file has changed since, or cannot be read any more, and OSError where it is gone.

    Args:
        files: N paths.
        how: the way in which they are read.
        shape: (C, H, W) of each image.
        dtype: uint8 or float32.
    """

    ndim = 4

    def __init__(self, files: Paths, how: How, shape: tuple[int, ...], dtype: Any) -> None:
        self.files, self.how = tuple(files), how
        self.shape, self.dtype = (len(self.files), *shape), np.dtype(dtype)

    @property
    def size(self) -> int:
        """The number of values of all images."""
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Any) -> Array:
        if isinstance(index, int | np.integer):
            return self._read(self.files[index])
        picked = np.arange(len(self))[index]
        if picked.ndim != 1:
            raise IndexError(f"images: expected an index or a flat list of them, got {index!r}")
        found = np.empty((len(picked), *self.shape[1:]), self.dtype)
        threads = workers()
        for i, image in enumerate(ahead(self._read, [self.files[k] for k in picked], 2 * threads, threads)):
            found[i] = image
        return found

    def __iter__(self) -> Iterator[Array]:
        return (self[i] for i in range(len(self)))

    def take(self, indices: Sequence[int] | Array) -> LazyImages:
        """Those at the indices (n,), n images (n,C,H,W) that are left on disk."""
        return LazyImages([self.files[i] for i in indices], self.how, self.shape[1:], self.dtype)

    def min(self) -> Any:
        """The least of all pixels."""
        return min(part.min() for part in self._parts())

    def max(self) -> Any:
        """The largest of all pixels."""
        return max(part.max() for part in self._parts())

    def _parts(self) -> Iterator[Array]:
        return (self[i : i + PART] for i in range(0, len(self), PART))

    def _read(self, file: Any) -> Array:
        image = self.how.read(file)
        assert image.pixels is not None
        pixels = of_type(image.pixels, self.dtype)
        if pixels.shape != self.shape[1:] or pixels.dtype != self.dtype:
            raise ValueError(
                f"{file} has changed since it was first read: expected {self.shape[1:]} {self.dtype}, got {pixels.shape} "
                f"{pixels.dtype}"
            )
        return pixels


def images_of(images: list[Image], how: How) -> Array | LazyImages:
    """(N,C,H,W) of these files, in memory where their pixels were kept; uint8 where all files hold it, or else float32.

    The pixels are taken out of `images`, so that they are in memory once.
    """
    dtype, shape = common_type(images), images[0].shape
    if images[0].pixels is None:
        return LazyImages([image.file for image in images], how, shape, dtype)
    held = np.empty((len(images), *shape), dtype)
    for i in reversed(range(len(images))):  # what was allocated last is what the C library gives back
        held[i] = of_type(images[i].pixels, dtype)  # type: ignore[arg-type]
        images[i] = images[i]._replace(pixels=None)
    return held
