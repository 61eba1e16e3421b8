"""Images in one folder a class: root/CLASS/image.png."""

from __future__ import annotations

import os
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.arguments import count, counts, wrong
from minidl.array import Array
from minidl.data.dataset import Dataset

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # channels -> Pillow's name
GREY16 = ("I;16", "I;16L", "I;16B", "I;16N", "I")  # "I": how some readers of Pillow hand out 16-bit greyscale


def image_folder(root: str | os.PathLike[str], size: tuple[int, int] | None = None, channels: int | None = None) -> Dataset:
    """The images of `root/CLASS/*.png` (or jpg, bmp, gif, tif, webp, pgm, ppm), classes and files sorted by name.

    Files of other kinds and names that begin with a dot are passed over. The images are uint8, or, where one of them
    is 16-bit greyscale, float32 in [0, 1]: those keep their depth, as x / 65535.

    Args:
        size: (H, W) to resize every image to (bilinear, with antialiasing); without it their sizes must agree.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA) to convert every image to; without it they must agree.

    Raises:
        FileNotFoundError: there is no such folder, it has no class, or a class has no image.
        ValueError: an image is broken, sizes or channels differ, 16-bit greyscale and `channels` do not go together,
            or `size` or `channels` is none of the above.
        TypeError: these are no integers.
    """
    root = pathlib.Path(root)
    size, channels = _form(size, channels)
    files = _files(root)

    images: list[Array] = []
    for file, _ in files:
        images.append(read_image(file, size, channels))
        first, last = images[0].shape, images[-1].shape  # (C,H,W)
        if first[0] != last[0]:
            raise ValueError(f"{file} has {last[0]} channels, {files[0][0]} has {first[0]}; pass channels= to convert them")
        if first != last:
            raise ValueError(
                f"{file} is {last[1]}x{last[2]} (HxW), {files[0][0]} is {first[1]}x{first[2]}; pass size= to resize them"
            )
    if any(image.dtype == np.float32 for image in images):
        images = [p if p.dtype == np.float32 else p.astype(np.float32) / np.float32(255) for p in images]

    classes = tuple(dict.fromkeys(file.parent.name for file, _ in files))
    labels = np.array([label for _, label in files], np.int64)
    return Dataset(np.stack(images), labels, classes, name=root.name)


def _files(root: pathlib.Path) -> list[tuple[pathlib.Path, int]]:
    """Each image file with the number of its class."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder; expected root/CLASS/image.png")
    folders = sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))
    if not folders:
        raise FileNotFoundError(f"{root} holds no class folder; expected root/CLASS/image.png")
    files = []
    for label, folder in enumerate(folders):
        images = sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))
        if not images:
            raise FileNotFoundError(f"{folder} holds no image; expected files that end in {', '.join(SUFFIXES)}")
        files += [(image, label) for image in images]
    return files


def read_image(file: str | os.PathLike[str], size: tuple[int, int] | None = None, channels: int | None = None) -> Array:
    """One image (C,H,W), uint8 or, for 16-bit greyscale, float32 in [0, 1]; `size` and `channels` as in `image_folder`.

    Raises ValueError where it cannot be read, or an argument cannot be, TypeError for sizes or channels that are no integers,
    and FileNotFoundError where there is none.
    """
    from PIL import Image  # not with minidl: it takes its time

    size, channels = _form(size, channels)
    try:
        with Image.open(file) as opened:
            opened.load()
            image: Image.Image = opened.copy()
    except FileNotFoundError:
        raise
    except Exception as error:  # the decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise ValueError(f"{file} is no image that can be read, it may be cut off or damaged: {error}") from error

    if image.mode in GREY16:
        if channels not in (None, 1):
            raise ValueError(f"{file} is 16-bit greyscale, which has 1 channel, but channels={channels}")
        return _read_grey16(file, image, size)
    image = image.convert(MODES[channels] if channels else _plain_mode(file, image))
    if size is not None:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = np.asarray(image)  # (H,W) or (H,W,C)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _form(size: Any, channels: Any) -> tuple[tuple[int, int] | None, int | None]:
    """The size and the channels that images are to have."""
    if channels is not None:
        channels = count(channels, "channels")
        if channels not in MODES:
            wrong(ValueError, "channels", "1, 3, 4 or None", channels)
    if size is not None:
        H, W = counts(size, "size", length=2)
        size = H, W
    return size, channels


def _read_grey16(file: str | os.PathLike[str], image: Image.Image, size: tuple[int, int] | None) -> Array:
    grey = np.asarray(image).astype(np.float32)  # (H,W)
    if grey.min() < 0 or grey.max() > 65535:
        raise ValueError(f"{file} has grey values from {grey.min():.0f} to {grey.max():.0f}, expected 0..65535")
    grey /= np.float32(65535)
    if size is not None:
        from PIL import Image

        grey = np.asarray(Image.fromarray(grey).resize((size[1], size[0]), Image.Resampling.BILINEAR))
    return grey[None]


def _plain_mode(file: str | os.PathLike[str], image: Image.Image) -> str:
    """The mode of `MODES` that holds what the image holds."""
    if image.mode in ("1", "L"):
        return "L"
    if image.mode == "F":
        raise ValueError(f"{file} holds floating-point pixels, expected 8 bits a channel or 16-bit greyscale")
    return "RGBA" if image.has_transparency_data else "RGB"
