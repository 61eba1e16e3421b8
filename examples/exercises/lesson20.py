"""Exercise 20: the top-k error. `python -m pytest examples/exercises -k lesson20` judges it."""

import numpy as np


def top_k_error(scores: np.ndarray, labels: np.ndarray, k: int = 5) -> float:
    """The share of images whose right class is not among the k highest scores.

    scores: (N,K), no two of an image the same; labels: (N,) integers.
    """
    raise NotImplementedError("write top_k_error in examples/exercises/lesson20.py: the k best classes of each image")


# Hint 1: np.argsort(scores, axis=1)[:, -k:] are the k best classes of each image, (N,k).
#
# Hint 2: compare with labels[:, None], and ask .any(axis=1): is the right one among them? The error is 1 minus the mean.
