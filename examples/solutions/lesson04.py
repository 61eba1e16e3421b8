"""Solution 4: the way back of batch norm."""

import numpy as np


def batch_norm_backward(gy: np.ndarray, x: np.ndarray, gamma: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    """gx = gamma / sqrt(var + eps) (gy - mean(gy) - x_hat mean(gy x_hat))"""
    std = np.sqrt(x.var(axis=0) + eps)
    x_hat = (x - x.mean(axis=0)) / std
    return gamma / std * (gy - gy.mean(axis=0) - x_hat * (gy * x_hat).mean(axis=0))
