"""The kernels in Numba: the functions of `reference`, same names, same signatures, same results within rounding.

Compiled when first called, for float32 or float64, and kept on disk (`cache.py`).
"""

from minidl.kernels.compiled.conv import conv2d, conv2d_grad_w, conv2d_grad_x
from minidl.kernels.compiled.dense import (
    affine_relu_conv,
    affine_relu_conv_grad,
    channel_moments,
    channel_statistics,
    subtract_line,
)
from minidl.kernels.compiled.elementwise import adamw_update, add, rectify, relu, relu_grad, sgd_update
from minidl.kernels.compiled.gemm import matmul
from minidl.kernels.compiled.group_norm import group_norm, group_norm_grad
from minidl.kernels.compiled.loss import softmax_cross_entropy
from minidl.kernels.compiled.memory import keep_freed_memory
from minidl.kernels.compiled.norm import (
    batch_norm,
    batch_norm_grad,
    batch_norm_relu,
    batch_norm_relu_grad,
    channel_affine,
    channel_affine_relu,
    channel_affine_relu_grad,
    channel_sums,
)
from minidl.kernels.compiled.pool import avg_pool2d, avg_pool2d_grad, max_pool2d, max_pool2d_grad
from minidl.kernels.compiled.random import dropout
from minidl.kernels.compiled.threads import wait_quietly
from minidl.kernels.reference import (  # of few numbers
    norm_line,
    norm_line_grad,
    rows_and_columns,  # two products of matrices, by BLAS
    weighted_sum,
)

keep_freed_memory()
wait_quietly()  # before Numba starts its threads, at the first call of a kernel

__all__ = [
    "adamw_update",
    "add",
    "affine_relu_conv",
    "affine_relu_conv_grad",
    "avg_pool2d",
    "avg_pool2d_grad",
    "batch_norm",
    "batch_norm_grad",
    "batch_norm_relu",
    "batch_norm_relu_grad",
    "channel_affine",
    "channel_affine_relu",
    "channel_affine_relu_grad",
    "channel_moments",
    "channel_statistics",
    "channel_sums",
    "conv2d",
    "conv2d_grad_w",
    "conv2d_grad_x",
    "dropout",
    "group_norm",
    "group_norm_grad",
    "matmul",
    "max_pool2d",
    "max_pool2d_grad",
    "norm_line",
    "norm_line_grad",
    "rectify",
    "relu",
    "relu_grad",
    "rows_and_columns",
    "sgd_update",
    "softmax_cross_entropy",
    "subtract_line",
    "weighted_sum",
]
