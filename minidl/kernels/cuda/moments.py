"""Sums over all but the channels, in an order that only the shape decides: the same bits in every run.

A channel's images are dealt out to a few blocks, so that few channels keep a large device busy too. The threads of a block
sum their share one by one, then meet in shared memory in a tree, thread t with thread t + 128, then t + 64, ...; what the
blocks of a channel found meets in a tree once more. No atomics: they would add in the order of arrival.
"""

from __future__ import annotations

from typing import Any

from numba import cuda

from minidl.array import Array, array_module, sum_type
from minidl.kernels.cache import kept
from minidl.kernels.cuda.launch import AHEAD, THREADS, U, block_for, launch_blocks

SHARE = 16  # values that a thread sums at least, before another block is worth it
PIECES = 64  # blocks of a channel at most; a power of two


def moments(x: Array) -> tuple[Array, Array]:
    """mean = sum x / m and var = sum (x - mean)^2 / m of each channel: x (N,C,HW), any strides -> two of (C,)"""
    xp, C = array_module(x), x.shape[1]
    grid, block = _blocks(x)
    counts, means, squares = (xp.empty(grid, sum_type(x.dtype)) for _ in range(3))
    launch_blocks(_moments, grid, block, x, counts, means, squares)
    mean, var = (xp.empty(C, means.dtype) for _ in range(2))
    launch_blocks(_merge, (C,), (PIECES,), counts, means, squares, mean, var)
    return mean, var


def sums(gy: Array, y: Array | None, x: Array, mean: Array) -> tuple[Array, Array]:
    """sum g and sum g (x - mean[c]) of each channel, g = gy where y > 0, else 0; or gy without y: (N,C,HW) -> two of (C,)"""
    return sums_by(_sums, x, gy, gy if y is None else y, y is not None, x, mean)


def sums_by(kernel: Any, x: Array, *args: Any) -> tuple[Array, Array]:
    """Two sums (C,), over the values of each channel of x (N,C,HW): kernel(*args, firsts, seconds) gives those of each block"""
    xp, C = array_module(x), x.shape[1]
    grid, block = _blocks(x)
    firsts, seconds = (xp.empty(grid, sum_type(x.dtype)) for _ in range(2))
    launch_blocks(kernel, grid, block, *args, firsts, seconds)
    first, second = (xp.empty(C, firsts.dtype) for _ in range(2))
    launch_blocks(_add_up, (C,), (PIECES,), firsts, seconds, first, second)
    return first, second


def _blocks(x: Array) -> tuple[tuple[int, int], tuple[int, ...]]:
    """The grid, (C, blocks of a channel), and the block, threads along pixels and images"""
    N, C, HW = x.shape
    block = block_for((N, HW))
    return (C, max(1, min(PIECES, -(-N // block[1]), N * HW // (THREADS * SHARE)))), block


@cuda.jit(device=True)
def _thread():
    """The number of this thread in its block"""
    return cuda.threadIdx.y * cuda.blockDim.x + cuda.threadIdx.x


# ---- mean and variance


@kept(cuda.jit)
def _moments(x, counts, means, squares):
    """Of a block's share, a mean and the sum of squared deviations from it, updated value by value (Welford 1962)"""
    N, c, piece = x.shape[0], cuda.blockIdx.x, cuda.blockIdx.y
    zero, one = means.dtype.type(0), means.dtype.type(1)
    count, mean, square = zero, zero, zero
    values = cuda.local.array(AHEAD, means.dtype)
    dn = cuda.gridDim.y * cuda.blockDim.y
    i = cuda.threadIdx.x
    while i < x.shape[2]:
        n = piece * cuda.blockDim.y + cuda.threadIdx.y
        while n < N:
            for k in range(AHEAD):
                values[k] = x[U(min(n + k * dn, N - 1)), U(c), U(i)]
            for k in range(AHEAD):
                if n + k * dn < N:
                    count += one
                    deviation = values[k] - mean
                    mean += deviation / count
                    square += deviation * (values[k] - mean)
            n += AHEAD * dn
        i += cuda.blockDim.x
    count, mean, square = _merged(count, mean, square, means)
    if _thread() == 0:
        counts[c, piece], means[c, piece], squares[c, piece] = count, mean, square


@kept(cuda.jit)
def _merge(counts, means, squares, mean, var):
    """mean[c] and var[c] from those of the channel's blocks, a thread each"""
    c, t = cuda.blockIdx.x, cuda.threadIdx.x
    count, mu, square = mean.dtype.type(0), mean.dtype.type(0), mean.dtype.type(0)
    if t < counts.shape[1]:
        count, mu, square = counts[c, t], means[c, t], squares[c, t]
    count, mu, square = _merged(count, mu, square, mean)
    if t == 0:
        mean[c], var[c] = mu, square / count


@cuda.jit(device=True)
def _merged(count, mean, square, like):
    """What all threads of a block have, in the first of them; like: an array of that type"""
    t = _thread()
    counts = cuda.shared.array(THREADS, like.dtype)
    means = cuda.shared.array(THREADS, like.dtype)
    squares = cuda.shared.array(THREADS, like.dtype)
    counts[t], means[t], squares[t] = count, mean, square
    half = cuda.blockDim.x * cuda.blockDim.y // 2
    while half > 0:
        cuda.syncthreads()
        if t < half:
            o = t + half
            count, mean, square = _together(count, mean, square, counts[o], means[o], squares[o])
            counts[t], means[t], squares[t] = count, mean, square
        half //= 2
    return count, mean, square


@cuda.jit(device=True)
def _together(count, mean, square, more, more_mean, more_square):
    """Two sets as one: the mean moves by d m/n, squared deviations grow by d^2 (n - m) m/n (Chan, Golub, LeVeque 1979)"""
    if more == 0:
        return count, mean, square
    total = count + more
    d, share = more_mean - mean, more / total
    return total, mean + d * share, square + more_square + d * d * count * share


# ---- sums


@kept(cuda.jit)
def _sums(gy, y, gated, x, mean, firsts, seconds):
    """Of a block's share, sum g and sum g (x - mean[c])"""
    N, c = x.shape[0], cuda.blockIdx.x
    zero, mu = firsts.dtype.type(0), mean[c]
    first, second = zero, zero
    values = cuda.local.array(AHEAD, firsts.dtype)
    gradients = cuda.local.array(AHEAD, firsts.dtype)
    dn = cuda.gridDim.y * cuda.blockDim.y
    i = cuda.threadIdx.x
    while i < x.shape[2]:
        n = cuda.blockIdx.y * cuda.blockDim.y + cuda.threadIdx.y
        while n < N:
            for k in range(AHEAD):
                at = U(min(n + k * dn, N - 1))
                values[k], gradients[k] = x[at, U(c), U(i)], gy[at, U(c), U(i)]
                if gated:
                    gradients[k] = gradients[k] if y[at, U(c), U(i)] > zero else zero
            for k in range(AHEAD):
                if n + k * dn < N:
                    first += gradients[k]
                    second += gradients[k] * (values[k] - mu)
            n += AHEAD * dn
        i += cuda.blockDim.x
    put_together(first, second, firsts, seconds)


@kept(cuda.jit)
def _add_up(firsts, seconds, first, second):
    """first[c] and second[c]: the sums of the channel's blocks, a thread each"""
    c, t = cuda.blockIdx.x, cuda.threadIdx.x
    a, b = first.dtype.type(0), first.dtype.type(0)
    if t < firsts.shape[1]:
        a, b = firsts[c, t], seconds[c, t]
    a, b = _added(a, b, first)
    if t == 0:
        first[c], second[c] = a, b


@cuda.jit(device=True)
def put_together(first, second, firsts, seconds):
    """firsts[c,piece] and seconds[c,piece]: what the threads of a block have found, added up"""
    first, second = _added(first, second, firsts)
    if _thread() == 0:
        piece = cuda.blockIdx.x, cuda.blockIdx.y
        firsts[piece], seconds[piece] = first, second


@cuda.jit(device=True)
def _added(first, second, like):
    """The sums of what all threads of a block have, in the first of them; like: an array of that type"""
    t = _thread()
    firsts = cuda.shared.array(THREADS, like.dtype)
    seconds = cuda.shared.array(THREADS, like.dtype)
    firsts[t], seconds[t] = first, second
    half = cuda.blockDim.x * cuda.blockDim.y // 2
    while half > 0:
        cuda.syncthreads()
        if t < half:
            firsts[t] += firsts[t + half]
            seconds[t] += seconds[t + half]
        half //= 2
    return firsts[0], seconds[0]  # right in the first thread; the others may be too early
