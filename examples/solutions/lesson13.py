"""Solution 13: the gradient of the softmax."""

import numpy as np


def gradient_of_probability(scores: np.ndarray, c: int) -> np.ndarray:
    """dp_c / dS_k = p_c ([k = c] - p_k)"""
    p = np.exp(scores - scores.max())
    p /= p.sum()
    return p[c] * (np.eye(len(p))[c] - p)
