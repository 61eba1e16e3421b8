"""Exercise 14: one cell of the way back. `python -m pytest examples/exercises -k lesson14` judges it."""

import numpy as np


def one_cell(gy: np.ndarray, w: np.ndarray, x: np.ndarray, c: int, i: int, j: int) -> float:
    """The gradient of x[c,i,j], for y = conv(relu(x), w) with a 3x3 kernel and a border of one zero: one number, by a loop.

    gy: (F,H,W), the gradient of y; w: (F,C,3,3); x: (C,H,W). y[f,a,b] = sum over c,u,v of w[f,c,u,v] relu(x)[c,a+u-1,b+v-1]
    """
    raise NotImplementedError(
        "write one_cell in examples/exercises/lesson14.py: which y does the cell go into, by which weight?"
    )


# Hint 1: if the gate of the relu is closed, x[c,i,j] <= 0, nothing arrives: 0.
#
# Hint 2: through w[f,c,u,v] the cell (i,j) goes into y at a = i + 1 - u, b = j + 1 - v. Solve a + u - 1 = i to see it.
#
# Hint 3: at the border some of these a, b are outside 0..H-1, 0..W-1. Skip them; -1 would be the last row.
