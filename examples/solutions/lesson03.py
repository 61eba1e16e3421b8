"""Solution 3: the way back of a convolution."""

import numpy as np


def fold(cols: np.ndarray, H: int, W: int) -> np.ndarray:
    """x[c, i + u, j + v] += cols[c, u, v, i, j]: (C,kh,kw,OH,OW) -> (C,H,W)"""
    C, kh, kw, OH, OW = cols.shape
    x = np.zeros((C, H, W))
    for u in range(kh):
        for v in range(kw):
            x[:, u : u + OH, v : v + OW] += cols[:, u, v]
    return x


def input_gradient(gy: np.ndarray, w: np.ndarray, H: int, W: int) -> np.ndarray:
    """fold(W^T gy): (F,OH,OW), (F,C,kh,kw) -> (C,H,W)"""
    return fold(np.einsum("fcuv,fij->cuvij", w, gy), H, W)
