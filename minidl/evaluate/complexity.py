"""How many pixels does a map need to say what it says?"""

from __future__ import annotations

import numpy as np

from minidl import arguments
from minidl.array import Array


def complexity(maps: Array) -> Array:
    """y = -sum_i p_i log p_i, p_i = |m_i| / sum_j |m_j|, (N,) of maps (N,H,W): the entropy, from 0 to log(H W)

    0 where one pixel has it all, log(H W) where all have the same, also where that is 0. Raises TypeError and ValueError for
    maps that are no finite (N,H,W). Bhatt, Weller and Moura 2020, "Evaluating and aggregating feature-based model
    explanations".
    """
    p = _shares(maps)
    return -(p * np.log(np.where(p > 0, p, 1))).sum(1)


def sparseness(maps: Array) -> Array:
    """y = sum_k (2 k - n - 1) p_(k) / n, p_(1) <= ... <= p_(n), p_i = |m_i| / sum_j |m_j|, (N,) of maps (N,H,W): the Gini index

    0 where all n = H W pixels have the same, also where that is 0; 1 - 1/n where one has it all. Chalasani, Chen, Chowdhury,
    Jha and Wu 2020, "Concise explanations of neural networks using adversarial training". Raises TypeError and
    ValueError for maps that are no finite (N,H,W).
    """
    p = np.sort(_shares(maps))
    n = p.shape[1]
    return (2 * np.arange(1, n + 1) - n - 1) @ p.T / n


def _shares(maps: Array) -> Array:
    """p (N,H*W): sizes that add up to 1, the same for all pixels of a map that is 0 everywhere"""
    size = np.abs(arguments.maps(maps))
    size = size.reshape(len(size), -1)
    largest = size.max(1, keepdims=True)
    size = np.where(largest > 0, size / np.where(largest > 0, largest, 1), 1)  # so that no sum overflows
    shares: Array = size / size.sum(1, keepdims=True)
    return shares
