"""Images in a page that loads nothing: written into its text, within so many bytes; and maps over them."""

from __future__ import annotations

import io
from base64 import b64encode

import numpy as np

from minidl.array import Array
from minidl.view.display import averaged, block, for_the_eye, limit_of

QUALITIES = 90, 75, 50, 30  # of JPEG, where PNG takes more
RED, BLUE = np.array([178, 24, 43]) / 255, np.array([33, 102, 172]) / 255
GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601


def embedded(image: Array, side: int, most: int) -> str:
    """An image (C,H,W) as the text of a link, at most `side` high and wide and about `most` bytes long."""
    kind, raw = encoded(image, side, most)
    return f"data:image/{kind};base64,{b64encode(raw).decode()}"


def encoded(image: Array, side: int, most: int) -> tuple[str, bytes]:
    """PNG where that takes at most `most` bytes; or JPEG, as well as it then can be, or else smaller."""
    from PIL import Image

    pixels = np.atleast_3d(for_the_eye(image)).transpose(2, 0, 1)  # (1 or 3,H,W)
    while True:
        small = np.rint(255 * _within(pixels, side)).astype(np.uint8)
        drawn = Image.fromarray(small[0] if len(small) == 1 else np.ascontiguousarray(small.transpose(1, 2, 0)))
        for kind, settings in [("png", {}), *(("jpeg", {"quality": q, "subsampling": 0}) for q in QUALITIES)]:
            content = io.BytesIO()
            drawn.save(content, kind, **settings)
            if content.tell() <= most or side <= 16:
                return kind, content.getvalue()
        side //= 2


def overlay(image: Array, values: Array, side: int) -> Array:
    """A map (H,W) over its image (C,H,W) in pale grey: red above 0, blue below; (3,h,w) in [0, 1], at most `side` each.

    The colours are the more opaque the larger a value, and the deepest ones stand for the largest 0.5% of all sizes.
    """
    pixels = np.atleast_3d(for_the_eye(image)).transpose(2, 0, 1)
    grey = (_within(pixels, side) * (GREY[:, None, None] if len(pixels) == 3 else 1)).sum(0)
    small = _within(values, side)
    t = np.clip(small / limit_of(small), -1, 1)
    opacity = np.clip(1.6 * np.abs(t), 0, 0.92)
    colour = np.where(t[..., None] > 0, RED, BLUE)
    return ((0.35 + 0.65 * grey)[..., None] * (1 - opacity[..., None]) + colour * opacity[..., None]).transpose(2, 0, 1)


def _within(values: Array, side: int) -> Array:
    """(...,H,W), averaged so that it is at most `side` high and wide, and keeps its shape."""
    return averaged(values, block(max(values.shape[-2:]), side))


def place_in_words(values: Array) -> str:
    """Where a map (H,W) is largest and smallest, for who cannot see it."""
    if not values.any():
        return "0 everywhere"

    def where(flat: int) -> str:
        i, j = np.unravel_index(flat, values.shape)
        row = ("top", "middle", "bottom")[min(2, 3 * int(i) // values.shape[0])]
        column = ("left", "centre", "right")[min(2, 3 * int(j) // values.shape[1])]
        return "in the centre" if (row, column) == ("middle", "centre") else f"{row} {column}"

    said = []
    if values.max() > 0:
        said.append(f"strongest for, {where(int(values.argmax()))}")
    if values.min() < 0:
        said.append(f"strongest against, {where(int(values.argmin()))}")
    return "; ".join(said)
