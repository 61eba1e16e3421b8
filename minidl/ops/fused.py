"""Several ops in one sweep over memory.

Small nets spend much of their time waiting for memory. An op that normalises, adds and rectifies reads and writes each value
once, where three ops do so three times, and it leaves no array between them alive. Layers take these ops where a model calls
for them, as in `bn.relu(x)` and `nn.conv_relu(x, conv, bn)`, and spell out the same in single ops inside `with unfused():`, or
everywhere with MINIDL_FUSED=0 in the environment: the same numbers within rounding, and every op a node of its own.
"""

from __future__ import annotations

import os

from minidl import kernels
from minidl.arguments import Pair, number
from minidl.array import Array
from minidl.contexts import Block, Setting
from minidl.core import Add, Grads, Op, Tensor, sum_of
from minidl.ops.activation import ReLU
from minidl.ops.conv import Conv2d, geometry
from minidl.ops.norm import BatchNorm, BatchNormFrozen, check, check_batch

fuse = Setting("unfused", os.environ.get("MINIDL_FUSED", "1") != "0")


def fusing() -> bool:
    """Whether layers may take fused ops."""
    return fuse.value


def unfused() -> Block[None]:
    """Inside `with unfused():` this thread's layers call single ops, one after the other."""
    return Block(None, (fuse, False))


class BatchNormReLU(BatchNorm):
    """y = max(gamma (x - mean) / sqrt(var + eps) + beta + r, 0), mean and var of this batch"""

    def forward(self, x: Array, gamma: Array, beta: Array, r: Array | None = None) -> Array:  # (N,C,...) (C,) (C,) (N,C,...)
        check_batch(x, gamma, beta)
        check_residual(x, r)
        self.y, self.mean, self.var = kernels.of(x).batch_norm_relu(x, r, gamma, beta, self.eps)
        self.x, self.gamma, self.values = x, gamma, x.size // x.shape[1]
        return self.y

    def push(self, tx: Array | None, tgamma: Array | None, tbeta: Array | None, tr: Array | None = None) -> Array:
        """ty = tn + tr where y > 0, else 0; tn is ty of the norm alone"""
        return sum_of(super().push(tx, tgamma, tbeta), tr) * (self.y > 0)

    def backward(self, gy: Array) -> Grads:  # (N,C,...)
        """gr = gy where y > 0, else 0; gx, ggamma, gbeta as of the norm alone, from gr"""
        k = kernels.of(gy)
        gx, gr, ggamma, gbeta = k.batch_norm_relu_grad(
            gy, self.y, self.x, self.gamma, self.mean, self.var, self.eps, self.needs[3]
        )
        return gx, ggamma, gbeta, gr

    def gate(self) -> Array:
        return self.y > 0

    def parts(self) -> tuple[type[Op], ...]:
        return BatchNorm, *_behind(self)


class BatchNormFrozenReLU(BatchNormFrozen):
    """y = max(gamma (x - mean) / sqrt(var + eps) + beta + r, 0), mean and var given"""

    def forward(self, x: Array, gamma: Array, beta: Array, r: Array | None = None) -> Array:  # (N,C,...) (C,) (C,) (N,C,...)
        check(x, gamma=gamma, beta=beta, mean=self.mean, var=self.var)
        check_residual(x, r)
        self.inv_std, self.scale, shift = kernels.of(self.var).norm_line(self.mean, self.var, gamma, beta, self.eps)
        self.y = kernels.of(x).channel_affine_relu(x, r, self.scale, shift)
        self.x = x if self.needs[1] else None  # only the gradient of gamma asks for it
        return self.y

    def push(self, tx: Array | None, tgamma: Array | None, tbeta: Array | None, tr: Array | None = None) -> Array:
        """ty = tn + tr where y > 0, else 0; tn is ty of the norm alone"""
        return sum_of(super().push(tx, tgamma, tbeta), tr) * (self.y > 0)

    def backward(self, gy: Array) -> Grads:  # (N,C,...)
        """gr = gy where y > 0, else 0; gx, ggamma, gbeta as of the norm alone, from gr"""
        k, ggamma, gbeta = kernels.of(gy), None, None
        gx, gr = k.channel_affine_relu_grad(gy, self.y, self.scale)
        if self.needs[1] or self.needs[2]:
            gbeta, sum_gd = k.channel_sums(gr, gr if self.x is None else self.x, self.mean)
            ggamma = sum_gd * self.inv_std
        return gx, ggamma if self.needs[1] else None, gbeta, gr

    def gate(self) -> Array:
        return self.y > 0

    def parts(self) -> tuple[type[Op], ...]:
        return BatchNormFrozen, *_behind(self)


class Conv2dReLU(Conv2d):
    """y = max(conv2d(x, w, b) + r, 0)"""

    def forward(self, x: Array, w: Array, b: Array | None, r: Array | None = None) -> Array:  # as conv2d, r (N,F,OH,OW)
        self.y = super().forward(x, w, b)
        check_residual(self.y, r)
        kernels.of(x).rectify(self.y, r)  # in place: nobody else has this array yet
        return self.y

    def push(self, tx: Array | None, tw: Array | None, tb: Array | None, tr: Array | None = None) -> Array:
        """ty = tc + tr where y > 0, else 0; tc is ty of the convolution alone"""
        return sum_of(super().push(tx, tw, tb), tr) * (self.y > 0)

    def backward(self, gy: Array) -> Grads:  # (N,F,OH,OW)
        """gr = gy where y > 0, else 0; gx, gw, gb as of the convolution alone, from gr"""
        gr = kernels.of(gy).relu_grad(gy, self.y)
        return *super().backward(gr), gr if self.needs[3] else None

    def gate(self) -> Array:
        return self.y > 0

    def parts(self) -> tuple[type[Op], ...]:
        return Conv2d, *_behind(self)


def batch_norm_relu(x: Tensor, gamma: Tensor, beta: Tensor, residual: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """y = relu(batch_norm(x, gamma, beta) + residual): x, residual (N,C,...), gamma, beta (C,) -> (N,C,...)

    Raises ValueError for a residual of another shape, and all else, the source too, as of `batch_norm`.
    """
    return BatchNormReLU(number(eps, "eps", "[0, inf)"))(x, gamma, beta, residual)


def batch_norm_frozen_relu(
    x: Tensor, gamma: Tensor, beta: Tensor, mean: Array, var: Array, residual: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """y = relu(batch_norm_frozen(x, gamma, beta, mean, var) + residual)

    Shapes are as of `batch_norm_frozen`, residual as x. Raises ValueError for a residual of another shape, and all else, the
    source too, as of `batch_norm_frozen`.
    """
    return BatchNormFrozenReLU(mean, var, number(eps, "eps", "[0, inf)"))(x, gamma, beta, residual)


def conv2d_relu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    stride: int | Pair = 1,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> Tensor:
    """y = relu(conv2d(x, weight, bias) + residual), of which one array is kept

    The arguments are as of `conv2d`, residual (N,F,OH,OW). Raises ValueError for a residual of another shape, and all else as
    of `conv2d`.
    """
    return Conv2dReLU(*geometry(stride, padding, dilation, groups))(x, weight, bias, residual)


def check_residual(x: Array, r: Array | None) -> None:
    if r is not None and r.shape != x.shape:
        raise ValueError(f"residual: expected the shape of what it is added to, {x.shape}, got {r.shape}")


def _behind(op: Op) -> tuple[type[Op], ...]:
    """What follows the norm or the convolution: the addition of r, where there is one, and the relu"""
    return (ReLU,) if op.inputs[-1] is None else (Add, ReLU)
