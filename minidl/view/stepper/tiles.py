"""Maps as small tiles of whole numbers: values averaged or added up in blocks, one byte each, with a scale.

value ~ q * scale / 127,    q from -127 to 127
"""

from __future__ import annotations

import base64
import zlib

import numpy as np

from minidl.array import Array


def block_size(h: int, w: int, px: int) -> tuple[int, int]:
    """How many rows and columns go into one pixel of a tile of at most px by px."""
    return -(-h // px), -(-w // px)


def downsample(maps: Array, px: int, how: str) -> Array:
    """(...,H,W) -> (...,h,w), h, w <= px: the "mean" or the "sum" of each block. The last blocks of an axis may be smaller."""
    H, W = maps.shape[-2:]
    fh, fw = block_size(H, W, px)
    rows, columns = np.arange(0, H, fh), np.arange(0, W, fw)
    total = np.add.reduceat(np.add.reduceat(maps.astype(np.float64), rows, axis=-2), columns, axis=-1)
    if how == "sum":
        return total
    counts = np.diff(np.append(rows, H))[:, None] * np.diff(np.append(columns, W))
    return total / counts


class Blob:
    """Bytes, one map behind the other; `add` tells where one begins and its scale. Maps of zeros take no room."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.size = 0

    def add(self, values: Array) -> tuple[int, float]:
        """(h,w) floats -> (offset, scale)"""
        scale = float(np.abs(values).max())
        if scale == 0:
            return self.size, 0.0
        return self.bytes(np.rint(values * (127 / scale)).astype(np.int8)), scale

    def bytes(self, values: Array) -> int:
        """Any bytes as they are -> offset"""
        part = values.tobytes()
        self.parts.append(part)
        self.size += len(part)
        return self.size - len(part)

    def text(self) -> str:
        """All of it, deflated (zlib) and in base 64."""
        return base64.b64encode(zlib.compress(b"".join(self.parts), 9)).decode("ascii")
