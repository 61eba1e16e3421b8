"""Softmax cross-entropy: a row of threads a row of logits, which add up in a tree, in an order that only the shape decides."""

from __future__ import annotations

import math

import numpy as np
from numba import cuda

from minidl.array import Array, array_module, sum_type
from minidl.kernels.cache import kept
from minidl.kernels.cuda.launch import BLOCKS, THREADS, block_for, launch_blocks


def softmax_cross_entropy(z: Array, labels: Array, v: Array, smoothing: float) -> tuple[Array, Array]:
    """loss[n] = -sum_k t[n,k] log p[n,k] and its gradient g[n,k] = p[n,k] sum_j t[n,j] - t[n,k], p the softmax of z"""
    (N, K), xp, dtype = z.shape, array_module(z), sum_type(z.dtype)
    losses, g, block = xp.empty(N, dtype), xp.empty((N, K), z.dtype), block_for((N, K))
    grid = 1, min(-(-N // block[1]), BLOCKS)
    scalars = dtype.type(1 - smoothing), dtype.type(smoothing / K)
    launch_blocks(_softmax_cross_entropy, grid, block, z, labels, v, *scalars, losses, g)
    return losses, g


@kept(cuda.jit)
def _softmax_cross_entropy(z, labels, v, keep, spread, losses, g):
    """As above; the threads along x share a row"""
    N, K = z.shape
    t, threads = cuda.threadIdx.x, cuda.blockDim.x
    zero, never = np.float32(0), np.float32(-math.inf)
    shared = cuda.shared.array(THREADS, losses.dtype)
    for first in range(cuda.blockIdx.y * cuda.blockDim.y, N, cuda.gridDim.y * cuda.blockDim.y):
        n = min(first + cuda.threadIdx.y, N - 1)  # where no row is left, the last one once more: all threads have to meet
        best, total, loss, sum_t = np.float32(-math.inf), np.float32(0), np.float32(0), np.float32(0)
        for k in range(t, K, threads):
            best = max(best, z[n, k])
        best = _largest(shared, best)
        for k in range(t, K, threads):
            total += losses.dtype.type(math.exp(z[n, k] - best))
            sum_t += v[k] * (keep + spread if k == labels[n] else spread)
        total, sum_t = _sum(shared, total), _sum(shared, sum_t)
        log_total = losses.dtype.type(math.log(total))
        for k in range(t, K, threads):
            log_p = z[n, k] - best - log_total
            target = v[k] * (keep + spread if k == labels[n] else spread)
            if target != zero or log_p != never:  # 0 log 0 = 0
                loss -= target * log_p
            g[n, k] = losses.dtype.type(math.exp(log_p)) * sum_t - target
        loss = _sum(shared, loss)
        if t == 0:
            losses[n] = loss


@cuda.jit(device=True)
def _largest(shared, value):
    """The largest of the values of the threads along x"""
    t, row = cuda.threadIdx.x, cuda.threadIdx.y * cuda.blockDim.x
    shared[row + t] = value
    half = cuda.blockDim.x // 2
    while half > 0:
        cuda.syncthreads()
        if t < half:
            shared[row + t] = max(shared[row + t], shared[row + t + half])
        half //= 2
    cuda.syncthreads()
    found = shared[row]
    cuda.syncthreads()  # before another value comes into its place
    return found


@cuda.jit(device=True)
def _sum(shared, value):
    """The sum of the values of the threads along x: t with t + half, and so on"""
    t, row = cuda.threadIdx.x, cuda.threadIdx.y * cuda.blockDim.x
    shared[row + t] = value
    half = cuda.blockDim.x // 2
    while half > 0:
        cuda.syncthreads()
        if t < half:
            shared[row + t] += shared[row + t + half]
        half //= 2
    cuda.syncthreads()
    found = shared[row]
    cuda.syncthreads()
    return found
