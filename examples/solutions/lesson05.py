"""Solution 5: count a net by hand."""

from typing import NamedTuple


class Conv(NamedTuple):
    """A convolution with bias: a kernel of k x k, stride s, from c_in to c_out channels."""

    k: int
    s: int
    c_in: int
    c_out: int


def count_parameters(layers: list[Conv]) -> int:
    """sum c_out (c_in k^2 + 1)"""
    return sum(layer.c_out * (layer.c_in * layer.k**2 + 1) for layer in layers)


def receptive_field(layers: list[Conv]) -> int:
    """r -> r + (k - 1) j, j -> j s"""
    r, j = 1, 1
    for layer in layers:
        r += (layer.k - 1) * j
        j *= layer.s
    return r
