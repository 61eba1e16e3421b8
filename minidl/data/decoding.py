"""From the bytes of a file to the numbers that it holds: (H,W) or (H,W,C), upright, no bit dropped.

Pillow decodes, and NumPy's `.npy`; `dicom.py` has DICOM. Of 16 bits a colour, Pillow keeps 8; see `_deep`.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from minidl.array import Array

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # those that Pillow reads at the depth that they have
GREY16 = ("I;16", "I;16L", "I;16B", "I;16N")
NPY = b"\x93NUMPY"
TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ORIENTATION = 274  # tags of TIFF, this one of Exif, too
BITS, PHOTOMETRIC, PLANAR, EXTRA_SAMPLES, SAMPLE_FORMAT = 258, 262, 284, 338, 339
WHITE_IS_ZERO, SEPARATE, SIGNED = 0, 2, 2
EXACT = 2**24  # float32 tells all integers up to here apart


class UnreadableError(ValueError):
    """A file that is no image, or none that can be read: a folder passes over it."""


def decode(file: str | os.PathLike[str], raw: bytes, page: int | None, ink: bool) -> Array:
    """The image (H,W) or (H,W,C) of a file of these bytes, C of 2 and 4 with alpha last; uint8, uint16 or float32.

    ink: whether CMYK may be converted to RGB. Raises UnreadableError for what is no image that can be read, and ValueError
    where `page` or `ink` has to be told.
    """
    if not raw:
        raise UnreadableError(f"{file} is empty, 0 bytes")
    pixels = _npy(file, raw, page) if raw.startswith(NPY) else _by_pillow(file, raw, page, ink)
    check_finite(file, pixels)
    return pixels


def check_finite(file: str | os.PathLike[str], pixels: Array) -> None:
    if pixels.dtype == np.float32 and not np.isfinite(pixels).all():
        raise UnreadableError(f"{file} holds NaN or infinity, or what float32 cannot hold")


def is_dicom(raw: bytes) -> bool:
    """Whether these are the first bytes of a DICOM file: anything in 128 bytes, then DICM."""
    return raw[128:132] == b"DICM"


# ---- .npy


MOST_CHANNELS = 16  # of an array; more are rows or columns in the place of channels


def _npy(file: str | os.PathLike[str], raw: bytes, page: int | None) -> Array:
    check_page(file, page, 1)
    with decoding(file):
        a: Array = np.load(io.BytesIO(raw), allow_pickle=False)
    if a.dtype == bool:
        a = a.astype(np.uint8) * np.uint8(255)
    if a.dtype.kind == "f":
        with np.errstate(over="ignore"):
            a = a.astype(np.float32)
    if a.dtype.newbyteorder("=") not in (np.uint8, np.uint16, np.float32):
        raise UnreadableError(f"{file} holds {a.dtype}, expected uint8, uint16 or floats: a.astype(np.float32)")
    if a.ndim not in (2, 3) or 0 in a.shape or (a.ndim == 3 and (a.shape[2] == 2 or a.shape[2] > MOST_CHANNELS)):
        advice = ": np.save('x.npy', a.transpose(1, 2, 0))" if a.ndim == 3 and a.shape[0] in (1, 3, 4) else ""
        raise UnreadableError(
            f"{file} holds shape {a.shape}, expected (H,W) or (H,W,C) with 1 or 3 to {MOST_CHANNELS} channels{advice}"
        )
    return np.ascontiguousarray(a, a.dtype.newbyteorder("="))


# ---- Pillow


@cache
def pillow() -> Any:
    """PIL.Image with all its readers; not with minidl, because it takes its time."""
    from PIL import Image

    Image.init()
    return Image


def _by_pillow(file: str | os.PathLike[str], raw: bytes, page: int | None, ink: bool) -> Array:
    with _open(file, raw) as image:
        with decoding(file):
            pages = getattr(image, "n_frames", 1)
        if page is None and image.format == "MPO":
            page = 0  # the photograph; the others are its previews
        page = check_page(file, page, pages)
        with decoding(file):
            image.seek(page)
        if image.mode == "CMYK" and not ink:
            raise ValueError(
                f"{file} is CMYK, colours of ink: pass channels=3 (--channels 3), which converts without a profile"
            )
        with decoding(file):
            return _upright(_pixels(file, raw, page, image), image)


def _open(file: str | os.PathLike[str], raw: bytes) -> Image.Image:
    with decoding(file):
        try:
            image: Image.Image = pillow().open(io.BytesIO(raw), formats=FORMATS)
        except pillow().UnidentifiedImageError as error:
            if raw.startswith(TIFF) and (why := _unknown_tiff(raw)):
                raise UnreadableError(
                    f"{file} is a TIFF of a kind that Pillow does not read ({why}): convert it with tifffile, "
                    "np.save('x.npy', tifffile.imread(file))"
                ) from error
            if kind := _other_format(raw):
                raise UnreadableError(f"{file} is {kind}, which is not read: convert it to PNG or TIFF") from error
            raise
    return image


@contextmanager
def decoding(file: str | os.PathLike[str]) -> Iterator[None]:
    """Inside, whatever a decoder raises (OSError, SyntaxError, struct.error, ...) says that the file cannot be read."""
    try:
        yield
    except (MemoryError, UnreadableError):
        raise
    except Exception as error:
        said = " ".join(str(error).split()).split(" <_io.BytesIO")[0]  # Pillow names the bytes, not the file
        raise UnreadableError(f"{file} is no image that can be read, it may be cut off or damaged: {said}") from error


def _unknown_tiff(raw: bytes) -> str:
    """What Pillow says of a TIFF that is whole, and that it cannot read all the same."""
    from PIL import TiffImagePlugin

    try:
        TiffImagePlugin.TiffImageFile(io.BytesIO(raw))
    except SyntaxError as error:
        return str(error) if "unknown" in str(error) else ""
    except Exception:
        pass
    return ""


def _other_format(raw: bytes) -> str | None:
    """The name of a format that Pillow knows, and that is none of `FORMATS`."""
    try:
        with pillow().open(io.BytesIO(raw)) as image:
            return str(image.format)
    except Exception:
        return None


def check_page(file: str | os.PathLike[str], page: int | None, pages: int) -> int:
    if page is None and pages > 1:
        raise ValueError(f"{file} holds {pages} pages: pass page=0 (--page 0) for the first, up to {pages - 1}")
    if page is not None and page >= pages:
        raise ValueError(f"page: {file} holds {pages} page{'s' * (pages > 1)}, expected 0 to {pages - 1}, got {page}")
    return page or 0


def _check_tags(file: str | os.PathLike[str], tags: Any) -> None:
    """Raises UnreadableError for a TIFF of which Pillow would leave something out."""
    extra = np.atleast_1d(tags.get(EXTRA_SAMPLES, ()))
    if 0 in extra:
        raise UnreadableError(
            f"{file} holds {len(extra)} more channel{'s' * (len(extra) > 1)} than its colours, and does not say what of: "
            "keep what you want, np.save('x.npy', tifffile.imread(file)[..., :1])"
        )
    bits = np.atleast_1d(tags.get(BITS, 1))
    if tags.get(PLANAR) == SEPARATE and len(bits) > 1 and max(bits) > 8:
        raise UnreadableError(
            f"{file} holds {max(bits)} bits a colour in planes, which Pillow does not read: convert it with tifffile, "
            "np.save('x.npy', tifffile.imread(file).transpose(1, 2, 0))"
        )


def _rawmode(tile: Any) -> str:
    """How the bytes of a file are laid out, as Pillow calls it: "RGB;16B"."""
    args = tile[3]
    return str(args[0] if isinstance(args, tuple) and args else args)


def _pixels(file: str | os.PathLike[str], raw: bytes, page: int, image: Any) -> Array:
    """The numbers of an image that is open at this page."""
    tags = image.tag_v2 if image.format == "TIFF" else {}
    _check_tags(file, tags)
    rawmode = _rawmode(image.tile[0]) if image.tile else ""
    if image.mode not in ("L", "I", *GREY16) and re.fullmatch(r"\w+;16[BLN]", rawmode):
        return _deep(file, raw, page, image, rawmode)
    if image.mode == "RGB" and image.tile and image.tile[0][0].startswith("ppm") and image.tile[0][3][-1] > 255:
        return _deep_ppm(file, raw, image)
    if image.tile and image.tile[0][0] == "libtiff":  # which hands out bytes in the order of the machine, not of the file
        image.tile = [_by_rawmode(tile, re.sub(r"(16|32)B([SF])$", r"\1N\2", rawmode)) for tile in image.tile]
    image.load()
    signed = SIGNED in np.atleast_1d(tags.get(SAMPLE_FORMAT, 1))
    if image.mode in ("1", "L"):
        grey = np.asarray(image.convert("L"))
        if signed:
            return grey.view(np.int8).astype(np.float32)
        return _with_transparent(image, grey, rawmode)
    if image.mode in GREY16:
        grey = np.asarray(image).astype(np.uint16)
        if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
            grey = np.uint16(65535) - grey
        return _with_transparent(image, grey, rawmode)
    if image.mode == "I":
        if image.format != "TIFF":  # 16 bits, as some versions of Pillow hand them out
            return _with_transparent(image, np.asarray(image).astype(np.uint16), rawmode)
        return _integers(file, np.asarray(image), signed)
    if image.mode == "F":
        return np.asarray(image).astype(np.float32)
    if image.mode in ("LAB", "HSV"):
        raise UnreadableError(f"{file} holds {image.mode} colours, which are not read: convert it to RGB")
    if image.mode == "LA":
        return np.asarray(image)
    if image.mode == "La":
        return np.asarray(image.convert("LA"))
    if image.mode in ("RGBA", "RGBa", "PA") or image.has_transparency_data:
        return np.asarray(image.convert("RGBA"))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))  # "P", "YCbCr", "CMYK", "RGBX"


def _integers(file: str | os.PathLike[str], values: Array, signed: bool) -> Array:
    """32 bits, or 16 with a sign, as they are."""
    whole = values.astype(np.int64)
    if not signed:  # Pillow has them with a sign
        whole %= 2**32
    return exactly(file, whole)


def exactly(file: str | os.PathLike[str], whole: Array) -> Array:
    """Integers as float32, which tells them apart."""
    if np.abs(whole).max() > EXACT:
        raise UnreadableError(
            f"{file} holds integers from {whole.min()} to {whole.max()}, expected at most 2**24, which float32 can hold"
        )
    return whole.astype(np.float32)


def _with_transparent(image: Any, colour: Array, rawmode: str) -> Array:
    """With an alpha channel where a PNG calls one of its colours transparent: (H,W) or (H,W,3), and one channel more."""
    transparent = image.info.get("transparency") if image.format == "PNG" else None
    if transparent is None:
        return colour
    if rawmode in ("L;2", "L;4"):  # whose greys are spread over 8 bits
        transparent *= 85 if rawmode == "L;2" else 17
    channels = colour.reshape(*colour.shape[:2], -1)
    alpha = (channels != np.array(transparent, channels.dtype)).any(2).astype(channels.dtype) * np.iinfo(channels.dtype).max
    return np.dstack([channels, alpha])


def _deep(file: str | os.PathLike[str], raw: bytes, page: int, image: Any, rawmode: str) -> Array:
    """16 bits of each channel.

    Pillow unpacks such pixels into one byte a channel: the first of two where its rawmode ends in B, the second where it
    ends in L. So the file is decoded once for each of the two.
    """
    if image.format == "PNG" and page > 0:
        raise UnreadableError(f"{file} is an animation of 16 bits a colour, of which page 0 alone is read")
    if rawmode == "LA;16B":  # the four bytes of a pixel
        bytes_of = _unpacked(file, raw, page, "RGBA")
        return np.ascontiguousarray(bytes_of).view(">u2").astype(np.uint16)
    name, order = rawmode[:-1], rawmode[-1]
    if not name.startswith(("RGB;", "RGBA;")):
        raise UnreadableError(f"{file} holds {name.removesuffix(';16')} of 16 bits, which is not read: convert it to RGB")
    first, second = (_unpacked(file, raw, page, letter).astype(np.uint16) for letter in "BL")
    high, low = (first, second) if order == "B" or (order == "N" and sys.byteorder == "big") else (second, first)
    pixels: Array = high * np.uint16(256) + low
    return _with_transparent(image, pixels, rawmode) if pixels.shape[2] == 3 else pixels


def _unpacked(file: str | os.PathLike[str], raw: bytes, page: int, rawmode: str) -> Array:
    """The image as Pillow unpacks it by this rawmode; by that of the file with this last letter, where it is one letter."""
    image: Any
    with _open(file, raw) as image:
        image.seek(page)
        image.tile = [_by_rawmode(tile, rawmode) for tile in image.tile]
        image.load()
        return np.asarray(image)


def _by_rawmode(tile: Any, rawmode: str) -> Any:
    codec, extents, offset, args = tile
    if len(rawmode) == 1:
        rawmode = _rawmode(tile)[:-1] + rawmode
    args = (rawmode, *args[1:]) if isinstance(args, tuple) else rawmode
    changed = codec, extents, offset, args
    return type(tile)(*changed) if hasattr(tile, "_fields") else changed  # newer versions of Pillow name the four


def _deep_ppm(file: str | os.PathLike[str], raw: bytes, image: Any) -> Array:
    """A PPM of two bytes a colour, from 0 to what it calls its largest, in 0..65535."""
    codec, (_, _, W, H), offset, (*_, largest) = image.tile[0]
    if codec != "ppm" or len(raw) < offset + 6 * W * H:
        raise UnreadableError(f"{file} is cut off, or holds its 16 bits a colour as text, which is not read")
    values = np.frombuffer(raw, ">u2", 3 * W * H, offset).reshape(H, W, 3)
    return np.rint(values * (65535 / largest)).clip(0, 65535).astype(np.uint16)


def _upright(pixels: Array, image: Any) -> Array:
    """As Exif says it is to be looked at; Pillow has turned a TIFF already, and forgotten the tag."""
    orientation = image.getexif().get(ORIENTATION, 1) if image.format != "TIFF" else 1
    turned = {
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: a[::-1].swapaxes(0, 1),
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: a[:, ::-1].swapaxes(0, 1),
    }
    return np.ascontiguousarray(turned[orientation](pixels)) if orientation in turned else pixels
