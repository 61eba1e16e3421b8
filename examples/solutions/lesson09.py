"""Solution 9: the dense block."""

from collections.abc import Sequence

from minidl import Tensor, ops


def dense_block(x: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """For each w: x = [x, conv(relu(x), w)], along the channels"""
    for w in weights:
        x = ops.concat([x, ops.conv2d(ops.relu(x), w, padding=1)])
    return x
