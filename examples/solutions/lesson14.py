"""Solution 14: one cell of the way back."""

import numpy as np


def one_cell(gy: np.ndarray, w: np.ndarray, x: np.ndarray, c: int, i: int, j: int) -> float:
    """gx[c,i,j] = [x[c,i,j] > 0] sum over f,u,v of w[f,c,u,v] gy[f,i+1-u,j+1-v]"""
    found = 0.0
    for f, u, v in np.ndindex(len(gy), 3, 3):
        a, b = i + 1 - u, j + 1 - v
        if 0 <= a < gy.shape[1] and 0 <= b < gy.shape[2]:
            found += w[f, c, u, v] * gy[f, a, b]
    return found if x[c, i, j] > 0 else 0.0
