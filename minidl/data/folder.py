"""Pictures in one folder a class: root/CLASS/picture.png."""

from __future__ import annotations

import os
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.arguments import count, counts, wrong
from minidl.array import Array
from minidl.data.dataset import Dataset
from minidl.data.resizing import as_held

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # channels -> Pillow's name
GREY16 = ("I;16", "I;16L", "I;16B", "I;16N", "I")  # "I": how some readers of Pillow hand out 16-bit greyscale


def image_folder(root: str | os.PathLike[str], size: tuple[int, int] | None = None, channels: int | None = None) -> Dataset:
    """The pictures of `root/CLASS/*.png` (or jpg, bmp, gif, tif, webp, pgm, ppm), classes and files sorted by name.

    Files of other kinds and names that begin with a dot are passed over. The pictures are uint8, or, where one of them
    is 16-bit greyscale, float32 in [0, 1]: those keep their depth, as x / 65535.

    Args:
        size: (H, W) to resize every picture to (bilinear, with antialiasing); without it their sizes must agree.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA) to convert every picture to; without it they must agree.

    Raises:
        FileNotFoundError: there is no such folder, it has no class, or a class has no picture.
        ValueError: a picture is broken, sizes or channels differ, 16-bit greyscale and `channels` do not go together,
            or `size` or `channels` is none of the above.
        TypeError: these are no integers.
    """
    root = pathlib.Path(root)
    size, channels = _form(size, channels)
    files = _files(root)

    pictures: list[Array] = []
    for file, _ in files:
        pictures.append(read_picture(file, size, channels))
        first, last = pictures[0].shape, pictures[-1].shape  # (C,H,W)
        if first[0] != last[0]:
            raise ValueError(f"{file} has {last[0]} channels, {files[0][0]} has {first[0]}; pass channels= to convert them")
        if first != last:
            raise ValueError(
                f"{file} is {last[1]}x{last[2]} (HxW), {files[0][0]} is {first[1]}x{first[2]}; pass size= (--size on the "
                "command line) to resize them"
            )
    if any(picture.dtype == np.float32 for picture in pictures):
        pictures = [p if p.dtype == np.float32 else p.astype(np.float32) / np.float32(255) for p in pictures]

    classes = tuple(dict.fromkeys(file.parent.name for file, _ in files))
    labels = np.array([label for _, label in files], np.int64)
    return Dataset(np.stack(pictures), labels, classes, name=root.name)


def _files(root: pathlib.Path) -> list[tuple[pathlib.Path, int]]:
    """Each picture file with the number of its class."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is not a folder; expected root/CLASS/picture.png")
    folders = sorted(f for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))
    if not folders:
        raise FileNotFoundError(f"{root} holds no class folder; expected root/CLASS/picture.png")
    files = []
    for label, folder in enumerate(folders):
        pictures = sorted(f for f in folder.iterdir() if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))
        if not pictures:
            raise FileNotFoundError(f"{folder} holds no picture; expected files that end in {', '.join(SUFFIXES)}")
        files += [(picture, label) for picture in pictures]
    return files


def read_picture(file: str | os.PathLike[str], size: tuple[int, int] | None = None, channels: int | None = None) -> Array:
    """One picture (C,H,W), uint8 or, for 16-bit greyscale, float32 in [0, 1]; `size` and `channels` as in `image_folder`.

    Raises ValueError where it cannot be read, or an argument cannot be, TypeError for sizes or channels that are no integers,
    and FileNotFoundError where there is none.
    """
    from PIL import Image  # not with minidl: it takes its time

    size, channels = _form(size, channels)
    try:
        with Image.open(file) as opened:
            opened.load()
            picture: Image.Image = opened.copy()
    except FileNotFoundError:
        raise
    except Exception as error:  # the decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise ValueError(f"{file} is no picture that can be read, it may be cut off or damaged: {error}") from error

    if picture.mode in GREY16:
        if channels not in (None, 1):
            raise ValueError(f"{file} is 16-bit greyscale, which has 1 channel, but channels={channels}")
        pixels = _read_grey16(file, picture)
    else:
        pixels = np.asarray(picture.convert(MODES[channels] if channels else _plain_mode(file, picture)))  # (H,W) or (H,W,C)
    return as_held(pixels[..., None] if pixels.ndim == 2 else pixels, size)


def _form(size: Any, channels: Any) -> tuple[tuple[int, int] | None, int | None]:
    """The size and the channels that pictures are to have."""
    if channels is not None:
        channels = count(channels, "channels")
        if channels not in MODES:
            wrong(ValueError, "channels", "1, 3, 4 or None", channels)
    if size is not None:
        H, W = counts(size, "size", length=2)
        size = H, W
    return size, channels


def _read_grey16(file: str | os.PathLike[str], picture: Image.Image) -> Array:
    grey = np.asarray(picture).astype(np.float32)  # (H,W)
    if grey.min() < 0 or grey.max() > 65535:
        raise ValueError(f"{file} has grey values from {grey.min():.0f} to {grey.max():.0f}, expected 0..65535")
    grey /= np.float32(65535)
    return grey


def _plain_mode(file: str | os.PathLike[str], picture: Image.Image) -> str:
    """The mode of `MODES` that holds what the picture holds."""
    if picture.mode in ("1", "L"):
        return "L"
    if picture.mode == "F":
        raise ValueError(f"{file} holds floating-point pixels, expected 8 bits a channel or 16-bit greyscale")
    return "RGBA" if picture.has_transparency_data else "RGB"
