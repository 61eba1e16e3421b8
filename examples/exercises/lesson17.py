"""Exercise 17: a step up the gradient of a wrong class. `python -m pytest examples/exercises -k lesson17` judges it."""

import numpy as np

from minidl import Tensor, gradients  # noqa: F401 - what you need
from minidl.nn import Module


def ascent_step(model: Module, x: np.ndarray, wrong: int, step_size: float) -> np.ndarray:
    """x' = clip(x + step_size g / |g|, 0, 1), g = dS_wrong/dx, and |g| its length over all values.

    x: one image (1,C,H,W) in [0, 1], as the model takes it; model(x): scores (1,K). x itself stays as it is.
    """
    raise NotImplementedError(
        "write ascent_step in examples/exercises/lesson17.py: one score, its gradient, a step of one length"
    )


# Hint 1: model(leaf)[0, wrong] is the score; leaf = Tensor(x, requires_grad=True).
#
# Hint 2: |g| = sqrt(sum of all squares), one number. np.linalg.norm(g) of an array with four axes wants g.ravel().
