"""The pointing game: is the map's highest pixel on the object?"""

from __future__ import annotations

import numpy as np

from minidl import arguments
from minidl.array import Array
from minidl.evaluate.mask_score import MaskScore

FURTHEST = 0.25  # more tolerance than this, and a miss is called a hit


def pointing_game(maps: Array, masks: Array, tolerance: float = 0.0) -> MaskScore:
    """1 where the map's highest pixel is in the mask or at most `tolerance` radii from it, else 0; chance is that area's share.

    Where several pixels are highest, value is the share of them that are hits, so that a uniform map scores exactly chance.
    Zhang et al. 2016, "Top-down neural attention by excitation backprop", section 4.1, allow 15 pixels whatever the size of the
    object, which calls half of the image a hit where objects are small.

    Args:
        maps, masks: (N,H,W).
        tolerance: in radii of the mask, sqrt(area / pi) pixels; at most 1/4.

    Raises:
        TypeError, ValueError: maps that are not finite, masks of another shape or empty, a tolerance beyond 1/4.
    """
    maps = arguments.maps(maps)
    masks = arguments.masks(masks, maps)
    tolerance = arguments.number(tolerance, "tolerance", f"[0, {FURTHEST}]")
    near = np.stack([grown(mask, tolerance * np.sqrt(mask.sum() / np.pi)) for mask in masks])
    highest = maps == maps.max((1, 2), keepdims=True)
    return MaskScore((highest & near).sum((1, 2)) / highest.sum((1, 2)), near.mean((1, 2)))


def grown(mask: Array, by: float) -> Array:
    """The pixels (H,W) whose distance to one in the mask is at most `by` pixels."""
    H, W = mask.shape
    radius = int(by)
    padded = np.pad(mask, radius)
    counts = np.cumsum(np.pad(padded, ((0, 0), (1, 0))), axis=1)  # (H+2 radius, W+2 radius+1): mask pixels left of here, by row
    near = np.zeros_like(mask)
    for dy in range(-radius, radius + 1):
        dx = int(np.sqrt(by**2 - dy**2))  # of the row that is dy away, the pixels up to dx to either side
        rows = counts[radius + dy : radius + dy + H]
        near |= rows[:, radius + dx + 1 : radius + dx + 1 + W] > rows[:, radius - dx : radius - dx + W]
    return near
