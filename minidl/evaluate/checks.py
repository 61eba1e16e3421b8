"""Maps and masks as the measures take them: on the CPU, whichever device they come from, and with nothing wrong in them."""

from __future__ import annotations

import numpy as np

from minidl.array import Array, is_array, to_cpu


def check_maps(maps: Array, name: str = "maps") -> Array:
    """(N,H,W) float64. Raises TypeError where they are no array of numbers, ValueError for another shape, or NaN."""
    if not is_array(maps) or maps.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected an array of numbers, got {maps.dtype if is_array(maps) else type(maps).__name__}")
    if maps.ndim != 3 or 0 in maps.shape:
        raise ValueError(f"{name}: expected maps (N,H,W), none of these 0, got shape {maps.shape}")
    checked: Array = to_cpu(maps).astype(np.float64)
    if not np.isfinite(checked).all():
        raise ValueError(f"{name}: hold NaN or infinity")
    return checked


def check_masks(masks: Array, maps: Array) -> Array:
    """(N,H,W) bool, for these maps. Raises ValueError where one of them is empty, for there is no truth to point at."""
    if not is_array(masks) or masks.dtype != bool:
        raise TypeError(f"masks: expected an array of bool, got {masks.dtype if is_array(masks) else type(masks).__name__}")
    if masks.shape != maps.shape:
        raise ValueError(f"masks: expected the shape of the maps, {maps.shape}, got {masks.shape}")
    checked = to_cpu(masks)
    if empty := np.flatnonzero(~checked.any((1, 2))).tolist():
        raise ValueError(f"masks: no pixel is in the mask of the pictures {empty[:10]}; leave these out")
    return checked
