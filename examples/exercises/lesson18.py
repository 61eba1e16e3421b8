"""Exercise 18: the fast gradient sign method. `python -m pytest examples/exercises -k lesson18` judges it."""

import numpy as np

from minidl import Tensor, gradients, ops  # noqa: F401 - what you need
from minidl.nn import Module


def fgsm(model: Module, x: np.ndarray, labels: np.ndarray, eps: float) -> np.ndarray:
    """x' = clip(x + eps sign(dL/dx), 0, 1), L the cross-entropy of the model's scores with `labels` (N,).

    x: images (N,C,H,W) in [0, 1], as the model takes them. Returns images of that shape; x itself stays as it is.
    """
    raise NotImplementedError("write fgsm in examples/exercises/lesson18.py: forward, the loss, its gradient in x, one step")


# Hint 1: leaf = Tensor(x, requires_grad=True) is the image that gets a gradient; ops.cross_entropy(scores, labels) the loss.
#
# Hint 2: gradients(loss, [leaf]) is a list with one array. np.sign and np.clip do the rest.
