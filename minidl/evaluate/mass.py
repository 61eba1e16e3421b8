"""How much of a map lies on the object?"""

from __future__ import annotations

import numpy as np

from minidl import arguments
from minidl.array import Array
from minidl.evaluate.mask_score import MaskScore


def mass_in_mask(maps: Array, masks: Array) -> MaskScore:
    """sum of the map in the mask / sum of the map, in [0, 1]; chance is the mask's share of the image, its area.

    A uniform map scores exactly chance, and so does one that is 0 everywhere, which tells nothing. `enrichment` = mass / area.
    Wang et al. 2020, "Score-CAM: score-weighted visual explanations for convolutional neural networks", as the energy-based
    pointing game, in boxes.

    Args:
        maps, masks: (N,H,W). The maps hold no negative value: of a signed map, take its size or what is positive in it.

    Raises TypeError and ValueError for a negative value, and as `pointing_game` does.
    """
    maps = arguments.maps(maps)
    masks = arguments.masks(masks, maps)
    if (maps < 0).any():
        raise ValueError(f"maps: expected no negative value (take the size, or the positive part), got {maps.min():.3g}")
    area = masks.mean((1, 2))
    total = maps.sum((1, 2))
    inside = maps.sum((1, 2), where=masks)
    return MaskScore(np.divide(inside, total, out=area.copy(), where=total > 0), area)
