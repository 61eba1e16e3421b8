"""Exercise 5: count a net by hand. `python -m pytest examples/exercises -k lesson05` judges it."""

from typing import NamedTuple


class Conv(NamedTuple):
    """A convolution with bias: a kernel of k x k, stride s, from c_in to c_out channels."""

    k: int
    s: int
    c_in: int
    c_out: int


def count_parameters(layers: list[Conv]) -> int:
    """Weights and biases of all layers together."""
    raise NotImplementedError("write count_parameters in examples/exercises/lesson05.py: weights and biases of each layer")


def receptive_field(layers: list[Conv]) -> int:
    """How many pixels in a row an output pixel of the last layer sees; 1 for no layers."""
    raise NotImplementedError("write receptive_field in examples/exercises/lesson05.py: r and j grow from layer to layer")


# Hint 1: a filter has c_in k^2 weights, and one bias. There are c_out filters.
#
# Hint 2: begin with r = 1, j = 1. A layer adds (k - 1) steps, and a step is j pixels of the image long.
#
# Hint 3: j grows after r: the stride of a layer makes the steps of the next one longer, not its own.
