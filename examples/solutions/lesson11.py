"""Solution 11: the first convolution for other channels."""

import numpy as np


def adapted(w: np.ndarray, channels: int) -> np.ndarray:
    """w'[f,n] = (1/N) sum over c of w[f,c]"""
    return np.repeat(w.sum(axis=1, keepdims=True) / channels, channels, axis=1)
