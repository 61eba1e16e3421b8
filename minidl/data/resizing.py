"""From the pixels of a file to an image of a dataset: for those that a net learns, and for those that it is asked about."""

from __future__ import annotations

import numpy as np

from minidl.array import Array


def as_held(pixels: Array, size: tuple[int, int] | None) -> Array:
    """(H,W,C) uint8, uint16 or float32 -> (C,H,W) uint8 or float32, 16 bits as x / 65535, resized where there is a size (H, W).

    Bilinear, with antialiasing, channel by channel; an image of that size keeps its bits.
    """
    from PIL import Image  # not with minidl: it takes its time

    if pixels.dtype == np.uint16:
        pixels = pixels.astype(np.float32) / np.float32(65535)
    image: Array = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    if size is None or image.shape[1:] == size:
        return image
    H, W = size
    return np.stack([np.asarray(Image.fromarray(c).resize((W, H), Image.Resampling.BILINEAR)) for c in image])
