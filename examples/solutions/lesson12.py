"""Solution 12: the top-k head."""

import numpy as np


def top_k(x: np.ndarray, gy: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """y = mean of the k largest; gx = gy / k there, 0 elsewhere"""
    places = np.argsort(x, axis=1)[:, -k:]
    gx = np.zeros_like(x)
    np.put_along_axis(gx, places, gy[:, None] / k, axis=1)
    return np.take_along_axis(x, places, axis=1).mean(axis=1), gx
