"""Solution 17: a step up the gradient of a wrong class."""

import numpy as np

from minidl import Tensor, gradients
from minidl.nn import Module


def ascent_step(model: Module, x: np.ndarray, wrong: int, step_size: float) -> np.ndarray:
    """x' = clip(x + step_size g / |g|, 0, 1)"""
    leaf = Tensor(x, requires_grad=True)
    g = gradients(model(leaf)[0, wrong], [leaf])[0]
    return np.clip(x + step_size * g / np.linalg.norm(g.ravel()), 0, 1)
