"""How `winograd` cuts its work into bands and tasks, and where all lies in scratch memory. Shapes alone decide."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from minidl.array import Array
from minidl.kernels.compiled.direct_plan import SCRATCH, TASKS
from minidl.kernels.compiled.tiles import ROWS
from minidl.kernels.compiled.vectors import VECTOR
from minidl.kernels.shapes import Pair

T = 16  # places of a tile


class Bands(NamedTuple):
    """How the bands of a task are packed, pixel by pixel with the channels side by side"""

    channels: int  # with those that fill up
    top: int  # rows above the image
    left: int  # columns before it
    row: int  # pixels from row to row
    size: int  # pixels of a band
    pixels: Array  # where the pixel (k div W, k mod W) of a band lies, the border aside
    tiles: Array  # where each tile of a task begins


class Plan(NamedTuple):
    bands: int  # of an image
    band: int  # rows of tiles in a band
    together: int  # bands in a task
    block: int  # tiles whose places are in memory at a time
    seen: Bands  # of the images that the tiles of 4x4 see
    made: Bands  # of the output's tiles of 2x2
    weights: Array  # where the weights of each channel in begin, within the rows of a tile
    places: Array  # where the channels of each tile of a block begin


@lru_cache(1024)
def plan(N: int, width: int, size: Pair, padding: Pair, channels: Pair, itemsize: int) -> Plan:
    """For N output images of `size` from images of `width` pixels; `channels`: in and out, those that fill up included."""
    down, across = -(-size[0] // 2), -(-size[1] // 2)
    block = max(2 * ROWS, SCRATCH // (sum(channels) * T * itemsize) // (2 * ROWS) * 2 * ROWS)
    wanted = max(block, SCRATCH // (sum(channels) * 2 * itemsize))  # tiles, of which the pixels fit the cache
    band = min(down, max(1, wanted // across))
    if N * -(-down // band) < TASKS:  # few large images
        band = max(1, min(band, down * N // TASKS))
    bands = -(-down // band)
    band = -(-down // bands)
    together = max(1, min(wanted // (band * across), -(-N * bands // TASKS)))
    seen = _packed(channels[0], padding, 2 * band + 2, 2 * across + 2, width, (together, band, across))
    made = _packed(channels[1], (0, 0), 2 * band, 2 * across, size[1], (together, band, across))
    block = min(block, -(-len(seen.tiles) // (2 * ROWS)) * 2 * ROWS)
    weights = np.arange(channels[0]) * min(channels[1], 2 * VECTOR // itemsize)
    return Plan(bands, band, together, block, seen, made, weights, np.arange(block) * channels[0])


def _packed(channels: int, padding: Pair, rows: int, row: int, width: int, tiles: tuple[int, int, int]) -> Bands:
    """Bands of `rows` rows of `row` pixels, of which the image has `width`; tiles: of a task, in bands, down, across"""
    i, j = np.divmod(np.arange(rows * width), width)
    b, down, across = (a.reshape(-1) for a in np.indices(tiles))
    return Bands(channels, *padding, row, rows * row, i * row + j, b * rows * row + 2 * down * row + 2 * across)


def filled_up(channels: int, itemsize: int) -> int:
    """Channels in scratch memory: one vector of them, where that is a whole tile, or an even number"""
    lanes = VECTOR // itemsize
    whole = lanes if channels <= lanes and lanes >= 2 * ROWS else max(2 * lanes, ROWS)
    return -(-channels // whole) * whole
