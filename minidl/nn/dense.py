"""Layers of a dense block, computed together."""

from __future__ import annotations

from collections.abc import Sequence

from minidl.core import Tensor
from minidl.nn.layers import BatchNorm2d, Conv2d
from minidl.ops.dense import DenseBlock


def dense_block(x: Tensor, layers: Sequence[Sequence[tuple[BatchNorm2d, Conv2d]]]) -> Tensor:
    """The same as

        for layer in layers:
            y = x
            for norm, conv in layer:
                y = conv(relu(norm(y)))
            x = concat([x, y])

    in one op that copies nothing (see `minidl.ops.dense`): (N,C,H,W) -> (N, C + channels of all layers, H, W). The
    convolutions must keep the size of the images and have no bias; all norms share eps and mode. Raises ValueError where that
    is not so, or a shape does not fit.

    Huang, Liu, van der Maaten and Weinberger 2017, "Densely connected convolutional networks", section 3.
    """
    pairs = [pair for layer in layers for pair in layer]
    norms = [norm for norm, _ in pairs]
    for norm, conv in pairs:
        kh, kw = conv.weight.shape[2:]
        plain = conv.bias is None and conv.groups == 1 and conv.stride == conv.dilation == (1, 1)
        if not plain or kh % 2 == 0 or kw % 2 == 0 or conv.padding != (kh // 2, kw // 2):
            raise ValueError(f"layers: expected convolutions without bias that keep the size of an image, got {conv!r}")
        if norm.training != norms[0].training or norm.eps != norms[0].eps:
            raise ValueError(f"layers: expected norms of one mode and eps, got {norm!r} beside {norms[0]!r}")
    frozen = None if norms[0].training else [(norm.running_mean, norm.running_var) for norm in norms]
    op = DenseBlock([len(layer) for layer in layers], norms[0].eps, frozen)
    y = op(x, *(p for norm, conv in pairs for p in (norm.weight, norm.bias, conv.weight)))
    if frozen is None:
        for norm, (mean, var) in zip(norms, op.statistics, strict=True):
            norm.update_running_stats(mean, var, op.values)
    return y
