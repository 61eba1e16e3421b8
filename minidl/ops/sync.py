"""Batch normalisation over the batch of all ranks: every rank has some of its images, and all take the same mean and variance.

    with synchronized(parallel.world()):
        y = model(x)

Forward: the sums of all ranks make the mean, and then their sums of (x - mean)^2 the variance. Backward: sum g and
sum g (x - mean) are added up over the ranks, for every image had a part in mean and variance. The gradients of gamma and beta
stay those of the own images, and are added up later, with all others.
"""

from __future__ import annotations

import numpy as np

from minidl import kernels
from minidl.array import Array, array_module, sum_type
from minidl.contexts import Block, Setting
from minidl.core import Grads
from minidl.kernels.shapes import parts
from minidl.ops.fused import BatchNormReLU, check_residual
from minidl.ops.norm import BatchNorm, check, check_several
from minidl.parallel import ALONE, Communicator

_world: Setting[Communicator] = Setting("synchronized", ALONE)


def synchronized(world: Communicator) -> Block[None]:
    """Inside, batch norm in training takes its statistics over the batches of all ranks, in this thread.

    Convolutions take the algorithm that suits the images of all, as of one process: each rounds in its own way.
    """
    return Block(None, (_world, world), (parts, world.size))


def ranks() -> Communicator:
    """Those that batch norm speaks to: inside `synchronized` its world, else nobody."""
    return _world.value


def batch_norm(eps: float) -> BatchNorm:
    """The op for training, here and now."""
    return BatchNorm(eps) if ranks().size == 1 else SyncBatchNorm(eps, ranks())


def batch_norm_relu(eps: float) -> BatchNormReLU:
    """The op for training with a relu behind it, here and now."""
    return BatchNormReLU(eps) if ranks().size == 1 else SyncBatchNormReLU(eps, ranks())


class SyncBatchNorm(BatchNorm):
    """y = gamma (x - mean) / sqrt(var + eps) + beta, mean and var of the batches of all ranks, kept as `.mean` and `.var`"""

    def __init__(self, eps: float, world: Communicator) -> None:
        self.eps, self.world = eps, world

    def forward(self, x: Array, gamma: Array, beta: Array) -> Array:  # (N,C,...) (C,) (C,)
        self.scale, shift = self.line(x, gamma, beta)
        return kernels.of(x).channel_affine(x, self.scale, shift)

    def push(self, tx: Array | None, tgamma: Array | None, tbeta: Array | None) -> Array:
        """ty = scale (tx - mean(tx) - x_hat mean(tx x_hat)) + tgamma x_hat + tbeta, of one rank; several do not compute it"""
        check_alone(self.world)
        return super().push(tx, tgamma, tbeta)

    def backward(self, gy: Array) -> Grads:  # (N,C,...)
        """gx = scale (gy - mean(gy) - x_hat mean(gy x_hat)), means over all ranks; ggamma = sum gy x_hat, gbeta = sum gy"""
        k = kernels.of(gy)
        gbeta, sum_gd = k.channel_sums(gy, self.x, self.mean)
        ggamma, a, b = line_grad(self.world, gbeta, sum_gd, self.scale, self.inv_std, self.values)
        gx = k.channel_affine(gy, self.scale, 0 * self.scale)
        shape = len(gx), gx.shape[1], -1, 1
        k.subtract_line(gx.reshape(shape), self.x.reshape(shape), 0, self.mean, a, b)
        return gx, ggamma, gbeta

    def line(self, x: Array, gamma: Array, beta: Array) -> tuple[Array, Array]:
        """y = scale x + shift"""
        check(x, gamma=gamma, beta=beta)
        self.x, self.gamma = x, gamma
        flat = x.reshape(len(x), x.shape[1], -1, 1)
        self.mean, var, self.values = statistics(self.world, flat, 0, x.shape[1])
        self.var = var.astype(self.mean.dtype)
        std = (var + self.eps) ** 0.5  # in float64, and rounded once, as in the kernel of one process
        self.inv_std, scale = (1 / std).astype(self.mean.dtype), (gamma / std).astype(self.mean.dtype)
        return scale, (beta - self.mean.astype(np.float64) * scale).astype(self.mean.dtype)


class SyncBatchNormReLU(SyncBatchNorm, BatchNormReLU):
    """y = max(gamma (x - mean) / sqrt(var + eps) + beta + r, 0), mean and var of the batches of all ranks"""

    def forward(self, x: Array, gamma: Array, beta: Array, r: Array | None = None) -> Array:  # (N,C,...) (C,) (C,) (N,C,...)
        check_residual(x, r)
        self.scale, shift = self.line(x, gamma, beta)
        self.y = kernels.of(x).channel_affine_relu(x, r, self.scale, shift)
        return self.y

    def push(self, tx: Array | None, tgamma: Array | None, tbeta: Array | None, tr: Array | None = None) -> Array:
        """ty = tn + tr where y > 0, else 0; tn is ty of the norm alone, of one rank; several do not compute it"""
        check_alone(self.world)
        return BatchNormReLU.push(self, tx, tgamma, tbeta, tr)

    def backward(self, gy: Array) -> Grads:  # (N,C,...)
        """gr = gy where y > 0, else 0; gx, ggamma, gbeta as of the norm alone, from gr"""
        gr = kernels.of(gy).relu_grad(gy, self.y)
        return *super().backward(gr), gr if self.needs[3] else None


def statistics(world: Communicator, X: Array, first: int, count: int) -> tuple[Array, Array, int]:
    """Mean, variance in float64 (count,), and number of the values of the channels first, ..., first + count - 1 on all ranks.

    In two rounds, as in one process: the mean of all first, and then the squares of what is left. So mean and variance have the
    bits of one process, and with them the forward pass: no relu near 0 opens or shuts because there are several ranks.
    """
    if world.size == 1:
        check_several(X)
    xp, k, kind = array_module(X), kernels.of(X), sum_type(X.dtype)
    total, _ = k.channel_moments(X, first, xp.zeros(count, kind))
    told = world.sum(xp.concatenate([total, xp.full(1, X.size // X.shape[1], total.dtype)]))
    values = told[-1]
    mean = (told[:-1] / values).astype(kind)
    _, squares = k.channel_moments(X, first, mean)
    return mean, world.sum(squares) / values, int(values)


def line_grad(
    world: Communicator, sum_g: Array, sum_gd: Array, scale: Array, inv_std: Array, values: int
) -> tuple[Array, Array, Array]:
    """ggamma of this rank, and a, b of all: gx = scale g - a - b (x - mean), see `kernels.reference.norm_line_grad`."""
    k = kernels.of(sum_g)
    ggamma, a, b = k.norm_line_grad(sum_g, sum_gd, scale, inv_std, values)
    if world.size > 1:
        xp = array_module(sum_g)
        sums = world.sum(xp.stack([sum_g, sum_gd]).astype(np.float64)).astype(sum_g.dtype)
        _, a, b = k.norm_line_grad(sums[0], sums[1], scale, inv_std, values)
    return ggamma, a, b


def check_alone(world: Communicator) -> None:
    if world.size > 1:
        raise NotImplementedError(f"push: forward mode is of one process, got {world.size} ranks; leave `synchronized` out")
