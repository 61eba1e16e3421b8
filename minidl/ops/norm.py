"""Batch normalisation (Ioffe and Szegedy 2015): one op for training, one for frozen statistics; group normalisation."""

from __future__ import annotations

from minidl import kernels
from minidl.arguments import count, number
from minidl.array import Array, array_module, is_array, sum_type
from minidl.core import Grads, Op, Tensor, sum_of
from minidl.mixed import FLOAT32, HALF


class BatchNorm(Op):
    """y = gamma (x - mean) / sqrt(var + eps) + beta, mean and var of this batch, kept as `.mean` and `.var`"""

    precision = HALF, FLOAT32, FLOAT32  # x, gamma, beta
    values: int  # of a channel, over which mean and var were taken

    def __init__(self, eps: float) -> None:
        self.eps = eps

    def forward(self, x: Array, gamma: Array, beta: Array) -> Array:  # (N,C,...) (C,) (C,)
        check_batch(x, gamma, beta)
        y, self.mean, self.var = kernels.of(x).batch_norm(x, gamma, beta, self.eps)
        self.x, self.gamma, self.values = x, gamma, x.size // x.shape[1]
        return y

    def push(self, tx: Array | None, tgamma: Array | None, tbeta: Array | None) -> Array:
        """ty = scale (tx - mean(tx) - x_hat mean(tx x_hat)) + tgamma x_hat + tbeta

        With scale = gamma / sqrt(var + eps) and x_hat = (x - mean) / sqrt(var + eps). The first term is a symmetric map of tx,
        the one that gives gx of gy.
        """
        of_x = None if tx is None else kernels.of(tx).batch_norm_grad(tx, self.x, self.gamma, self.mean, self.var, self.eps)[0]
        return sum_of(of_x, push_line(self.x, self.mean, 1 / (self.var + self.eps) ** 0.5, tgamma, tbeta))

    def backward(self, gy: Array) -> Grads:  # (N,C,...)
        """gx = scale (gy - mean(gy) - x_hat mean(gy x_hat)), ggamma = sum gy x_hat, gbeta = sum gy"""
        return kernels.of(gy).batch_norm_grad(gy, self.x, self.gamma, self.mean, self.var, self.eps)


class BatchNormFrozen(Op):
    """y = gamma (x - mean) / sqrt(var + eps) + beta, mean and var given: a line in x, channel by channel"""

    precision = HALF, FLOAT32, FLOAT32  # x, gamma, beta

    def __init__(self, mean: Array, var: Array, eps: float) -> None:
        self.mean, self.var, self.eps = mean, var, eps

    def forward(self, x: Array, gamma: Array, beta: Array) -> Array:  # (N,C,...) (C,) (C,)
        check(x, gamma=gamma, beta=beta, mean=self.mean, var=self.var)
        self.x: Array | None = x
        self.inv_std, self.scale, shift = kernels.of(self.var).norm_line(self.mean, self.var, gamma, beta, self.eps)
        return kernels.of(x).channel_affine(x, self.scale, shift)

    def push(self, tx: Array | None, tgamma: Array | None, tbeta: Array | None) -> Array:
        """ty = scale tx + tgamma x_hat + tbeta"""
        of_x = None if tx is None else kernels.of(tx).channel_affine(tx, self.scale, 0 * self.scale)
        x: Array = self.inputs[0].data  # type: ignore[union-attr]
        return sum_of(of_x, push_line(x, self.mean, self.inv_std, tgamma, tbeta))

    def backward(self, gy: Array) -> Grads:  # (N,C,...)
        """gx = scale gy with scale = gamma / sqrt(var + eps), one number a channel; ggamma = sum gy x_hat, gbeta = sum gy"""
        k, gx, ggamma, gbeta = kernels.of(gy), None, None, None
        if self.needs[0]:
            gx = k.channel_affine(gy, self.scale, 0 * self.scale)
        if self.needs[1] or self.needs[2]:
            gbeta, sum_gd = k.channel_sums(gy, self.x, self.mean)
            ggamma = sum_gd * self.inv_std  # sum gy x_hat
        return gx, ggamma, gbeta


class GroupNorm(Op):
    """y = gamma (x - mean) / sqrt(var + eps) + beta, mean and var of a group of channels of one image, `.mean` and `.var`"""

    precision = HALF, FLOAT32, FLOAT32  # x, gamma, beta

    def __init__(self, num_groups: int, eps: float) -> None:
        self.num_groups, self.eps = num_groups, eps

    def forward(self, x: Array, gamma: Array | None, beta: Array | None) -> Array:  # (N,C,...) (C,) (C,)
        check(x, **{name: v for name, v in (("weight", gamma), ("bias", beta)) if v is not None})
        C, one = x.shape[1], array_module(x).ones(x.shape[1], sum_type(x.dtype))
        if C % self.num_groups:
            raise ValueError(f"num_groups: expected a divisor of the {C} channels, got {self.num_groups}")
        if x[0].size == self.num_groups:
            raise ValueError(f"x: one value per group has no variance, got shape {x.shape} and {self.num_groups} groups")
        self.x, self.gamma = x, one if gamma is None else gamma
        shift = 0 * one if beta is None else beta
        y, self.mean, self.var = kernels.of(x).group_norm(x, self.num_groups, self.gamma, shift, self.eps)
        return y

    def push(self, tx: Array | None, tgamma: Array | None, tbeta: Array | None) -> Array:
        """ty = gamma (tx - mean(tx) - x_hat mean(tx x_hat)) / sqrt(var + eps) + tgamma x_hat + tbeta

        With x_hat = (x - mean) / sqrt(var + eps) and means over a group. Without gamma the first term is a symmetric map.
        """
        k, of_x, of_gamma, none = kernels.of(self.x), None, None, 0 * self.gamma
        if tx is not None:
            of_x = k.group_norm_grad(tx, self.x, none + 1, self.mean, self.var, self.eps)[0]
            of_x = k.channel_affine(of_x, self.gamma, none)
        if tgamma is not None or tbeta is not None:
            slope, shift = none if tgamma is None else tgamma, none if tbeta is None else tbeta
            of_gamma = k.group_norm(self.x, self.num_groups, slope, shift, self.eps)[0]
        return sum_of(of_x, of_gamma)

    def backward(self, gy: Array) -> Grads:  # (N,C,...)
        """gx = (g - mean(g) - x_hat mean(g x_hat)) / sqrt(var + eps), g = gamma gy; ggamma = sum gy x_hat, gbeta = sum gy"""
        return kernels.of(gy).group_norm_grad(gy, self.x, self.gamma, self.mean, self.var, self.eps)


def push_line(x: Array, mean: Array, inv_std: Array, tgamma: Array | None, tbeta: Array | None) -> Array | None:
    """What gamma x_hat + beta changes by with gamma and beta: tgamma x_hat + tbeta, None where neither does."""
    if tgamma is None and tbeta is None:
        return None
    tscale = 0 * mean if tgamma is None else tgamma * inv_std
    return kernels.of(x).channel_affine(x, tscale, (0 if tbeta is None else tbeta) - mean * tscale)


def batch_norm(x: Tensor, gamma: Tensor, beta: Tensor, eps: float = 1e-5) -> Tensor:
    """y = gamma (x - mean) / sqrt(var + eps) + beta, with the mean and the biased variance of this batch.

    x (N,C,...), gamma, beta (C,) -> (N,C,...). The op changes no running statistics: `nn.BatchNorm2d` does.
    Raises ValueError where a channel has a single value, a shape does not fit or eps is negative, TypeError for gamma and beta
    of another type than x (beside halves: than float32).

    Ioffe and Szegedy 2015, "Batch normalization: accelerating deep network training", algorithm 1.
    """
    return BatchNorm(number(eps, "eps", "[0, inf)"))(x, gamma, beta)


def batch_norm_frozen(x: Tensor, gamma: Tensor, beta: Tensor, mean: Array, var: Array, eps: float = 1e-5) -> Tensor:
    """y = gamma (x - mean) / sqrt(var + eps) + beta, with given statistics, as in evaluation.

    x (N,C,...), gamma, beta and the arrays mean, var (C,) -> (N,C,...). Raises ValueError where a shape does not fit or eps is
    negative, TypeError for another type of the four than `batch_norm` takes.

    Ioffe and Szegedy 2015, "Batch normalization: accelerating deep network training", algorithm 2.
    """
    return BatchNormFrozen(mean, var, number(eps, "eps", "[0, inf)"))(x, gamma, beta)


def group_norm(
    x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """y = weight (x - mean) / sqrt(var + eps) + bias, mean and biased variance of each group of channels of each image.

    x (N,C,...), weight and bias (C,), None for 1 and 0 -> (N,C,...). The C channels make `num_groups` groups of neighbours: C
    of them are instance norm. No image hears of another one, so that a batch may be of any size, and training and evaluation
    are the same. Raises ValueError where the number of groups does not divide C, a group has a single value, a shape does not
    fit or eps is negative, TypeError for what is no integer, and for weight and bias of another type than `batch_norm` takes.

    Wu and He 2018, "Group normalization", section 3.
    """
    return GroupNorm(count(num_groups, "num_groups"), number(eps, "eps", "[0, inf)"))(x, weight, bias)


def running_average(running: Array, batch: Array, momentum: float, factor: float = 1.0) -> Array:
    """(1 - momentum) running + momentum factor batch: how a running statistic (C,) follows that of a batch; a new array."""
    y: Array = kernels.of(batch).weighted_sum(running, 1 - momentum, batch, momentum * factor)
    return y


def check_batch(x: Array, gamma: Array, beta: Array) -> None:
    """What normalisation by the statistics of a batch demands of its inputs."""
    check(x, gamma=gamma, beta=beta)
    check_several(x)


def check_several(x: Array) -> None:
    if x.size == x.shape[1]:
        raise ValueError(f"x: one value per channel has no variance, got shape {x.shape}")


def check(x: Array, **vectors: Array) -> None:
    if x.ndim < 2:
        raise ValueError(f"x: expected (N, C, ...), got shape {x.shape}")
    for name, v in vectors.items():
        if not is_array(v):
            raise TypeError(f"{name}: expected an array, got {type(v).__name__}")
        if v.shape != (x.shape[1],):
            raise ValueError(f"{name}: expected shape ({x.shape[1]},), one value per channel, got {v.shape}")
        if v.dtype != sum_type(x.dtype):
            beside = f"{sum_type(x.dtype)} beside halves" if x.dtype.itemsize < 4 else f"{x.dtype}, as x is"
            raise TypeError(f"{name}: expected {beside}, got {v.dtype}")
