"""Exercise 13: the gradient of the softmax. `python -m pytest examples/exercises -k lesson13` judges it."""

import numpy as np


def gradient_of_probability(scores: np.ndarray, c: int) -> np.ndarray:
    """dp_c / dS_k for all k, where p = softmax(S).

    scores: (K,), S of one image; c: the class whose probability is asked about. Returns (K,).
    """
    raise NotImplementedError("write gradient_of_probability in examples/exercises/lesson13.py: first p, then the formula")


# Hint 1: p = exp(S) / sum(exp(S)). Subtract S.max() first: p stays the same, and exp stays finite.
#
# Hint 2: the score of another class only takes away: dp_c / dS_k = - p_c p_k. The own one also adds: + p_c.
