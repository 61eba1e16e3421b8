"""Exercise 12: the top-k head. `python -m pytest examples/exercises -k lesson12` judges it."""

import numpy as np


def top_k(x: np.ndarray, gy: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """y, the mean of the k largest numbers of each map, and gx, the gradient of x where gy is that of y.

    x: (N,P), N maps with P places each, no two the same; gy: (N,). Returns y (N,) and gx (N,P).
    """
    raise NotImplementedError("write top_k in examples/exercises/lesson12.py: which places are the largest, and what each gets")


# Hint 1: np.argsort(x, axis=1)[:, -k:] are the places of the k largest of each map.
#
# Hint 2: y is a mean: each of these places gets gy / k, and all others get 0.
#
# Hint 3: np.put_along_axis(gx, places, gy[:, None] / k, axis=1) writes them.
