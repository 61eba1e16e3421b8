"""Do a map's highest pixels cover the object?"""

from __future__ import annotations

import numpy as np

from minidl import arguments
from minidl.array import Array
from minidl.evaluate.mask_score import MaskScore


def iou(maps: Array, masks: Array) -> MaskScore:
    """|T and E| / |T or E|, E the mask and T as many of the map's highest pixels as E has.

    Pixels that are equal at the border of T belong to it in equal parts, so that a uniform map, like one at random on average,
    has |T and E| = |E| a, a the area of E in images. Chance is what follows from that: a / (2 - a). Jaccard 1912, "The
    distribution of the flora in the alpine zone".

    maps, masks: (N,H,W). Raises TypeError and ValueError as `pointing_game` does.
    """
    maps = arguments.maps(maps)
    masks = arguments.masks(masks, maps)
    size, area = masks.sum((1, 2)), masks.mean((1, 2))
    both = np.array([top(m, k).sum(where=mask) for m, k, mask in zip(maps, size, masks, strict=True)])
    return MaskScore(both / (2 * size - both), area / (2 - area))


def top(values: Array, k: int) -> Array:
    """In how far each of the `values` is among the k highest: 1 or 0, and for those equal to the k-th what is left, shared."""
    least = np.partition(values, -k, axis=None)[-k]
    above, equal = values > least, values == least
    belongs: Array = above + equal * ((k - above.sum()) / equal.sum())
    return belongs
