"""Two-dimensional convolution (cross-correlation, as the field calls it)."""

from __future__ import annotations

from minidl import kernels
from minidl.arguments import Pair, count, images, pair
from minidl.array import Array
from minidl.core import Grads, Op, Tensor, sum_of
from minidl.mixed import FLOAT32, HALF


class Conv2d(Op):
    """y[n,f,i,j] = b[f] + sum_{c,u,v} w[f,c,u,v] x[n,c, i*s + u*d - p, j*s + v*d - p]"""

    precision = HALF, HALF, FLOAT32  # x, w, b

    def __init__(self, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> None:
        self.stride, self.padding, self.dilation, self.groups = stride, padding, dilation, groups

    def forward(self, x: Array, w: Array, b: Array | None) -> Array:  # (N,C,H,W) (F,C/groups,kh,kw) (F,)
        _check(x, w, b, self.padding, self.dilation, self.groups)
        self.x, self.w = x, w
        self.b = b
        return kernels.of(x).conv2d(x, w, b, self.stride, self.padding, self.dilation, self.groups)  # (N,F,OH,OW)

    def push(self, tx: Array | None, tw: Array | None, tb: Array | None) -> Array:
        """ty = conv2d(tx, w) + conv2d(x, tw) + tb"""
        k, geometry = kernels.of(self.x), (self.stride, self.padding, self.dilation, self.groups)
        of_x = None if tx is None else k.conv2d(tx, self.w, None, *geometry)
        if tw is None and tb is None:
            return sum_of(of_x)
        _, tw, tb = self.tangents(tx, tw, tb)
        return sum_of(of_x, k.conv2d(self.x, tw, tb, *geometry))

    def backward(self, gy: Array) -> Grads:  # (N,F,OH,OW)
        """gx[n,c,i,j] = sum_{f,u,v} w[f,c,u,v] gy[n,f, (i + p - u*d) / s, (j + p - v*d) / s], whole places only

        gw[f,c,u,v] = sum_{n,i,j} gy[n,f,i,j] x[n,c, i*s + u*d - p, j*s + v*d - p], gb[f] = sum_{n,i,j} gy[n,f,i,j]
        """
        k, geometry = kernels.of(gy), (self.stride, self.padding, self.dilation, self.groups)
        gx = k.conv2d_grad_x(gy, self.w, self.x.shape, *geometry) if self.needs[0] else None
        gw = k.conv2d_grad_w(gy, self.x, self.w.shape, *geometry) if self.needs[1] else None
        gb = gy.sum(axis=(0, 2, 3), dtype=self.b.dtype) if self.b is not None and self.needs[2] else None
        return gx, gw, gb


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> Tensor:
    """y[n,f,i,j] = b[f] + sum_{c,u,v} w[f,c,u,v] x[n,c, i*s + u*d - p, j*s + v*d - p]

    x (N,C,H,W), w = weight (F,C/groups,kh,kw), b = bias (F,) or None -> (N,F,OH,OW), OH = floor((H + 2p - d(kh-1) - 1) / s) +
    1. stride, padding (zeros) and dilation are ints or (vertical, horizontal) pairs, in pixels; with `groups`, output channel f
    sees only the C/groups input channels of its group. Raises ValueError where a shape does not fit, `groups` does not
    divide C and F, or the kernel is larger than the padded image, TypeError or ValueError for settings that are no integers,
    or too small.
    """
    return Conv2d(*geometry(stride, padding, dilation, groups))(x, weight, bias)


def geometry(stride: int | Pair, padding: int | Pair, dilation: int | Pair, groups: int) -> tuple[Pair, Pair, Pair, int]:
    """What a `Conv2d` is made with."""
    return pair(stride, "stride", 1), pair(padding, "padding", 0), pair(dilation, "dilation", 1), count(groups, "groups")


def _check(x: Array, weight: Array, bias: Array | None, padding: Pair, dilation: Pair, groups: int) -> None:
    images(x)
    if weight.ndim != 4:
        raise ValueError(f"weight: expected (F, C/groups, kh, kw), got shape {weight.shape}")
    C, F = x.shape[1], len(weight)
    if C % groups or F % groups:
        raise ValueError(f"groups: {groups} does not divide {C} input and {F} output channels")
    if weight.shape[1] * groups != C:
        hint = (
            "; if its channels come last, write ops.transpose(x, (0, 3, 1, 2))"
            if x.shape[3] == weight.shape[1] * groups
            else ""
        )
        raise ValueError(
            f"x: expected {weight.shape[1] * groups} channels, for a weight of {weight.shape} in {groups} groups, "
            f"got {x.shape}{hint}"
        )
    if bias is not None and bias.shape != (F,):
        raise ValueError(f"bias: expected shape ({F},), got {bias.shape}")
    for size, k, p, d in zip(x.shape[2:], weight.shape[2:], padding, dilation, strict=True):
        if d * (k - 1) + 1 > size + 2 * p:
            raise ValueError(
                f"weight: a kernel of {weight.shape[2:]} with dilation {dilation} is larger than "
                f"the image {x.shape[2:]} with padding {padding}"
            )
