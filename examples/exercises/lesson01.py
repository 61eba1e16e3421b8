"""Exercise 1: the confusion matrix. `python -m pytest examples/exercises -k lesson01` judges it."""

import numpy as np


def confusion_matrix(answers: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Entry [t, p]: how many images of class t got the answer p.

    answers, labels: (N,) integers from 0 to classes - 1; returns (classes, classes), integers. All entries add up to N.
    """
    raise NotImplementedError("write confusion_matrix in examples/exercises/lesson01.py: count, for each truth, each answer")


# Hint 1: begin with zeros, and go through the images one by one. Which entry does an image belong to?
#
# Hint 2: the row is the truth and the column the answer.
#
# Hint 3: `matrix[labels, answers] += 1` looks right, and counts each pair once however often it comes. `np.add.at` does not.
