"""Softmax cross-entropy: a row of threads a row of logits, which add up in a tree, in an order that only the shape decides."""

from __future__ import annotations

import math

import numpy as np
from numba import cuda

from minidl.array import Array, array_module, sum_type
from minidl.kernels.cuda.launch import BLOCKS, THREADS, block_for, launch, launch_blocks


def softmax_cross_entropy(z: Array, labels: Array, v: Array, smoothing: float) -> tuple[Array, Array]:
    """loss[n] = -sum_k t[n,k] log p[n,k], p = softmax of z, t[n,k] = v[k] ((1 - s) [k = label n] + s/K); and log p"""
    (N, K), xp, dtype = z.shape, array_module(z), sum_type(z.dtype)
    losses, log_p = xp.empty(N, dtype), xp.empty((N, K), dtype)
    block = block_for((N, K))
    grid = 1, min(-(-N // block[1]), BLOCKS)
    scalars = dtype.type(1 - smoothing), dtype.type(smoothing / K)
    launch_blocks(_softmax_cross_entropy, grid, block, z, labels, v, *scalars, losses, log_p)
    return losses, log_p


def softmax_cross_entropy_grad(g: Array, log_p: Array, labels: Array, v: Array, smoothing: float) -> Array:
    """gz[n,k] = g (p[n,k] sum_j t[n,j] - t[n,k])"""
    (N, K), xp, number = log_p.shape, array_module(log_p), log_p.dtype.type
    gz, scalars = xp.empty((N, K), log_p.dtype), (number(1 - smoothing), number(smoothing / K))
    launch(_softmax_cross_entropy_grad, (N, K), log_p, g.reshape(1), labels, v, v.sum().reshape(1), *scalars, gz)
    return gz


@cuda.jit
def _softmax_cross_entropy(z, labels, v, keep, spread, losses, log_p):
    """As above; the threads along x share a row"""
    N, K = z.shape
    t, threads = cuda.threadIdx.x, cuda.blockDim.x
    shared = cuda.shared.array(THREADS, losses.dtype)
    for first in range(cuda.blockIdx.y * cuda.blockDim.y, N, cuda.gridDim.y * cuda.blockDim.y):
        n = min(first + cuda.threadIdx.y, N - 1)  # beyond the last row, where there is one less, it is done once more
        best, total, loss = np.float32(-math.inf), np.float32(0), np.float32(0)
        for k in range(t, K, threads):
            best = max(best, z[n, k])
        best = _largest(shared, best)
        for k in range(t, K, threads):
            total += losses.dtype.type(math.exp(z[n, k] - best))
        log_total = losses.dtype.type(math.log(_sum(shared, total)))
        for k in range(t, K, threads):
            log_p[n, k] = z[n, k] - best - log_total
            target = keep + spread if k == labels[n] else spread
            loss -= v[k] * target * log_p[n, k]
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


@cuda.jit
def _softmax_cross_entropy_grad(log_p, g, labels, v, sum_v, keep, spread, gz):
    """gz[n,k] = g (p[n,k] sum_j t[n,j] - t[n,k]), sum_j t[n,j] = (1 - s) v[label n] + s/K sum_k v[k]"""
    N, K = gz.shape
    first_k, first_n = cuda.grid(2)
    dk, dn = cuda.gridsize(2)
    for n in range(first_n, N, dn):
        total = keep * v[labels[n]] + spread * sum_v[0]
        for k in range(first_k, K, dk):
            target = keep + spread if k == labels[n] else spread
            gz[n, k] = g[0] * (total * gz.dtype.type(math.exp(log_p[n, k])) - v[k] * target)
