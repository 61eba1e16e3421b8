"""Exercise 6: the concatenation of an Inception module. `python -m pytest examples/exercises -k lesson06` judges it."""

import numpy as np

from minidl import Op


class Concatenate(Op):
    """y = the channels of all inputs, one input behind the other: (N,C1,H,W), (N,C2,H,W), ... -> (N, C1 + C2 + ..., H, W)"""

    def forward(self, *xs: np.ndarray) -> np.ndarray:
        """Put the inputs together along axis 1, and keep what backward needs: how many channels each has."""
        raise NotImplementedError("write Concatenate.forward in examples/exercises/lesson06.py: np.concatenate, and the sizes")

    def backward(self, gy: np.ndarray) -> tuple[np.ndarray, ...]:
        """One gradient for each input: its own channels of gy."""
        raise NotImplementedError("write Concatenate.backward in examples/exercises/lesson06.py: a slice of gy for each input")


# Hint 1: np.concatenate(xs, axis=1). Axis 0 are the images.
#
# Hint 2: keep [x.shape[1] for x in xs] as an attribute. Of gy, the first input has the channels 0 to C1, the second C1
# to C1 + C2.
#
# Hint 3: np.split(gy, places, axis=1) cuts at places, which are sums of sizes: np.cumsum(sizes)[:-1]. Return a tuple.
