"""Every op as a function of tensors. One family a file; in each, the op classes stand above the functions that call them."""

from minidl.core import getitem, matmul
from minidl.ops.activation import gelu, leaky_relu, relu, sigmoid, softplus, tanh
from minidl.ops.conv import conv2d
from minidl.ops.dilation import smooth_max_convolution
from minidl.ops.elementwise import abs, clip, exp, log, maximum, sqrt, where
from minidl.ops.fused import batch_norm_frozen_relu, batch_norm_relu, conv2d_relu, fusing, unfused
from minidl.ops.linear import linear
from minidl.ops.loss import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    log_softmax,
    mse,
    softmax,
)
from minidl.ops.norm import batch_norm, batch_norm_frozen, group_norm
from minidl.ops.pool import adaptive_avg_pool2d, avg_pool2d, global_avg_pool2d, max_pool2d
from minidl.ops.random import dropout
from minidl.ops.recompute import once, recompute
from minidl.ops.reduce import logsumexp, max, mean, sum, var
from minidl.ops.resize import gaussian_blur, resize
from minidl.ops.shape import broadcast_to, concat, flatten, flip, pad, reshape, split, transpose
from minidl.ops.top_k import top_k_pool2d

__all__ = [
    "abs",
    "adaptive_avg_pool2d",
    "avg_pool2d",
    "batch_norm",
    "batch_norm_frozen",
    "batch_norm_frozen_relu",
    "batch_norm_relu",
    "binary_cross_entropy_with_logits",
    "broadcast_to",
    "clip",
    "concat",
    "conv2d",
    "conv2d_relu",
    "cross_entropy",
    "dropout",
    "exp",
    "flatten",
    "flip",
    "fusing",
    "gaussian_blur",
    "gelu",
    "getitem",
    "global_avg_pool2d",
    "group_norm",
    "leaky_relu",
    "linear",
    "log",
    "log_softmax",
    "logsumexp",
    "matmul",
    "max",
    "max_pool2d",
    "maximum",
    "mean",
    "mse",
    "once",
    "pad",
    "recompute",
    "relu",
    "reshape",
    "resize",
    "sigmoid",
    "smooth_max_convolution",
    "softmax",
    "softplus",
    "split",
    "sqrt",
    "sum",
    "tanh",
    "top_k_pool2d",
    "transpose",
    "unfused",
    "var",
    "where",
]
