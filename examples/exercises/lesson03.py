"""Exercise 3: the way back of a convolution. `python -m pytest examples/exercises -k lesson03` judges it."""

import numpy as np


def fold(cols: np.ndarray, H: int, W: int) -> np.ndarray:
    """x[c, i + u, j + v] += cols[c, u, v, i, j]: every window back to its place, added where windows overlap.

    cols: (C,kh,kw,OH,OW), the window of each output pixel (i, j), for stride 1 and no border, so that OH = H - kh + 1 and
    OW = W - kw + 1. Returns (C,H,W).
    """
    raise NotImplementedError("write fold in examples/exercises/lesson03.py: begin with zeros, and add each cols[:, u, v]")


def input_gradient(gy: np.ndarray, w: np.ndarray, H: int, W: int) -> np.ndarray:
    """The gradient of the image of y = conv(x, w), stride 1 and no border, from gy.

    gy: (F,OH,OW), w: (F,C,kh,kw). Returns (C,H,W).
    """
    raise NotImplementedError("write input_gradient in examples/exercises/lesson03.py: W^T gy are windows; fold them")


# Hint 1: for one (u, v), all windows at once: cols[:, u, v] is an image (C,OH,OW) that belongs to x, shifted by (u, v).
#
# Hint 2: so there are two loops, over u and v, and in them one line with +=.
#
# Hint 3: W^T gy sums over the filters: cols[c,u,v,i,j] = sum_f w[f,c,u,v] gy[f,i,j]. np.einsum writes this as it stands.
