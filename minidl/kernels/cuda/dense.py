"""Dense blocks: the kernels of the other files, on some of the channels of an array, which lie at strides of their own."""

from __future__ import annotations

from numba import cuda

from minidl.array import Array
from minidl.kernels.cuda.channels import channel_affine_relu, vectors
from minidl.kernels.cuda.conv import conv2d, conv2d_grad_w, conv2d_grad_x
from minidl.kernels.cuda.launch import launch
from minidl.kernels.cuda.moments import moments, sums
from minidl.kernels.reference import Pair


def channel_statistics(X: Array, first: int, count: int) -> tuple[Array, Array]:
    """mean = sum x / m and var = sum (x - mean)^2 / m of each of the channels first, ..., first + count - 1"""
    return moments(_channels(X, first, count))


def affine_relu_conv(X: Array, scale: Array, shift: Array, w: Array, padding: Pair, Y: Array, first: int) -> None:
    """Y[:, first : first + F] = conv2d(max(scale x + shift, 0), w) with x = X[:, :C]"""
    z = channel_affine_relu(X[:, : w.shape[1]], None, scale, shift)
    Y[:, first : first + len(w)] = conv2d(z, w, None, (1, 1), padding, (1, 1), 1)


def affine_relu_conv_grad(
    GY: Array,
    first: int,
    X: Array,
    scale: Array,
    shift: Array,
    mean: Array,
    w: Array,
    padding: Pair,
    GX: Array,
    add: bool,
    need_w: bool,
) -> tuple[Array | None, Array, Array]:
    """With g the gradient of scale x + shift: GX[:, :C] += scale g, or =; -> gw or None, sum g, sum g (x - mean)"""
    C, x = w.shape[1], _channels(X, 0, w.shape[1])
    z, gy = channel_affine_relu(X[:, :C], None, scale, shift), GY[:, first : first + len(w)]
    gz = conv2d_grad_x(gy, w, z.shape, (1, 1), padding, (1, 1), 1)
    shape = x.shape
    launch(_gated, shape, gz.reshape(shape), z.reshape(shape), *vectors(scale), add, _channels(GX, 0, C))
    gw = conv2d_grad_w(gy, z, w.shape, (1, 1), padding, (1, 1), 1) if need_w else None
    return gw, *sums(gz.reshape(shape), z.reshape(shape), x, *vectors(mean))


def subtract_line(GX: Array, X: Array, first: int, mean: Array, a: Array, b: Array) -> None:
    """GX[:, first + c] -= a[c] + b[c] (X[:, first + c] - mean[c])"""
    x = _channels(X, first, len(mean))
    launch(_subtract_line, x.shape, x, *vectors(mean, a, b), _channels(GX, first, len(mean)))


def _channels(X: Array, first: int, count: int) -> Array:
    """Some channels of X (N,C,H,W), which is contiguous, as (N,count,HW) in the same memory"""
    if not X.flags.c_contiguous:
        raise ValueError(f"X: expected a contiguous array, got strides {X.strides} for shape {X.shape}")
    return X.reshape(*X.shape[:2], -1)[:, first : first + count]


@cuda.jit
def _gated(gz, z, scale, add, gx):
    """gx[n,c,i] = scale[c] (gz[n,c,i] where z[n,c,i] > 0, else 0), added to what is there if `add`"""
    N, C, HW = gx.shape
    zero = scale.dtype.type(0)
    first_i, first_c, first_n = cuda.grid(3)
    di, dc, dn = cuda.gridsize(3)
    for n in range(first_n, N, dn):
        for c in range(first_c, C, dc):
            for i in range(first_i, HW, di):
                g = scale[c] * gz[n, c, i] if z[n, c, i] > zero else zero
                gx[n, c, i] = gx[n, c, i] + g if add else g


@cuda.jit
def _subtract_line(x, mean, a, b, gx):
    """gx[n,c,i] -= a[c] + b[c] (x[n,c,i] - mean[c])"""
    N, C, HW = gx.shape
    first_i, first_c, first_n = cuda.grid(3)
    di, dc, dn = cuda.gridsize(3)
    for n in range(first_n, N, dn):
        for c in range(first_c, C, dc):
            for i in range(first_i, HW, di):
                gx[n, c, i] -= a[c] + b[c] * (x[n, c, i] - mean[c])
