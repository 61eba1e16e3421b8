"""The kernels for CuPy arrays on a GPU, in numba.cuda: the functions of `reference`, same results within rounding.

Compiled when first called, for float16, float32 or float64, kept on disk (`cache.py`), and started on CuPy's current
stream. Numbers of float16 are read
as float32 and rounded when they are written; a sum that begins as `np.float32(0)` is float64 where the array is. Sums have an
order that only shapes decide, and no thread adds to a place where another does: the same call gives the same bits again.

CuPy's own text serves where one call of it is one pass over memory, or cuBLAS: `add`, `relu`, and the products of conv.py.
"""

from minidl.kernels.cublas import matmul
from minidl.kernels.cuda.channels import channel_affine, channel_affine_relu, channel_affine_relu_grad, channel_sums
from minidl.kernels.cuda.conv import conv2d, conv2d_grad_w, conv2d_grad_x
from minidl.kernels.cuda.dense import (
    affine_relu_conv,
    affine_relu_conv_grad,
    channel_moments,
    channel_statistics,
    subtract_line,
)
from minidl.kernels.cuda.elementwise import adamw_update, rectify, relu_grad, sgd_update
from minidl.kernels.cuda.group_norm import group_norm, group_norm_grad
from minidl.kernels.cuda.line import norm_line, norm_line_grad, weighted_sum
from minidl.kernels.cuda.loss import softmax_cross_entropy
from minidl.kernels.cuda.norm import batch_norm, batch_norm_grad, batch_norm_relu, batch_norm_relu_grad
from minidl.kernels.cuda.pool import avg_pool2d, avg_pool2d_grad, max_pool2d, max_pool2d_grad
from minidl.kernels.cuda.random import dropout
from minidl.kernels.cuda.resize import rows_and_columns
from minidl.kernels.reference import add, relu

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
