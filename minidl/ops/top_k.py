"""Pooling over the k largest values of an image: one label for several instances, of which the strongest tell."""

from __future__ import annotations

from minidl.arguments import count, images
from minidl.array import Array, array_module, sum_type
from minidl.core import Grads, Op, Tensor


class TopKPool2d(Op):
    """y[n,c] = sum x[n,c,i,j] / k over the k largest of x[n,c]"""

    def __init__(self, k: int) -> None:
        self.k = k

    def forward(self, x: Array) -> Array:  # (N,C,H,W)
        images(x)
        xp, k, values = array_module(x), self.k, x.reshape(*x.shape[:2], -1)
        m = values.shape[2]
        if k > m:
            raise ValueError(f"k: expected at most the {m} pixels of images {x.shape}, got {k}")
        least = xp.sort(values, axis=2)[:, :, m - k, None]  # of those taken; NaN comes last, as the largest
        nan, only_nan = xp.isnan(values), xp.isnan(least)
        above = ((values > least) | nan) & ~only_nan
        level = xp.where(only_nan, nan, values == least)
        wanted = k - above.sum(axis=2, keepdims=True)
        self.taken = (above | (level & (level.cumsum(axis=2) <= wanted))).reshape(x.shape)
        return self.mean(x)

    def push(self, tx: Array) -> Array:
        """ty[n,c] = sum tx[n,c,i,j] / k over the cells with the k largest x"""
        return self.mean(tx)

    def backward(self, gy: Array) -> Grads:  # (N,C)
        """gx[n,c,i,j] = gy[n,c] / k in the cells with the k largest x, 0 elsewhere"""
        return (array_module(gy).where(self.taken, (gy / self.k)[:, :, None, None], gy.dtype.type(0)),)

    def mean(self, x: Array) -> Array:
        """sum x / k over what is taken, (N,C,H,W) -> (N,C)"""
        taken = array_module(x).where(self.taken, x, x.dtype.type(0))
        return (taken.sum(axis=(2, 3), dtype=sum_type(x.dtype)) / self.k).astype(x.dtype, copy=False)


def top_k_pool2d(x: Tensor, k: int) -> Tensor:
    """y[n,c] = the mean of the k largest values of x[n,c]: (N,C,H,W) -> (N,C), the maximum for k = 1, the mean for k = H W.

    For a label that a few places of an image decide: each of the k gets gy / k, whatever is elsewhere. Of equal values the
    first, row by row, are taken; NaN is larger than all, as in `max_pool2d`. Raises ValueError for x of another shape and k
    larger than H W, TypeError or ValueError for k that is no integer of at least 1.

    Durand, Thome and Cord 2016, "WELDON: weakly supervised learning of deep convolutional neural networks".
    """
    return TopKPool2d(count(k, "k"))(x)
