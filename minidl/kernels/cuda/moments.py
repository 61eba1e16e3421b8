"""Sums over all but the channels, in an order that only the shape decides: the same bits in every run.

A channel's pictures are dealt out to a few blocks, so that few channels keep a large device busy too. The threads of a block
sum their share one by one, then meet in shared memory in a tree, thread t with thread t + 128, then t + 64, ...; what the
blocks found is put together in their order by one thread a channel. No atomics: they would add in the order of arrival.
"""

from __future__ import annotations

from numba import cuda

from minidl.array import Array, array_module, sum_type
from minidl.kernels.cuda.launch import THREADS, block_for, launch, launch_blocks

SHARE = 16  # values that a thread sums at least, before another block is worth it
PIECES = 64  # blocks of a channel at most


def moments(x: Array) -> tuple[Array, Array]:
    """mean = sum x / m and var = sum (x - mean)^2 / m of each channel: x (N,C,HW), any strides -> two of (C,)"""
    xp, C = array_module(x), x.shape[1]
    grid, block = _blocks(x)
    counts, means, squares = (xp.empty(grid, sum_type(x.dtype)) for _ in range(3))
    launch_blocks(_moments, grid, block, x, counts, means, squares)
    mean, var = (xp.empty(C, means.dtype) for _ in range(2))
    launch(_merge, (C,), counts, means, squares, mean, var)
    return mean, var


def sums(gy: Array, y: Array | None, x: Array, mean: Array) -> tuple[Array, Array]:
    """sum g and sum g (x - mean[c]) of each channel, g = gy where y > 0, else 0; or gy without y: (N,C,HW) -> two of (C,)"""
    xp, C = array_module(x), x.shape[1]
    grid, block = _blocks(x)
    firsts, seconds = (xp.empty(grid, sum_type(x.dtype)) for _ in range(2))
    launch_blocks(_sums, grid, block, gy, gy if y is None else y, y is not None, x, mean, firsts, seconds)
    first, second = (xp.empty(C, firsts.dtype) for _ in range(2))
    launch(_add_up, (C,), firsts, seconds, first, second)
    return first, second


def _blocks(x: Array) -> tuple[tuple[int, int], tuple[int, ...]]:
    """The grid, (C, blocks of a channel), and the block, threads along pixels and pictures"""
    N, C, HW = x.shape
    block = block_for((N, HW))
    return (C, max(1, min(PIECES, -(-N // block[1]), N * HW // (THREADS * SHARE)))), block


@cuda.jit
def _moments(x, counts, means, squares):
    """Of a block's share, a mean and the sum of squared deviations from it, updated value by value (Welford 1962)"""
    c, t = cuda.blockIdx.x, cuda.threadIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    zero, one = means.dtype.type(0), means.dtype.type(1)
    count, mean, square = zero, zero, zero
    for n in range(cuda.blockIdx.y * cuda.blockDim.y + cuda.threadIdx.y, x.shape[0], cuda.gridDim.y * cuda.blockDim.y):
        for i in range(cuda.threadIdx.x, x.shape[2], cuda.blockDim.x):
            count += one
            deviation = x[n, c, i] - mean
            mean += deviation / count
            square += deviation * (x[n, c, i] - mean)
    all_counts = cuda.shared.array(THREADS, means.dtype)
    all_means = cuda.shared.array(THREADS, means.dtype)
    all_squares = cuda.shared.array(THREADS, means.dtype)
    all_counts[t], all_means[t], all_squares[t] = count, mean, square
    half = cuda.blockDim.x * cuda.blockDim.y // 2
    while half > 0:
        cuda.syncthreads()
        if t < half:
            o = t + half
            count, mean, square = _together(count, mean, square, all_counts[o], all_means[o], all_squares[o])
            all_counts[t], all_means[t], all_squares[t] = count, mean, square
        half //= 2
    if t == 0:
        counts[c, cuda.blockIdx.y], means[c, cuda.blockIdx.y], squares[c, cuda.blockIdx.y] = count, mean, square


@cuda.jit
def _merge(counts, means, squares, mean, var):
    """mean[c] and var[c] from those of the channel's blocks"""
    for c in range(cuda.grid(1), len(mean), cuda.gridsize(1)):
        count, mu, square = counts[c, 0], means[c, 0], squares[c, 0]
        for piece in range(1, counts.shape[1]):
            count, mu, square = _together(count, mu, square, counts[c, piece], means[c, piece], squares[c, piece])
        mean[c], var[c] = mu, square / count


@cuda.jit(device=True)
def _together(count, mean, square, more, more_mean, more_square):
    """Two sets as one: the mean moves by d m/n, squared deviations grow by d^2 (n - m) m/n (Chan, Golub, LeVeque 1979)"""
    if more == 0:
        return count, mean, square
    total = count + more
    d, share = more_mean - mean, more / total
    return total, mean + d * share, square + more_square + d * d * count * share


@cuda.jit
def _sums(gy, y, gated, x, mean, firsts, seconds):
    """Of a block's share, sum g and sum g (x - mean[c])"""
    c, t = cuda.blockIdx.x, cuda.threadIdx.y * cuda.blockDim.x + cuda.threadIdx.x
    zero, mu = firsts.dtype.type(0), mean[c]
    first, second = zero, zero
    for n in range(cuda.blockIdx.y * cuda.blockDim.y + cuda.threadIdx.y, x.shape[0], cuda.gridDim.y * cuda.blockDim.y):
        for i in range(cuda.threadIdx.x, x.shape[2], cuda.blockDim.x):
            if not gated or y[n, c, i] > zero:
                first += gy[n, c, i]
                second += gy[n, c, i] * (x[n, c, i] - mu)
    all_firsts = cuda.shared.array(THREADS, firsts.dtype)
    all_seconds = cuda.shared.array(THREADS, firsts.dtype)
    all_firsts[t], all_seconds[t] = first, second
    half = cuda.blockDim.x * cuda.blockDim.y // 2
    while half > 0:
        cuda.syncthreads()
        if t < half:
            all_firsts[t] += all_firsts[t + half]
            all_seconds[t] += all_seconds[t + half]
        half //= 2
    if t == 0:
        firsts[c, cuda.blockIdx.y], seconds[c, cuda.blockIdx.y] = all_firsts[0], all_seconds[0]


@cuda.jit
def _add_up(firsts, seconds, first, second):
    """first[c] and second[c]: the sums of the channel's blocks, added in their order"""
    for c in range(cuda.grid(1), len(first), cuda.gridsize(1)):
        a, b = firsts[c, 0], seconds[c, 0]
        for piece in range(1, firsts.shape[1]):
            a += firsts[c, piece]
            b += seconds[c, piece]
        first[c], second[c] = a, b
