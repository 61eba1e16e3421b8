"""A convolution with the batch norm and the relu behind it, computed together.

With its running statistics batch norm is a line in each channel, and a convolution with a line behind it is a convolution:

    gamma (conv(x) - mean) / sqrt(var + eps) + beta = sum w' x + b',   w' = w s,  b' = (b - mean) s + beta,
                                                                       s = gamma / sqrt(var + eps)

So in evaluation, where no parameter of the two needs a gradient (in inference, and where an image is explained or attacked),
the norm is fused into the weights (Jacob et al. 2018, "Quantization and training of neural networks for efficient
integer-arithmetic-only inference", section 3.2). The relu works in place on what the convolution wrote: of two or three arrays
one is kept. Inside `ops.unfused()`, or with MINIDL_FUSED=0 in the environment, each layer is called by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from minidl import ops
from minidl.core import Tensor, recording
from minidl.nn.layers import BatchNorm2d, Conv2d, GroupNorm, ReLU
from minidl.nn.module import Module


def conv_relu(x: Tensor, conv: Conv2d, norm: BatchNorm2d | GroupNorm | None = None, residual: Tensor | None = None) -> Tensor:
    """y = relu(norm(conv(x)) + residual): x (N,C,H,W), residual and the result (N,F,OH,OW)

    Raises ValueError for a residual of another shape, and all else as of `ops.conv2d`.
    """
    if not ops.fusing():
        y = conv(x) if norm is None else norm(conv(x))
        return ops.relu(y if residual is None else y + residual)
    if norm is None:
        return ops.conv2d_relu(x, conv.weight, conv.bias, residual, *conv.geometry)
    if isinstance(norm, BatchNorm2d) and can_fuse(x, conv, norm):
        w, b = fuse_conv_bn(conv, norm)
        return ops.conv2d_relu(x, w, b, residual, *conv.geometry)
    return norm.relu(conv(x), residual)


def conv_norm(x: Tensor, conv: Conv2d, norm: BatchNorm2d | GroupNorm) -> Tensor:
    """y = norm(conv(x)): (N,C,H,W) -> (N,F,OH,OW), in evaluation with a batch norm in the weights

    Jacob et al. 2018, "Quantization and training of neural networks for efficient integer-arithmetic-only inference", section
    3.2. Raises as `ops.conv2d`.
    """
    if ops.fusing() and isinstance(norm, BatchNorm2d) and can_fuse(x, conv, norm):
        w, b = fuse_conv_bn(conv, norm)
        return ops.conv2d(x, w, b, *conv.geometry)
    return norm(conv(x))


def in_sequence(x: Tensor, modules: Sequence[Module]) -> Tensor:
    """modules[-1](... modules[1](modules[0](x))), a convolution in one call with what follows it"""
    at = 0
    while at < len(modules):
        match modules[at : at + 3] if ops.fusing() else []:
            case [Conv2d() as conv, BatchNorm2d() as norm, ReLU() as relu] if as_they_are(conv, norm, relu):
                x, at = conv_relu(x, conv, norm), at + 3
            case [Conv2d() as conv, ReLU() as relu, *_] if as_they_are(conv, relu):
                x, at = conv_relu(x, conv), at + 2
            case [Conv2d() as conv, BatchNorm2d() as norm, *_] if as_they_are(conv, norm):
                x, at = conv_norm(x, conv, norm), at + 2
            case _:
                x, at = modules[at](x), at + 1
    return x


def as_they_are(*modules: Module) -> bool:
    """Whether none is of a subclass, or has a `forward` of its own, which may compute something else."""
    return all(type(module) in (Conv2d, BatchNorm2d, ReLU) and "forward" not in vars(module) for module in modules)


def can_fuse(x: Tensor, conv: Conv2d, norm: BatchNorm2d) -> bool:
    """Whether norm belongs in the weights of conv for this x: where there are more weights than pixels, writing them anew
    costs more than the sweep that it saves."""
    trained = recording() and any(p.requires_grad for p in (*conv.parameters(), *norm.parameters()))
    return not norm.training and not trained and conv.weight.size <= x.size


def fuse_conv_bn(conv: Conv2d, norm: BatchNorm2d) -> tuple[Tensor, Tensor]:
    """w' and b' of the formula above."""
    s = norm.weight.data / (norm.running_var + norm.eps) ** 0.5
    b = -norm.running_mean if conv.bias is None else conv.bias.data - norm.running_mean
    w = conv.weight.data * s[:, None, None, None]
    return Tensor(w, name=conv.weight.name), Tensor(b * s + norm.bias.data, name=norm.bias.name)
