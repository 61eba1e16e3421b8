"""One image from a file: its depth is kept, its channels are those that were asked for."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import numpy as np

from minidl.arguments import count, counts, wrong
from minidl.array import Array
from minidl.data.decoding import decode, is_dicom, pillow
from minidl.data.dicom import decode_dicom
from minidl.data.windows import Window, checked_window, windowed

CHANNELS = (1, 3, 4)


def read_image(
    file: str | os.PathLike[str],
    channels: int | None = None,
    page: int | None = None,
    window: Window | None = None,
) -> Array:
    """The image (H,W,C) in the file, upright as Exif says: uint8, uint16 or float32, as the file holds.

    BMP, GIF, JPEG, PNG, PPM, TIFF, WebP, and `.npy` of (H,W) or (H,W,C). Floats, and integers of 32 bits or with a sign, come
    as they are, float32 of any range; nothing is scaled. Opaque alpha is dropped. Palettes become colours, bits 0 and 255.

    DICOM, by pydicom (`pip install "minidl[dicom]"`): stored values become slope * stored + intercept. Then the window of grey
    values that the file names, the first of several, is cut out as the standard says (PS3.3, C.11.2.1), uint16 from black 0 to
    white 65535. Where it names none, unsigned integers that were not rescaled come as they are, others as float32. MONOCHROME1,
    in which low values are white, is inverted after that. Frames are pages.

    Args:
        channels: 1, 3 or 4 to convert to grey, Y = 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), to RGB or to RGBA; without it 1
            or 3, as the file holds. 3 also converts from CMYK.
        page: which image of a file with several, from 0. Without it they must not be several, but for a JPEG with previews
            (MPO), which gives its photograph.
        window: (low, high), the grey values that become black and white, in the numbers of the file; of DICOM in those after
            rescaling, Hounsfield units in CT. uint16, round(65535 min(max((x - low) / (high - low), 0), 1)).

    Raises:
        UnreadableError: a ValueError; the file is damaged, none of these formats, DICOM without pixels or of a compression for
            which a package is missing, or holds NaN.
        ValueError: it holds several pages, CMYK, or pixels that are transparent, and the arguments do not say what to make of
            that; it has colours, and a window is given; or an argument cannot be.
        TypeError: channels or page is no integer, or a window no pair of numbers.
        OSError: there is no such file, or it may not be read.
    """
    channels = checked_channels(channels)
    page = None if page is None else count(page, "page", 0)
    window = checked_window(window)
    raw = pathlib.Path(file).read_bytes()
    if is_dicom(raw):
        pixels, window = decode_dicom(file, raw, page, window), None
    else:
        pixels = decode(file, raw, page, ink=channels in (1, 3))
    pixels = pixels.reshape(*pixels.shape[:2], -1)  # (H,W,C)
    if pixels.shape[2] in (2, 4) and channels != 4:
        if not (pixels[..., -1] == _opaque(pixels)).all():
            raise ValueError(
                f"{file} has transparent pixels: pass channels=4 (--channels 4), which keeps them so, or put the image on a "
                "background"
            )
        pixels = pixels[..., :-1]
    if window is not None:
        if pixels.shape[2] != 1:
            raise ValueError(
                f"window: {file} has {pixels.shape[2]} channels, and a window is of grey values: convert it to grey"
            )
        pixels = windowed(pixels, *window)
    return np.ascontiguousarray(pixels if channels is None else _converted(pixels, channels))


def load_image(
    file: str | os.PathLike[str],
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    page: int | None = None,
    window: Window | None = None,
) -> Array:
    """The image (C,H,W) as `image_folder` holds it: uint8; float32 in [0, 1] of 16 bits, x / 65535; other floats as they are.

    size: (H, W) to resize to, bilinear, with antialiasing. The rest, and what is raised, as in `read_image`.
    """
    if size is not None:
        H, W = counts(size, "size", length=2)
        size = H, W
    return as_held(read_image(file, channels, page, window), size)


def as_held(pixels: Array, size: tuple[int, int] | None) -> Array:
    """(H,W,C) as `read_image` gives it -> (C,H,W) as a dataset holds it, resized where there is a size."""
    if pixels.dtype == np.uint16:
        pixels = pixels.astype(np.float32) / np.float32(65535)
    if size is not None and pixels.shape[:2] != size:
        pixels = _resized(pixels, *size)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def checked_channels(channels: Any) -> int | None:
    if channels is not None and count(channels, "channels") not in CHANNELS:
        wrong(ValueError, "channels", "1, 3, 4 or None", channels)
    return None if channels is None else int(channels)


def _opaque(pixels: Array) -> float:
    """The alpha of what hides all behind it."""
    return 1.0 if pixels.dtype == np.float32 else np.iinfo(pixels.dtype).max


def _converted(pixels: Array, channels: int) -> Array:
    """(H,W,C) with 1 to 4 channels, of which 2 and 4 end in alpha."""
    C = pixels.shape[2]
    if channels == 1 and C == 3:
        return _grey(pixels)
    colour = np.repeat(pixels[..., :1], 3, 2) if channels > 1 and C < 3 else pixels[..., :3]
    if channels < 4:
        return colour
    alpha = pixels[..., -1:] if C in (2, 4) else np.full_like(pixels[..., :1], _opaque(pixels))
    return np.concatenate([colour, alpha], 2)


def _grey(pixels: Array) -> Array:
    """(H,W,3) -> (H,W,1). Integers are rounded as Pillow does, with weights of 16 bits."""
    if pixels.dtype == np.float32:
        return (pixels @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
    weighted = pixels.astype(np.uint64) @ np.array([19595, 38470, 7471], np.uint64)
    return ((weighted + np.uint64(0x8000)) >> np.uint64(16)).astype(pixels.dtype)[..., None]


def _resized(pixels: Array, H: int, W: int) -> Array:
    """(H,W,C), bilinear with antialiasing; what is transparent does not colour its neighbours."""
    module = pillow()

    def resized(a: Array) -> Array:
        return np.asarray(module.fromarray(a).resize((W, H), module.Resampling.BILINEAR))

    if pixels.dtype == np.uint8 and pixels.shape[2] in CHANNELS:
        return resized(pixels[..., 0] if pixels.shape[2] == 1 else pixels).reshape(H, W, -1)
    channels = [resized(np.ascontiguousarray(channel)) for channel in _premultiplied(pixels).transpose(2, 0, 1)]
    return _premultiplied(np.dstack(channels), divide=True)


def _premultiplied(pixels: Array, divide: bool = False) -> Array:
    """(H,W,4) with the colours times their alpha, or back; others as they are."""
    if pixels.shape[2] != 4:
        return pixels
    colour, alpha = pixels[..., :3], pixels[..., 3:]
    colour = np.divide(colour, alpha, out=np.zeros_like(colour), where=alpha > 0) if divide else colour * alpha
    return np.concatenate([colour, alpha], 2)
