"""What the convolutions read and write, as one argument each: some channels of an array, and what is done to them on the way.

A dense block's convolutions read the first channels of its array, normalised and rectified, and write others; a convolution
alone takes all channels as they are.
"""

from __future__ import annotations

from typing import NamedTuple

from minidl.array import Array


class Source(NamedTuple):
    """The channels x[:, first : first + channels], or max(scale x + shift, 0) of them"""

    x: Array  # (N, C, H, W), contiguous
    first: int
    channels: int
    scale: Array  # (channels,); empty: x as it is
    shift: Array


class Target(NamedTuple):
    """The channels y[:, first : first + channels], and what is added to each"""

    y: Array  # (N, F, OH, OW), contiguous
    first: int
    channels: int
    bias: Array  # (channels,), or empty


class Gates(NamedTuple):
    """Where the gradient gz of max(scale x + shift, 0) goes: g = gz where that is open; gx = scale g, added if `add`

    x and gx may have more channels than the others have numbers.
    """

    x: Array
    scale: Array
    shift: Array
    mean: Array  # about which sum g (x - mean) is taken
    gx: Array
    add: bool
