"""One way to resize an image, for the images that a net is trained on and for those that it is asked about afterwards."""

from __future__ import annotations

import numpy as np

from minidl.array import Array


def resize(image: Array, size: tuple[int, int]) -> Array:
    """An image (C,H,W), uint8 or float32, with `size` = (H, W) pixels: bilinear, with antialiasing, channel by channel.

    The type stays; an image of that size comes back with the same bits.
    """
    from PIL import Image  # not with minidl: it takes its time

    if image.shape[1:] == size:
        return image
    H, W = size
    return np.stack([np.asarray(Image.fromarray(c).resize((W, H), Image.Resampling.BILINEAR)) for c in image])
