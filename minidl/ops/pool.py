"""Pooling: the largest or the mean value of a window, or of the whole image."""

from __future__ import annotations

from minidl import kernels
from minidl.arguments import Pair, flag, images, pair
from minidl.array import Array, array_module, sum_type
from minidl.core import Grads, Op, Tensor
from minidl.kernels.shapes import conv_size
from minidl.ops.resize import RowsAndColumns


class MaxPool2d(Op):
    """y[n,c,i,j] = max_{u,v} x[n,c, i*s + u - p, j*s + v - p]"""

    def __init__(self, kernel_size: Pair, stride: Pair, padding: Pair, ceil_mode: bool) -> None:
        self.kernel_size, self.stride, self.padding, self.ceil_mode = kernel_size, stride, padding, ceil_mode

    def forward(self, x: Array) -> Array:  # (N,C,H,W)
        out = _pooled_size(x, self.kernel_size, self.stride, self.padding, self.ceil_mode)
        self.x_shape = x.shape
        y, self.argmax = kernels.of(x).max_pool2d(x, self.kernel_size, self.stride, self.padding, out)
        return y  # (N,C,OH,OW)

    def push(self, tx: Array) -> Array:
        """ty[n,c,i,j] = tx[n,c,k], k the argmax of the window: the cell with the largest x"""
        xp, (N, C) = array_module(tx), tx.shape[:2]
        return tx[xp.arange(N)[:, None, None, None], xp.arange(C)[:, None, None], *self.indices()]

    def backward(self, gy: Array) -> Grads:  # (N,C,OH,OW)
        """gx[n,c,k] = sum gy[n,c,i,j] over the windows that cell k has won"""
        k = kernels.of(gy)
        return (k.max_pool2d_grad(gy, self.argmax, self.x_shape, self.kernel_size, self.stride, self.padding),)

    def indices(self) -> tuple[Array, Array]:
        """The row and the column in x of the maximum of each window, (N,C,OH,OW) both."""
        xp, (sh, sw), (ph, pw), (OH, OW) = array_module(self.argmax), self.stride, self.padding, self.argmax.shape[2:]
        u, v = self.argmax // self.kernel_size[1], self.argmax % self.kernel_size[1]
        return xp.arange(OH)[:, None] * sh + u - ph, xp.arange(OW) * sw + v - pw


class AvgPool2d(Op):
    """y[n,c,i,j] = mean_{u,v} x[n,c, i*s + u - p, j*s + v - p]"""

    def __init__(self, kernel_size: Pair, stride: Pair, padding: Pair, ceil_mode: bool, count_include_pad: bool) -> None:
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward(self, x: Array) -> Array:  # (N,C,H,W)
        out = _pooled_size(x, self.kernel_size, self.stride, self.padding, self.ceil_mode)
        self.x_shape = x.shape
        return kernels.of(x).avg_pool2d(x, self.kernel_size, self.stride, self.padding, out, self.count_include_pad)

    def push(self, tx: Array) -> Array:
        """ty[n,c,i,j] = mean_{u,v} tx[n,c, i*s + u - p, j*s + v - p]"""
        return self.forward(tx)

    def backward(self, gy: Array) -> Grads:  # (N,C,OH,OW)
        """gx[n,c,k] = sum gy[n,c,i,j] / count[i,j] over the windows that hold cell k"""
        k = kernels.of(gy)
        return (k.avg_pool2d_grad(gy, self.x_shape, self.kernel_size, self.stride, self.padding, self.count_include_pad),)


class GlobalAvgPool2d(Op):
    """y[n,c] = sum_{i,j} x[n,c,i,j] / (H W)"""

    def forward(self, x: Array) -> Array:  # (N,C,H,W)
        images(x)
        self.x_shape = x.shape
        return x.mean(axis=(2, 3), dtype=sum_type(x.dtype)).astype(x.dtype, copy=False)

    def push(self, tx: Array) -> Array:
        """ty[n,c] = sum_{i,j} tx[n,c,i,j] / (H W)"""
        return self.forward(tx)

    def backward(self, gy: Array) -> Grads:  # (N,C)
        """gx[n,c,i,j] = gy[n,c] / (H W)"""
        H, W = self.x_shape[2:]
        return (array_module(gy).broadcast_to((gy / (H * W))[:, :, None, None], self.x_shape),)


def max_pool2d(
    x: Tensor, kernel_size: int | Pair, stride: int | Pair | None = None, padding: int | Pair = 0, ceil_mode: bool = False
) -> Tensor:
    """y[n,c,i,j] = max_{u,v} x[n,c, i*s + u - p, j*s + v - p]: the largest value of each window, (N,C,H,W) -> (N,C,OH,OW).

    kernel_size, stride (the kernel by default) and padding (with -inf, at most half the kernel) are ints or (vertical,
    horizontal) pairs, in pixels. OH = floor((H + 2p - k) / s) + 1; `ceil_mode` rounds up instead, but no window starts
    beyond the image and its left padding. Of equal values the first gets the gradient.

    Raises ValueError where the kernel is larger than the padded image, the padding more than half of it, or x of another
    shape, TypeError or ValueError for sizes that are no integers, or too small.
    """
    return MaxPool2d(*_window(kernel_size, stride, padding), flag(ceil_mode, "ceil_mode"))(x)


def avg_pool2d(
    x: Tensor,
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:
    """y[n,c,i,j] = mean_{u,v} x[n,c, i*s + u - p, j*s + v - p]: the mean of each window, (N,C,H,W) -> (N,C,OH,OW).

    The arguments are as for `max_pool2d`. Padding is with zeros, which count in the mean unless `count_include_pad` is False.
    What is raised is as of `max_pool2d`.
    """
    ceil_mode, count_include_pad = flag(ceil_mode, "ceil_mode"), flag(count_include_pad, "count_include_pad")
    return AvgPool2d(*_window(kernel_size, stride, padding), ceil_mode, count_include_pad)(x)


def global_avg_pool2d(x: Tensor) -> Tensor:
    """y[n,c] = sum_{i,j} x[n,c,i,j] / (H W): (N,C,H,W) -> (N,C). Raises ValueError for x of another shape.

    Lin, Chen and Yan 2014, "Network in network", section 3.2.
    """
    return GlobalAvgPool2d()(x)


def adaptive_avg_pool2d(x: Tensor, output_size: int | Pair) -> Tensor:
    """y[n,c,i,j] = the mean of x[n,c] in cell (i,j) of a grid that covers the image: (N,C,H,W) -> (N,C,OH,OW), any H and W.

    Cell i runs from floor(i H / OH) to ceil((i+1) H / OH), so neighbours may overlap, as in PyTorch. Raises
    ValueError for x of another shape, TypeError or ValueError for a size that is no integer of at least 1, or a pair of them.
    """
    return RowsAndColumns("adaptive average", pair(output_size, "output_size", 1))(x)


def _window(kernel_size: int | Pair, stride: int | Pair | None, padding: int | Pair) -> tuple[Pair, Pair, Pair]:
    k, p = pair(kernel_size, "kernel_size", 1), pair(padding, "padding", 0)
    if any(2 * p_ > k_ for p_, k_ in zip(p, k, strict=True)):
        raise ValueError(f"padding: expected at most half the kernel {k}, got {padding}")
    return k, k if stride is None else pair(stride, "stride", 1), p


def _pooled_size(x: Array, kernel_size: Pair, stride: Pair, padding: Pair, ceil_mode: bool) -> Pair:
    images(x)
    OH, OW = (_pooled(*a, ceil_mode) for a in zip(x.shape[2:], kernel_size, stride, padding, strict=True))
    if OH < 1 or OW < 1:
        raise ValueError(f"kernel_size: {kernel_size} is larger than the image {x.shape[2:]} with padding {padding}")
    return OH, OW


def _pooled(size: int, k: int, s: int, p: int, ceil_mode: bool) -> int:
    if not ceil_mode:
        return conv_size(size, k, s, p)
    o = -((k - size - 2 * p) // s) + 1  # rounds the quotient up
    return o - 1 if (o - 1) * s >= size + p else o  # the last window starts within the image or its left padding
