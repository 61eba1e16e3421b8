"""Solution 19: the pointing game."""

import numpy as np


def pointing_game(maps: np.ndarray, masks: np.ndarray) -> tuple[float, float]:
    """The mean of |highest and inside| / |highest|, and the mean area."""
    highest = maps == maps.max(axis=(1, 2), keepdims=True)
    hits = (highest & masks).sum(axis=(1, 2)) / highest.sum(axis=(1, 2))
    return float(hits.mean()), float(masks.mean())
