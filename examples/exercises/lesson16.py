"""Exercise 16: total variation and its gradient. `python -m pytest examples/exercises -k lesson16` judges it."""

import numpy as np


def total_variation(m: np.ndarray) -> tuple[float, np.ndarray]:
    """sum of all squared differences of neighbours, one above the other or side by side, and its gradient in m.

    m: (h,w). Returns the sum, and an array (h,w). Beta is 2 here: sum (dx^2 + dy^2).
    """
    raise NotImplementedError("write total_variation in examples/exercises/lesson16.py: differences, and where they come from")


# Hint 1: dy = m[1:] - m[:-1] and dx = m[:, 1:] - m[:, :-1]; np.diff does it. The value is the sum of all their squares.
#
# Hint 2: the square of m[i+1,j] - m[i,j] has the slope 2 dy in m[i+1,j] and - 2 dy in m[i,j].
#
# Hint 3: begin with zeros, then g[1:] += 2 * dy, g[:-1] -= 2 * dy, and the same for dx.
