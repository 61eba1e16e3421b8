"""Many image files at once: read in threads, with a bar, and made alike."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from minidl.arguments import count, counts
from minidl.array import Array
from minidl.data.ahead import ahead
from minidl.data.decoding import UnreadableError, pillow
from minidl.data.reading import as_held, checked_channels, read_image
from minidl.data.windows import Window, checked_window

Paths = Sequence[pathlib.Path]


class Image(NamedTuple):
    """What was read of a file, and the type of its pixels before they were scaled"""

    file: pathlib.Path
    shape: tuple[int, ...]  # (C,H,W)
    dtype: np.dtype[Any]
    pixels: Array | None  # None where they are not kept


@dataclass(frozen=True)
class How:
    """The way in which every file of a set is read, as `load_image` takes it."""

    size: tuple[int, int] | None = None
    channels: int | None = None
    page: int | None = None
    window: Window | None = None

    def __post_init__(self) -> None:
        checked_channels(self.channels)
        if self.size is not None:
            object.__setattr__(self, "size", counts(self.size, "size", length=2))
        if self.page is not None:
            object.__setattr__(self, "page", count(self.page, "page", 0))
        object.__setattr__(self, "window", checked_window(self.window))

    def read(self, file: pathlib.Path, keep: bool = True) -> Image:
        pixels = read_image(file, self.channels, self.page, self.window)
        held = as_held(pixels, self.size)
        return Image(file, held.shape, pixels.dtype, held if keep else None)


def workers() -> int:
    """How many threads read files."""
    return min(os.cpu_count() or 1, 8)


def read_alike(files: Paths, how: How, desc: str, keep: bool = True) -> Generator[Image | Exception]:
    """Every file in turn, all of one shape, or what is wrong with it; `keep`: with the pixels.

    Raises ValueError where two differ in size, channels or range.
    """
    from minidl.bar import Bar  # not with minidl: tqdm takes its time

    def read(file: pathlib.Path) -> Image | Exception:
        try:
            return how.read(file, keep)
        except (UnreadableError, OSError) as error:
            return error

    pillow()  # loads its readers once, and not in every thread
    results = ahead(read, files, 2 * workers(), workers())
    bar = Bar(results, desc=desc, total=len(files), leave=False, disable=None)
    first: Image | None = None
    try:
        for image in bar:
            if isinstance(image, Image):
                first = first or image
                _check_alike(first, image)
            yield image
    finally:
        bar.close()
        results.close()


def common_type(images: Sequence[Image]) -> np.dtype[Any]:
    """uint8 where all files hold it, or else float32."""
    return np.dtype(np.uint8 if all(image.dtype == np.uint8 for image in images) else np.float32)


def of_type(pixels: Array, dtype: np.dtype[Any]) -> Array:
    """8 bits as x / 255 where they stand among more."""
    return pixels.astype(np.float32) / np.float32(255) if pixels.dtype == np.uint8 != dtype else pixels


def _check_alike(first: Image, image: Image) -> None:
    """Both have the same shape (C,H,W), and both any range or both not."""
    (C, H, W), (c, h, w) = first.shape, image.shape
    if c != C:
        raise ValueError(
            f"{image.file} has {c} channels, {first.file} has {C}; pass channels=3 (--channels 3), or 1, to convert them"
        )
    if (h, w) != (H, W):
        raise ValueError(
            f"{image.file} is {h}x{w} (HxW), {first.file} is {H}x{W}; pass size=({H}, {W}) (--size {max(H, W)}) to resize them"
        )
    if (image.dtype == np.float32) != (first.dtype == np.float32):
        floats, whole = (image, first) if image.dtype == np.float32 else (first, image)
        raise ValueError(
            f"{floats.file} holds floats or signed integers of any range, {whole.file} holds {whole.dtype}: convert one of them"
        )
