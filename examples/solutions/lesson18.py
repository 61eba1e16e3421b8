"""Solution 18: the fast gradient sign method."""

import numpy as np

from minidl import Tensor, gradients, ops
from minidl.nn import Module


def fgsm(model: Module, x: np.ndarray, labels: np.ndarray, eps: float) -> np.ndarray:
    """x' = clip(x + eps sign(dL/dx), 0, 1)"""
    leaf = Tensor(x, requires_grad=True)
    loss = ops.cross_entropy(model(leaf), labels)
    return np.clip(x + eps * np.sign(gradients(loss, [leaf])[0]), 0, 1)
