"""Exercise 15: the map of one head. `python -m pytest examples/exercises -k lesson15` judges it."""

import numpy as np

from minidl import Tensor, gradients, ops  # noqa: F401 - what you need
from minidl.nn import Module


def head_map(model: Module, x: np.ndarray, name: str) -> np.ndarray:
    """max over the channels of |dS/dx|, S the largest score of the head `name`, for each image: (N,C,H,W) -> (N,H,W)

    model(x) is a dict of scores, name -> (N,K), and in evaluation mode: images do not influence each other.
    """
    raise NotImplementedError("write head_map in examples/exercises/lesson15.py: one head's scores, the largest of each image")


# Hint 1: scores = model(leaf)[name]; the class of each image is scores.data.argmax(1).
#
# Hint 2: one walk back is enough for all images: the sum of their scores S has the gradient of each S in its own image.
#
# Hint 3: scores[np.arange(N), classes] picks them, ops.sum adds them up. Then np.abs and .max(1).
