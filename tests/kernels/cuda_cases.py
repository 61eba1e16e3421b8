"""For every kernel of the set, arguments as an op may give them, drawn by families: small, since a simulated GPU is slow."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from hypothesis import strategies as st

from minidl.kernels import halves, reference
from minidl.ops.resize import MATRICES
from tests.kernels.test_agree import Draw

Cases = dict[str, list[Any]]  # a kernel's name: its arguments


def plain(x: np.ndarray) -> ModuleType:
    """The kernels to compare with, for arrays of the type of x"""
    return halves if x.dtype == np.float16 else reference


def conv(draw: Draw) -> Cases:
    """One geometry, and the arguments of all three passes"""
    groups = draw.data.draw(st.sampled_from((1, 1, 2)))
    N, C, F = draw.int(1, 3), draw.int(1, 3), draw.int(1, 3)  # C and F of one group
    kernel, stride, dilation, padding = draw.pair(1, 3), draw.pair(1, 3), draw.pair(1, 2), draw.pair(0, 2)
    H, W = (draw.int(max(1, d * (k - 1) + 1 - 2 * p), 7) for k, d, p in zip(kernel, dilation, padding, strict=True))
    x, w = draw.array((N, C * groups, H, W)), draw.array((F * groups, C, *kernel))
    b = draw.vector(F * groups) if draw.data.draw(st.booleans()) else None
    geometry = stride, padding, dilation, groups
    gy = draw.array(reference.conv2d(x, w, b, *geometry).shape)
    return {
        "conv2d": [x, w, b, *geometry],
        "conv2d_grad_x": [gy, w, x.shape, *geometry],
        "conv2d_grad_w": [gy, x, w.shape, *geometry],
    }


def conv3x3(F: int) -> Callable[[Draw], Cases]:
    """What the kernels without columns serve: stride 1, pictures of some size, F features"""

    def family(draw: Draw) -> Cases:
        N, C, padding, out = draw.int(1, 2), draw.int(1, 3), draw.pair(0, 2), draw.pair(5, 9)
        H, W = (size - 2 * p + 2 for size, p in zip(out, padding, strict=True))
        x, w, geometry = draw.array((N, C, H, W)), draw.array((F, C, 3, 3)), ((1, 1), padding, (1, 1), 1)
        gy = draw.array((N, F, *out))
        return {
            "conv2d": [x, w, None, *geometry],
            "conv2d_grad_x": [gy, w, x.shape, *geometry],
            "conv2d_grad_w": [gy, x, w.shape, *geometry],
        }

    family.__name__ = f"conv3x3 to {F}"
    return family


def pool(draw: Draw) -> Cases:
    kernel, stride = draw.pair(1, 4), draw.pair(1, 3)
    padding = tuple(draw.int(0, k // 2) for k in kernel)
    H, W = (draw.int(max(1, k - 2 * p), 8) for k, p in zip(kernel, padding, strict=True))
    out = []
    for size, k, s, p in zip((H, W), kernel, stride, padding, strict=True):
        o = reference.conv_size(size, k, s, p)
        out.append(o + 1 if draw.data.draw(st.booleans()) and o * s < size + p else o)  # as ceil_mode may
    x = draw.array((draw.int(1, 3), draw.int(1, 3), H, W))
    x = np.round(x) if draw.data.draw(st.booleans()) else x  # ties
    window = kernel, stride, padding
    _, winner = reference.max_pool2d(x, *window, tuple(out))
    gy, with_pad = draw.array(winner.shape), draw.data.draw(st.booleans())
    return {
        "max_pool2d": [x, *window, tuple(out)],
        "max_pool2d_grad": [gy, winner, x.shape, *window],
        "avg_pool2d": [x, *window, tuple(out), with_pad],
        "avg_pool2d_grad": [gy, x.shape, *window, with_pad],
    }


def batch(draw: Draw) -> np.ndarray:
    """(N,C), (N,C,L) or (N,C,H,W), at least two values a channel"""
    rest = draw.data.draw(st.sampled_from(((), (5,), (3, 4), (7, 1))))
    return draw.array((draw.int(2, 5), draw.int(1, 4), *rest))


def channels(draw: Draw) -> Cases:
    x = batch(draw)
    r = draw.array(x.shape) if draw.data.draw(st.booleans()) else None
    gy, scale, shift = draw.array(x.shape), draw.vector(x.shape[1]), draw.vector(x.shape[1])
    return {
        "channel_affine": [x, scale, shift],
        "channel_affine_relu": [x, r, scale, shift],
        "channel_affine_relu_grad": [gy, x, scale],
        "channel_sums": [gy, x],
        "add": [x, gy],
        "relu": [x],
        "relu_grad": [gy, x],
        "rectify": [draw.rng.standard_normal(x.shape).astype(draw.dtype), r],
    }


def norm(draw: Draw) -> Cases:
    x, eps = batch(draw), 1e-2
    gy, gamma, beta = draw.array(x.shape), draw.vector(x.shape[1]), draw.vector(x.shape[1])
    r = draw.array(x.shape) if draw.data.draw(st.booleans()) else None
    y, mean, var = plain(x).batch_norm_relu(x, r, gamma, beta, eps)
    return {
        "batch_norm": [x, gamma, beta, eps],
        "batch_norm_grad": [gy, x, gamma, mean, var, eps],
        "batch_norm_relu": [x, r, gamma, beta, eps],
        "batch_norm_relu_grad": [gy, y, x, gamma, mean, var, eps, draw.data.draw(st.booleans())],
    }


def line(draw: Draw) -> Cases:
    C = draw.int(1, 9)
    mean, gamma, beta, scale, sum_g, sum_gd, inv_std = (draw.vector(C) for _ in range(7))
    return {
        "norm_line": [mean, abs(draw.vector(C)), gamma, beta, 1e-2],
        "norm_line_grad": [sum_g, sum_gd, scale, inv_std, draw.int(2, 100)],
        "weighted_sum": [mean, 0.9, beta, 0.1],
    }


def dense(draw: Draw) -> Cases:
    N, C, F, k = draw.int(1, 3), draw.int(1, 4), draw.int(1, 3), draw.data.draw(st.sampled_from((1, 3)))
    first, H, W = C + draw.int(0, 2), draw.int(1, 5), draw.int(1, 5)
    rng, padding = draw.rng, (k // 2, k // 2)
    X, GY, GX = (rng.standard_normal((N, first + F + draw.int(0, 2), H, W)).astype(draw.dtype) for _ in range(3))
    scale, shift, mean = (draw.vector(C) for _ in range(3))
    w, add, need_w = draw.array((F, C, k, k)), draw.data.draw(st.booleans()), draw.data.draw(st.booleans())
    return {
        "channel_statistics": [X, first, F],
        "affine_relu_conv": [X, scale, shift, w, padding, GX, first],
        "affine_relu_conv_grad": [GY, first, X, scale, shift, mean, w, padding, GX, add, need_w],
        "subtract_line": [GX, X, draw.int(0, first + F - C), mean, scale, shift],
    }


def resize(draw: Draw) -> Cases:
    """Of an op, with rows of zeros where the picture gets smaller and this is its gradient; or any other"""
    (H, W), (OH, OW) = draw.pair(1, 9), draw.pair(1, 9)
    kind = draw.data.draw(st.sampled_from(("nearest", "bilinear", "bilinear, corners aligned", "adaptive average")))
    A, B = (MATRICES[kind](*sizes).astype(draw.dtype) for sizes in ((H, OH), (W, OW)))
    A, B = (A.T, B.T) if draw.data.draw(st.booleans()) else (A, B)
    return {"rows_and_columns": [draw.array((draw.int(1, 3), draw.int(1, 3), A.shape[1], B.shape[1])), A, B]}


def loss(draw: Draw) -> Cases:
    N, K, smoothing = draw.int(1, 9), draw.int(1, 12), draw.data.draw(st.sampled_from((0.0, 0.1)))
    z, labels, v = draw.array((N, K)), draw.rng.integers(0, K, N), abs(draw.array((K,)))
    return {"softmax_cross_entropy": [z, labels, v, smoothing]}


def random(draw: Draw) -> Cases:
    x = draw.array(draw.data.draw(st.sampled_from(((1,), (7, 5), (3, 2, 2, 3)))))
    return {"dropout": [x, draw.data.draw(st.sampled_from((0.0, 0.3, 0.9))), draw.int(0, 2**63 - 1)]}


def updates(draw: Draw) -> Cases:
    shape = draw.data.draw(st.sampled_from(((1,), (7, 5), (3, 2, 2, 3))))
    p, m = (draw.rng.standard_normal(shape).astype(draw.dtype) for _ in range(2))
    v, g = draw.rng.uniform(0, 1, shape).astype(draw.dtype), draw.array(shape)
    return {
        "sgd_update": [p, g, m, 0.1, 0.9, draw.data.draw(st.booleans()), 5e-4],
        "adamw_update": [p, g, m, v, draw.int(1, 1000), 1e-2, (0.9, 0.999), 1e-8, 0.1],
    }


CONV3X3 = conv3x3(7), conv3x3(9), conv3x3(14)  # a thread has 4, 6 or 8 of them
HALVES: tuple[Callable[[Draw], Cases], ...] = (
    conv,
    *CONV3X3,
    pool,
    channels,
    norm,
    dense,
    random,
)  # what mixed precision halves
FAMILIES: tuple[Callable[[Draw], Cases], ...] = (
    conv,
    *CONV3X3,
    pool,
    channels,
    norm,
    line,
    dense,
    resize,
    loss,
    random,
    updates,
)


def functions(kind: str) -> dict[str, Any]:
    """All that @cuda.jit has made in the modules of the CUDA kernels, by name; kind: the class that says so"""
    modules = [module for name, module in sys.modules.items() if name.startswith("minidl.kernels.cuda.")]
    values = [value for module in modules for value in vars(module).values()]
    values += [kernel for value in values if isinstance(value, dict) for kernel in value.values()]
    return {name_of(kernel): kernel for kernel in values if type(kernel).__name__ == kind}


def name_of(kernel: Any) -> str:
    """Such as pool._max_pool2d"""
    return f"{kernel.py_func.__module__.rpartition('.')[2]}.{kernel.py_func.__qualname__}"
