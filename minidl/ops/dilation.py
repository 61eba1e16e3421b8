"""Smooth dilation: every pixel takes the largest of the values around it, each weighed by how near it is."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minidl.arguments import images, number
from minidl.array import Array, array_module
from minidl.core import Grads, Op, Tensor
from minidl.mixed import FLOAT32


class SmoothMaxConvolution(Op):
    """y[n,c,p] = sum_q f_pq exp(f_pq / T) / sum_q exp(f_pq / T),  f_pq = kernel[p - q] x[n,c,q], q the cells around pixel p

    Pixel (i s + u, j s + v) lies in cell (i, j) and looks at the cells (i + a - r, j + b - r), weighed by kernel[a,b,u,v].
    """

    precision = (FLOAT32,)

    def __init__(self, kernel: Array, temperature: float) -> None:
        self.kernel, self.T = kernel, temperature

    def forward(self, x: Array) -> Array:  # (N,C,h,w)
        images(x)
        self.x_shape = N, C, h, w = x.shape
        s = self.kernel.shape[2]
        xp = array_module(x)
        self.padded = self.surrounded(x)  # (h+2r,w+2r,N,C)
        self.exp_sum = xp.zeros((s, s, h, w, N, C), x.dtype)
        weighed = xp.zeros_like(self.exp_sum)
        for _, _, f in self.terms():
            e = xp.exp(f / self.T)
            self.exp_sum += e
            weighed += f * e
        self.y = weighed / self.exp_sum
        return self.y.transpose(4, 5, 2, 0, 3, 1).reshape(N, C, h * s, w * s)

    def push(self, tx: Array) -> Array:  # (N,C,h,w)
        """ty[n,c,p] = sum_q exp(f_pq / T) (1 + (f_pq - y[n,c,p]) / T) kernel[p - q] tx[n,c,q] / sum_q exp(f_pq / T)"""
        s, (N, C, h, w), tpadded = self.kernel.shape[2], self.x_shape, self.surrounded(tx)
        ty = array_module(tx).zeros_like(self.exp_sum)
        for window, k, f in self.terms():
            ty += self.slope(f) * k * tpadded[window]
        return (ty / self.exp_sum).transpose(4, 5, 2, 0, 3, 1).reshape(N, C, h * s, w * s)

    def backward(self, gy: Array) -> Grads:  # (N,C,h s,w s)
        """gx[n,c,q] = sum_p exp(f_pq / T) (1 + (f_pq - y[n,c,p]) / T) kernel[p - q] gy[n,c,p] / sum_q exp(f_pq / T)"""
        xp, s, (N, C, h, w) = array_module(gy), self.kernel.shape[2], self.x_shape
        share = xp.ascontiguousarray(gy.reshape(N, C, h, s, w, s).transpose(3, 5, 2, 4, 0, 1)) / self.exp_sum
        gpadded = xp.zeros_like(self.padded)
        for window, k, f in self.terms():
            gpadded[window] += (share * self.slope(f) * k).sum((0, 1))
        r = self.kernel.shape[0] // 2
        return (gpadded[r : r + h, r : r + w].transpose(2, 3, 0, 1),)

    def slope(self, f: Array) -> Array:
        """exp(f / T) (1 + (f - y) / T), which is dy/df sum exp(f / T)"""
        return array_module(f).exp(f / self.T) * (1 + (f - self.y) / self.T)

    def surrounded(self, x: Array) -> Array:
        """x with r zeros on each side, the images last: a window is then long rows of memory, and they share one weight
        (twice to 5 times as fast)."""
        xp, r = array_module(x), self.kernel.shape[0] // 2
        return xp.pad(xp.ascontiguousarray(x.transpose(2, 3, 0, 1)), ((r, r), (r, r), (0, 0), (0, 0)))

    def terms(self) -> Iterator[tuple[tuple[slice, slice], Array, Array]]:
        """Of one neighbour (a, b) after the other: where it stands for all cells, kernel[a,b] and f (s,s,h,w,N,C)."""
        h, w = self.x_shape[2:]
        for a, b in np.ndindex(self.kernel.shape[:2]):
            window = slice(a, a + h), slice(b, b + w)
            k = self.kernel[a, b][:, :, None, None, None, None]
            yield window, k, self.padded[window] * k


def smooth_max_convolution(x: Tensor, kernel: Array, temperature: float) -> Tensor:
    """y = sum f exp(f / T) / sum exp(f / T) over the neighbours of each pixel, f = kernel times x: (N,C,h,w) -> (N,C,h s,w s).

    A maximum made smooth: max f for a temperature T near 0, and mean f for a high one.

    kernel: (2r+1,2r+1,s,s): of a cell of s x s pixels, whose corner pixel is [0,0], the weight of the cell a - r further down
    and b - r to the right is kernel[a,b,u,v] at its pixel (u, v). Beyond the border x is 0. x is meant to lie in [0, 1]:
    exp(f / T) must be finite. Raises ValueError for a kernel or x of another shape and a temperature that is not above 0,
    TypeError for one that is no number.

    Fong, Patrick and Vedaldi 2019, "Understanding deep networks via extremal perturbations and smooth masks", section 3.2.
    """
    K, L, s, t = kernel.shape if kernel.ndim == 4 else (0, 0, 0, 0)
    if K != L or s != t or K % 2 == 0:
        raise ValueError(f"kernel: expected (2r+1,2r+1,s,s), got shape {kernel.shape}")
    temperature = number(temperature, "temperature", "(0, inf)")
    return SmoothMaxConvolution(array_module(x.data).asarray(kernel, x.dtype), temperature)(x)
