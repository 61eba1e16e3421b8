"""The layers: modules that hold the parameters and the settings of one op each.

Attributes are named as in torchvision (`weight`, `bias`, `running_mean`, ...), so that its checkpoints fit.
"""

from __future__ import annotations

import numpy as np

from minidl import ops
from minidl.arguments import Pair, count, flag, function, number, pair
from minidl.array import Array
from minidl.core import Parameter, Tensor
from minidl.nn import init as inits
from minidl.nn.module import Module
from minidl.ops import sync
from minidl.ops.norm import running_average
from minidl.ops.recompute import once

# ---- layers with parameters


class Conv2d(Module):
    """y = `ops.conv2d`(x) with a weight (F, C/groups, kh, kw), drawn by `init`, and a bias (F,), 0 at first.

    x (N,C,H,W) -> (N,F,OH,OW). kernel, stride, padding and dilation: an int or a (vertical, horizontal) pair, in pixels.
    Raises TypeError or ValueError for sizes that are no integers, or too small, another rng, and `groups` that does not divide
    both numbers of channels. A call raises as `ops.conv2d` does.
    """

    bias: Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        dilation: int | Pair = 1,
        groups: int = 1,
        bias: bool = True,
        rng: np.random.Generator | None = None,
        init: inits.Init = inits.he_normal,
    ) -> None:
        function(init, "init", "f(shape, rng) -> array, such as nn.init.he_normal")
        C, F, G = count(in_channels, "in_channels"), count(out_channels, "out_channels"), count(groups, "groups")
        if C % G or F % G:
            raise ValueError(f"groups: {G} does not divide {C} input and {F} output channels")
        self.stride, self.padding = pair(stride, "stride", 1), pair(padding, "padding", 0)
        self.dilation, self.groups = pair(dilation, "dilation", 1), G
        self.weight = Parameter(init((F, C // G, *pair(kernel_size, "kernel_size", 1)), inits.generator(rng)), "weight")
        self.bias = Parameter(np.zeros(F, np.float32), "bias") if flag(bias, "bias") else None

    def forward(self, x: Tensor) -> Tensor:
        return ops.conv2d(x, self.weight, self.bias, *self.geometry)

    @property
    def geometry(self) -> tuple[Pair, Pair, Pair, int]:
        """The settings in the order of the arguments of `ops.conv2d`."""
        return self.stride, self.padding, self.dilation, self.groups

    def extra_repr(self) -> str:
        F, C, kh, kw = self.weight.shape
        bias = "" if self.bias is not None else ", bias=False"
        more = f", dilation={self.dilation}" if self.dilation != (1, 1) else ""
        more += f", groups={self.groups}" if self.groups != 1 else ""
        return f"{C * self.groups}, {F}, kernel_size={(kh, kw)}, stride={self.stride}, padding={self.padding}{more}{bias}"


class Linear(Module):
    """y = `ops.linear`(x) with a weight (out, in), drawn by `init`, and a bias (out,), 0 at first: x (N, in) -> (N, out).

    Raises TypeError or ValueError for sizes that are no integers of at least 1, and another rng. A call raises as `ops.linear`
    does.
    """

    bias: Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        rng: np.random.Generator | None = None,
        init: inits.Init = inits.he_normal,
    ) -> None:
        function(init, "init", "f(shape, rng) -> array, such as nn.init.he_normal")
        shape = count(out_features, "out_features"), count(in_features, "in_features")
        self.weight = Parameter(init(shape, inits.generator(rng)), "weight")
        self.bias = Parameter(np.zeros(shape[0], np.float32), "bias") if flag(bias, "bias") else None

    def forward(self, x: Tensor) -> Tensor:
        return ops.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}" + ("" if self.bias is not None else ", bias=False")


class BatchNorm2d(Module):
    """y = weight (x - mean) / sqrt(var + eps) + bias, channel by channel: (N,C,H,W) -> (N,C,H,W).

    In training, mean and variance are those of the batch, and the running statistics follow them, the variance unbiased:

        running <- (1 - momentum) running + momentum batch

    In evaluation they are the running ones. eps is above 0, momentum in [0, 1]. Raises TypeError or ValueError for numbers that
    are not, and channels that are no integer of at least 1. A call raises as `ops.batch_norm` does.

    Ioffe and Szegedy 2015, "Batch normalization: accelerating deep network training", algorithms 1 and 2.
    """

    running_mean: Array
    running_var: Array
    num_batches_tracked: Array

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        C = count(num_features, "num_features")
        self.eps, self.momentum = number(eps, "eps", "(0, inf)"), number(momentum, "momentum", "[0, 1]")
        self.weight = Parameter(np.ones(C, np.float32), "weight")
        self.bias = Parameter(np.zeros(C, np.float32), "bias")
        self.register_buffer("running_mean", np.zeros(C, np.float32))
        self.register_buffer("running_var", np.ones(C, np.float32))
        self.register_buffer("num_batches_tracked", np.array(0, np.int64))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return ops.batch_norm_frozen(x, self.weight, self.bias, self.running_mean, self.running_var, self.eps)
        op = sync.batch_norm(self.eps)
        y = op(x, self.weight, self.bias)
        self.update_running_stats(op.mean, op.var, op.values)
        return y

    def relu(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """relu(self(x) + residual), in one op unless `ops.unfused()`: x and residual (N,C,H,W) -> (N,C,H,W)

        Raises as `ops.batch_norm_relu`.
        """
        if not ops.fusing():
            y = self(x)
            return ops.relu(y if residual is None else y + residual)
        if not self.training:
            statistics = self.running_mean, self.running_var
            return ops.batch_norm_frozen_relu(x, self.weight, self.bias, *statistics, residual, self.eps)
        op = sync.batch_norm_relu(self.eps)
        y = op(x, self.weight, self.bias, residual)
        self.update_running_stats(op.mean, op.var, op.values)
        return y

    def update_running_stats(self, mean: Array, var: Array, m: int) -> None:
        """Move the running statistics towards mean and var (C,) of a batch with m values a channel, the variance unbiased.

        Once for each batch, however often `ops.recompute` meets it.
        """

        def move() -> None:  # to new arrays: an older graph may hold the old ones
            self.running_mean = running_average(self.running_mean, mean, self.momentum)
            self.running_var = running_average(self.running_var, var, self.momentum, m / (m - 1))
            self.num_batches_tracked += 1

        once(move)

    def extra_repr(self) -> str:
        return f"{self.weight.size}, eps={self.eps}, momentum={self.momentum}"


class GroupNorm(Module):
    """y = `ops.group_norm`(x) with a weight and a bias (C,), 1 and 0 at first, or none: (N,C,...) -> (N,C,...).

    Training and evaluation are the same, and there are no running statistics. `num_groups` of C channels are instance norm, one
    group is the layer norm of images. Raises TypeError or ValueError for numbers of channels and groups that are no integers of
    at least 1, groups that do not divide the channels, and eps that is not above 0. A call raises as `ops.group_norm` does.

    Wu and He 2018, "Group normalization", section 3.
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        self.num_groups, self.num_channels = count(num_groups, "num_groups"), count(num_channels, "num_channels")
        if self.num_channels % self.num_groups:
            raise ValueError(f"num_groups: expected a divisor of the {self.num_channels} channels, got {self.num_groups}")
        self.eps = number(eps, "eps", "(0, inf)")
        self.weight = Parameter(np.ones(self.num_channels, np.float32), "weight") if flag(affine, "affine") else None
        self.bias = Parameter(np.zeros(self.num_channels, np.float32), "bias") if affine else None

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim < 2 or x.shape[1] != self.num_channels:
            raise ValueError(f"x: expected (N, {self.num_channels}, ...), got shape {x.shape}")
        return ops.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def relu(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """relu(self(x) + residual), as of `BatchNorm2d`, in single ops: x and residual (N,C,...) -> (N,C,...)

        Raises as `ops.group_norm`.
        """
        y = self(x)
        return ops.relu(y if residual is None else y + residual)

    def extra_repr(self) -> str:
        affine = "" if self.weight is not None else ", affine=False"
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}{affine}"


# ---- activations


class ReLU(Module):
    """y = max(x, 0): shapes and source as of `ops.relu`"""

    def forward(self, x: Tensor) -> Tensor:
        return ops.relu(x)


class LeakyReLU(Module):
    """y = x where x > 0, else slope * x: shapes and source as of `ops.leaky_relu`

    Raises TypeError or ValueError for a slope that is no finite number.
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        self.negative_slope = number(negative_slope, "negative_slope")

    def forward(self, x: Tensor) -> Tensor:
        return ops.leaky_relu(x, self.negative_slope)

    def extra_repr(self) -> str:
        return f"{self.negative_slope}"


class Sigmoid(Module):
    """y = 1 / (1 + exp(-x)), any shape"""

    def forward(self, x: Tensor) -> Tensor:
        return ops.sigmoid(x)


class Tanh(Module):
    """y = tanh(x), any shape"""

    def forward(self, x: Tensor) -> Tensor:
        return ops.tanh(x)


class GELU(Module):
    """y = x / 2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))): shapes and source as of `ops.gelu`"""

    def forward(self, x: Tensor) -> Tensor:
        return ops.gelu(x)


# ---- pooling


class MaxPool2d(Module):
    """y = `ops.max_pool2d`(x): the largest value of each window, x (N,C,H,W) -> (N,C,OH,OW)

    Raises TypeError or ValueError for sizes that are no integers, or too small. A call raises as `ops.max_pool2d` does.
    """

    def __init__(
        self, kernel_size: int | Pair, stride: int | Pair | None = None, padding: int | Pair = 0, ceil_mode: bool = False
    ) -> None:
        self.kernel_size, self.padding, self.ceil_mode = (
            pair(kernel_size, "kernel_size", 1),
            pair(padding, "padding", 0),
            flag(ceil_mode, "ceil_mode"),
        )
        self.stride = self.kernel_size if stride is None else pair(stride, "stride", 1)

    def forward(self, x: Tensor) -> Tensor:
        return ops.max_pool2d(x, self.kernel_size, self.stride, self.padding, self.ceil_mode)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, ceil_mode={self.ceil_mode}"


class AvgPool2d(Module):
    """y = `ops.avg_pool2d`(x): the mean of each window, x (N,C,H,W) -> (N,C,OH,OW)

    Raises TypeError or ValueError for sizes that are no integers, or too small. A call raises as `ops.avg_pool2d` does.
    """

    def __init__(
        self,
        kernel_size: int | Pair,
        stride: int | Pair | None = None,
        padding: int | Pair = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        self.kernel_size, self.padding = pair(kernel_size, "kernel_size", 1), pair(padding, "padding", 0)
        self.stride = self.kernel_size if stride is None else pair(stride, "stride", 1)
        self.ceil_mode, self.count_include_pad = flag(ceil_mode, "ceil_mode"), flag(count_include_pad, "count_include_pad")

    def forward(self, x: Tensor) -> Tensor:
        return ops.avg_pool2d(x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, ceil_mode={self.ceil_mode}"


class AdaptiveAvgPool2d(Module):
    """y = `ops.adaptive_avg_pool2d`(x): means over a grid of OH x OW cells, x (N,C,H,W) -> (N,C,OH,OW)

    Raises TypeError or ValueError for a size that is no integer of at least 1, or a pair of them.
    """

    def __init__(self, output_size: int | Pair) -> None:
        self.output_size = pair(output_size, "output_size", 1)

    def forward(self, x: Tensor) -> Tensor:
        return ops.adaptive_avg_pool2d(x, self.output_size)

    def extra_repr(self) -> str:
        return f"{self.output_size}"


class GlobalAvgPool2d(Module):
    """y[n,c] = sum_{i,j} x[n,c,i,j] / (H W), x (N,C,H,W) -> (N,C): source as of `ops.global_avg_pool2d`"""

    def forward(self, x: Tensor) -> Tensor:
        return ops.global_avg_pool2d(x)


class TopKPool2d(Module):
    """y[n,c] = the mean of the k largest of x[n,c], x (N,C,H,W) -> (N,C): ties, NaN and source as of `ops.top_k_pool2d`

    Raises TypeError or ValueError for k that is no integer of at least 1. A call raises as `ops.top_k_pool2d` does.
    """

    def __init__(self, k: int) -> None:
        self.k = count(k, "k")

    def forward(self, x: Tensor) -> Tensor:
        return ops.top_k_pool2d(x, self.k)

    def extra_repr(self) -> str:
        return f"{self.k}"


# ---- the rest


class Dropout(Module):
    """In training y = x m / (1 - p), m = 0 with probability p, else 1; in evaluation y = x. Shape, source: as of `ops.dropout`.

    rng: None: the generator that layers share. Raises TypeError for another rng, TypeError or ValueError for p outside [0, 1).
    """

    def __init__(self, p: float = 0.5, rng: np.random.Generator | None = None) -> None:
        self.p, self.rng = number(p, "p", "[0, 1)"), inits.generator(rng)

    def forward(self, x: Tensor) -> Tensor:
        return ops.dropout(x, self.p, self.rng) if self.training else x

    def extra_repr(self) -> str:
        return f"{self.p}"


class Flatten(Module):
    """y = x, (N, ...) -> (N, all the rest)"""

    def forward(self, x: Tensor) -> Tensor:
        return ops.flatten(x)


class Identity(Module):
    """y = x, any shape"""

    def forward(self, x: Tensor) -> Tensor:
        return x
