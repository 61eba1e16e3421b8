"""Solution 1: the confusion matrix."""

import numpy as np


def confusion_matrix(answers: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Entry [t, p]: how many images of class t got the answer p."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (labels, answers), 1)
    return matrix
