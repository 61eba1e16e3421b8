"""The hot paths in plain array code, for NumPy and CuPy: the text to read and to step through.

Convolution and pooling share one idea. `windows` copies, for every output pixel, the input pixels under the kernel into a
column of their own (im2col); then a convolution is one matrix product and a pooling one reduction. `fold` is the adjoint of
`windows`: it adds every column back to where its pixels came from.

Pairs are (vertical, horizontal). Sizes: N images, C channels in, F out, H x W pixels in, OH x OW out, kh x kw kernel.
"""

from __future__ import annotations

import math
from typing import Any

from minidl import stable
from minidl.array import Array, array_module
from minidl.kernels.shapes import Pair, Shape, conv_size

# ---- products of matrices


def matmul(a: Array, b: Array) -> Array:
    """y[..., i, k] = sum_j a[..., i, j] b[..., j, k]: (..., I, J) x (..., J, K) -> (..., I, K), leading axes broadcast"""
    return a @ b


# ---- windows of pixels


def windows(x: Array, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair, out: Pair, fill: float = 0.0) -> Array:
    """cols[n,c,u,v,i,j] = x[n,c, i*s + u*d - p, j*s + v*d - p], `fill` outside the image: (N,C,H,W) -> (N,C,kh,kw,OH,OW)"""
    (kh, kw), (sh, sw), (ph, pw), (dh, dw), (OH, OW) = kernel_size, stride, padding, dilation, out
    N, C, H, W = x.shape
    xp = array_module(x)
    padded = xp.full((N, C, *_padded_size(x.shape, kernel_size, stride, padding, dilation, out)), fill, x.dtype)
    padded[:, :, ph : ph + H, pw : pw + W] = x
    cols = xp.empty((N, C, kh, kw, OH, OW), x.dtype)
    for u in range(kh):
        for v in range(kw):
            cols[:, :, u, v] = padded[:, :, u * dh : u * dh + sh * OH : sh, v * dw : v * dw + sw * OW : sw]
    return cols


def fold(cols: Array, x_shape: Shape, stride: Pair, padding: Pair, dilation: Pair) -> Array:
    """x[n,c, i*s + u*d - p, j*s + v*d - p] += cols[n,c,u,v,i,j]: (N,C,kh,kw,OH,OW) -> (N,C,H,W)"""
    (sh, sw), (ph, pw), (dh, dw) = stride, padding, dilation
    N, C, kh, kw, OH, OW = cols.shape
    H, W = x_shape[2:]
    xp = array_module(cols)
    padded = xp.zeros((N, C, *_padded_size(x_shape, (kh, kw), stride, padding, dilation, (OH, OW))), cols.dtype)
    for u in range(kh):
        for v in range(kw):
            padded[:, :, u * dh : u * dh + sh * OH : sh, v * dw : v * dw + sw * OW : sw] += cols[:, :, u, v]
    return padded[:, :, ph : ph + H, pw : pw + W]


def _padded_size(x_shape: Shape, kernel_size: Pair, stride: Pair, padding: Pair, dilation: Pair, out: Pair) -> Pair:
    """Room for the padded image and for every window, also where a stride or ceil_mode makes the last one stick out."""
    (H, W), (kh, kw), (sh, sw), (ph, pw), (dh, dw), (OH, OW) = x_shape[2:], kernel_size, stride, padding, dilation, out
    return max(H + 2 * ph, OH * sh + dh * (kh - 1)), max(W + 2 * pw, OW * sw + dw * (kw - 1))


# ---- convolution


def conv2d(x: Array, w: Array, b: Array | None, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Array:
    """y[n,f,i,j] = b[f] + sum_{c,u,v} w[f,c,u,v] x[n,c, i*s + u*d - p, j*s + v*d - p], c over the channels of f's group

    x (N,C,H,W), w (F,C/groups,kh,kw), b (F,) -> (N,F,OH,OW)
    """
    N, F, K = len(x), len(w), w[0].size
    OH, OW = (conv_size(*a) for a in zip(x.shape[2:], w.shape[2:], stride, padding, dilation, strict=True))
    cols = windows(x, w.shape[2:], stride, padding, dilation, (OH, OW)).reshape(N, groups, K, OH * OW)
    y = w.reshape(groups, F // groups, K) @ cols  # (N, groups, F/groups, OH*OW)
    y = y.reshape(N, F, OH, OW)
    return y if b is None else y + b[:, None, None]


def conv2d_grad_x(gy: Array, w: Array, x_shape: Shape, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Array:
    """gx[n,c, i*s + u*d - p, j*s + v*d - p] += sum_f w[f,c,u,v] gy[n,f,i,j]: (N,F,OH,OW) -> (N,C,H,W)"""
    (N, F, OH, OW), C, (kh, kw) = gy.shape, x_shape[1], w.shape[2:]
    w_t = w.reshape(groups, F // groups, -1).swapaxes(1, 2)  # (groups, K, F/groups)
    cols = w_t @ gy.reshape(N, groups, F // groups, OH * OW)  # (N, groups, K, OH*OW)
    return fold(cols.reshape(N, C, kh, kw, OH, OW), x_shape, stride, padding, dilation)


def conv2d_grad_w(gy: Array, x: Array, w_shape: Shape, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Array:
    """gw[f,c,u,v] = sum_{n,i,j} gy[n,f,i,j] x[n,c, i*s + u*d - p, j*s + v*d - p]: -> (F,C/groups,kh,kw)"""
    N, F, OH, OW = gy.shape
    kernel_size = w_shape[2], w_shape[3]
    cols = windows(x, kernel_size, stride, padding, dilation, (OH, OW)).reshape(N, groups, -1, OH * OW)
    gw = gy.reshape(N, groups, F // groups, OH * OW) @ cols.swapaxes(2, 3)  # (N, groups, F/groups, K)
    return gw.sum(axis=0).reshape(w_shape)


# ---- pooling


def max_pool2d(x: Array, kernel_size: Pair, stride: Pair, padding: Pair, out: Pair) -> tuple[Array, Array]:
    """y[n,c,i,j] = max_{u,v} x[n,c, i*s + u - p, j*s + v - p], padded with -inf; and `argmax`, the u*kw + v of the maximum

    x (N,C,H,W) -> y, argmax (N,C,OH,OW); of equal values in the image the first wins, and the padding never.
    """
    xp = array_module(x)
    cols = windows(x, kernel_size, stride, padding, (1, 1), out, fill=-xp.inf)
    cols = cols.reshape(*x.shape[:2], kernel_size[0] * kernel_size[1], *out)
    y = cols.max(axis=2)
    u, v = (xp.maximum(0, p - xp.arange(o) * s) for p, o, s in zip(padding, out, stride, strict=True))
    first = u[:, None] * kernel_size[1] + v  # (OH,OW), the first cell of each window that is in the image
    return y, xp.where(y == -xp.inf, first, cols.argmax(axis=2)).astype(xp.int32)


def max_pool2d_grad(gy: Array, argmax: Array, x_shape: Shape, kernel_size: Pair, stride: Pair, padding: Pair) -> Array:
    """gx at the maximum of each window += gy of that window: (N,C,OH,OW) -> (N,C,H,W)"""
    xp = array_module(gy)
    cells = xp.arange(kernel_size[0] * kernel_size[1])[:, None, None]
    cols = xp.where(cells == argmax[:, :, None], gy[:, :, None], gy.dtype.type(0))  # (N,C,kh*kw,OH,OW)
    return fold(cols.reshape(*gy.shape[:2], *kernel_size, *gy.shape[2:]), x_shape, stride, padding, (1, 1))


def avg_pool2d(x: Array, kernel_size: Pair, stride: Pair, padding: Pair, out: Pair, count_include_pad: bool) -> Array:
    """y[n,c,i,j] = sum_{u,v} x[n,c, i*s + u - p, j*s + v - p] / count[i,j]: (N,C,H,W) -> (N,C,OH,OW)"""
    total = windows(x, kernel_size, stride, padding, (1, 1), out).sum(axis=(2, 3))
    return total / _counts(x, x.shape, kernel_size, stride, padding, out, count_include_pad)


def avg_pool2d_grad(
    gy: Array, x_shape: Shape, kernel_size: Pair, stride: Pair, padding: Pair, count_include_pad: bool
) -> Array:
    """gx[n,c, i*s + u - p, j*s + v - p] += gy[n,c,i,j] / count[i,j]: (N,C,OH,OW) -> (N,C,H,W)"""
    share = gy / _counts(gy, x_shape, kernel_size, stride, padding, gy.shape[2:], count_include_pad)
    cols = array_module(gy).broadcast_to(share[:, :, None, None], (*gy.shape[:2], *kernel_size, *gy.shape[2:]))
    return fold(cols, x_shape, stride, padding, (1, 1))


def _counts(like: Array, x_shape: Shape, kernel_size: Pair, stride: Pair, padding: Pair, out: Pair, with_pad: bool) -> Array:
    """How many pixels each window averages, (OH,OW). A window that sticks out past the padding (ceil_mode) is cut there."""
    xp = array_module(like)
    per_axis = []
    for size, k, s, p, o in zip(x_shape[2:], kernel_size, stride, padding, out, strict=True):
        low, high = (-p, size + p) if with_pad else (0, size)
        start = xp.arange(o) * s - p
        per_axis.append(xp.minimum(start + k, high) - xp.maximum(start, low))
    return (per_axis[0][:, None] * per_axis[1]).astype(like.dtype)


# ---- batch normalisation: channels are axis 1, statistics run over all other axes


def batch_norm(x: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Array, Array]:
    """y = gamma (x - mean) / sqrt(var + eps) + beta; mean and (biased) var over the batch and the pixels of each channel

    x (N,C,...), gamma, beta (C,) -> y (N,C,...), mean (C,), var (C,)
    """
    axes = (0, *range(2, x.ndim))
    mean, var = x.mean(axis=axes), x.var(axis=axes)
    scale = gamma / _std(var, eps)
    return channel_affine(x, scale, beta - mean * scale), mean, var


def batch_norm_grad(gy: Array, x: Array, gamma: Array, mean: Array, var: Array, eps: float) -> tuple[Array, Array, Array]:
    """With x_hat = (x - mean) / sqrt(var + eps) and m values a channel:

    gbeta = sum gy, ggamma = sum gy x_hat, gx = gamma / sqrt(var + eps) (gy - gbeta / m - x_hat ggamma / m)
    """
    inv_std = 1 / _std(var, eps)
    gbeta, sum_gd = channel_sums(gy, x, mean)
    m, ggamma = x.size // x.shape[1], sum_gd * inv_std
    per_channel = (-1,) + (1,) * (x.ndim - 2)
    x_hat = (x - mean.reshape(per_channel)) * inv_std.reshape(per_channel)
    gx = channel_affine(gy, gamma * inv_std, -gamma * inv_std * gbeta / m) - channel_affine(
        x_hat, gamma * inv_std * ggamma / m, 0 * mean
    )
    return gx, ggamma, gbeta


def batch_norm_relu(x: Array, r: Array | None, gamma: Array, beta: Array, eps: float) -> tuple[Array, Array, Array]:
    """y = max(batch_norm(x) + r, 0), r (N,C,...) or None for 0; and mean, var as from `batch_norm`"""
    y, mean, var = batch_norm(x, gamma, beta, eps)
    return relu(y if r is None else y + r), mean, var


def batch_norm_relu_grad(
    gy: Array, y: Array, x: Array, gamma: Array, mean: Array, var: Array, eps: float, residual: bool
) -> tuple[Array, Array | None, Array, Array]:
    """gr = gy where y > 0, else 0, is the gradient of r; from it gx, ggamma, gbeta as from `batch_norm_grad`

    -> gx, gr (None without `residual`), ggamma, gbeta
    """
    gr = relu_grad(gy, y)
    gx, ggamma, gbeta = batch_norm_grad(gr, x, gamma, mean, var, eps)
    return gx, gr if residual else None, ggamma, gbeta


def channel_affine_relu(x: Array, r: Array | None, scale: Array, shift: Array) -> Array:
    """y[n,c,...] = max(scale[c] x[n,c,...] + shift[c] + r[n,c,...], 0), r None for 0"""
    y = channel_affine(x, scale, shift)
    return relu(y if r is None else y + r)


def channel_affine_relu_grad(gy: Array, y: Array, scale: Array) -> tuple[Array, Array]:
    """gr = gy where y > 0, else 0; gx[n,c,...] = scale[c] gr[n,c,...] -> gx, gr"""
    gr = relu_grad(gy, y)
    return channel_affine(gr, scale, 0 * scale), gr


def channel_affine(x: Array, scale: Array, shift: Array) -> Array:
    """y[n,c,...] = scale[c] x[n,c,...] + shift[c]"""
    per_channel = (-1,) + (1,) * (x.ndim - 2)
    return x * scale.reshape(per_channel) + shift.reshape(per_channel)


def channel_sums(gy: Array, x: Array, mean: Array) -> tuple[Array, Array]:
    """(sum gy, sum gy (x - mean[c])) over all but the channels: (N,C,...) -> two of (C,)

    The difference comes first: sum gy x - mean sum gy has no digits left where the mean is large.
    """
    axes, per_channel = (0, *range(2, x.ndim)), (-1,) + (1,) * (x.ndim - 2)
    return gy.sum(axis=axes), (gy * (x - mean.reshape(per_channel))).sum(axis=axes)


# ---- group normalisation


def group_norm(x: Array, num_groups: int, gamma: Array, beta: Array, eps: float) -> tuple[Array, Array, Array]:
    """y = gamma (x - mean) / sqrt(var + eps) + beta; mean and (biased) var over the channels and pixels of a group of an image

    x (N,C,...), gamma, beta (C,) -> y (N,C,...), mean, var (N num_groups,), those of an image's groups side by side
    """
    rows = x.reshape(len(x) * num_groups, -1)  # one a group, for its channels lie side by side
    mean, var = rows.mean(axis=1), rows.var(axis=1)
    x_hat = (rows - mean[:, None]) / _std(var, eps)[:, None]
    return channel_affine(x_hat.reshape(x.shape), gamma, beta), mean, var


def group_norm_grad(gy: Array, x: Array, gamma: Array, mean: Array, var: Array, eps: float) -> tuple[Array, Array, Array]:
    """With x_hat = (x - mean) / sqrt(var + eps), g = gamma gy and means over a group:

    gbeta = sum gy, ggamma = sum gy x_hat, gx = (g - mean(g) - x_hat mean(g x_hat)) / sqrt(var + eps)
    """
    std, axes = _std(var, eps)[:, None], (0, *range(2, x.ndim))
    x_hat = (x.reshape(len(mean), -1) - mean[:, None]) / std
    g = channel_affine(gy, gamma, 0 * gamma).reshape(x_hat.shape)
    gx = (g - g.mean(axis=1, keepdims=True) - x_hat * (g * x_hat).mean(axis=1, keepdims=True)) / std
    return gx.reshape(x.shape), (gy * x_hat.reshape(x.shape)).sum(axis=axes), gy.sum(axis=axes)


# ---- batch normalisation, channel by channel: one number each, few in all, so that what costs time is each step


def norm_line(mean: Array, var: Array, gamma: Array, beta: Array, eps: float) -> tuple[Array, Array, Array]:
    """inv_std = 1 / sqrt(var + eps), scale = gamma inv_std, shift = beta - mean scale: then y = scale x + shift"""
    inv_std = 1 / _std(var, eps)
    scale = gamma * inv_std
    return inv_std, scale, beta - mean * scale


def norm_line_grad(sum_g: Array, sum_gd: Array, scale: Array, inv_std: Array, m: int) -> tuple[Array, Array, Array]:
    """ggamma = sum_gd inv_std, a = scale sum_g / m, b = scale inv_std^2 sum_gd / m: gx = scale g - a - b (x - mean)

    sum_g, sum_gd: the sums of g and of g (x - mean) over the m values of each channel, g the gradient of y.
    """
    return sum_gd * inv_std, scale * sum_g / m, scale * inv_std**2 * sum_gd / m


def _std(var: Array, eps: float) -> Array:
    return (var + eps) ** 0.5


def weighted_sum(a: Array, p: float, b: Array, q: float) -> Array:
    """y = p a + q b"""
    return p * a + q * b


# ---- dense blocks: convolutions within one array X (N,C,H,W) whose channels are filled layer by layer


def channel_statistics(X: Array, first: int, count: int) -> tuple[Array, Array]:
    """mean = sum x / m and var = sum (x - mean)^2 / m of the channels first, ..., first + count - 1: -> two of (count,)"""
    x = X[:, first : first + count]
    return x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3))


def channel_moments(X: Array, first: int, mean: Array) -> tuple[Array, Array]:
    """sum (x - mean[c]) and sum (x - mean[c])^2 of the channels first, ..., first + len(mean) - 1: -> two of (C,), float64"""
    d = X[:, first : first + len(mean)] - mean[:, None, None]
    return d.sum(axis=(0, 2, 3), dtype="float64"), (d * d).sum(axis=(0, 2, 3), dtype="float64")


def affine_relu_conv(X: Array, scale: Array, shift: Array, w: Array, padding: Pair, Y: Array, first: int) -> None:
    """Y[:, first : first + F] = conv2d(max(scale x + shift, 0), w) with x = X[:, :C], scale, shift (C,), w (F,C,kh,kw)"""
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
    """The gradients of `affine_relu_conv`, gy = GY[:, first : first + F] being that of its output.

    With g the gradient of scale x + shift: GX[:, :C] += scale g, or = where `add` is False; -> gw (None unless
    `need_w`), sum g, sum g (x - mean)
    """
    C, x = w.shape[1], X[:, : w.shape[1]]
    z, gy = channel_affine_relu(x, None, scale, shift), GY[:, first : first + len(w)]
    g = relu_grad(conv2d_grad_x(gy, w, z.shape, (1, 1), padding, (1, 1), 1), z)
    gx = channel_affine(g, scale, 0 * scale)
    GX[:, :C] = GX[:, :C] + gx if add else gx
    gw = conv2d_grad_w(gy, z, w.shape, (1, 1), padding, (1, 1), 1) if need_w else None
    return gw, *channel_sums(g, x, mean)


def subtract_line(GX: Array, X: Array, first: int, mean: Array, a: Array, b: Array) -> None:
    """GX[:, first + c] -= a[c] + b[c] (X[:, first + c] - mean[c]): mean, a, b (count,)"""
    channels = slice(first, first + len(mean))
    GX[:, channels] -= channel_affine(X[:, channels], b, a - b * mean)


# ---- activation


def add(a: Array, b: Array) -> Array:
    """y = a + b, of one shape and type"""
    return a + b


def relu(x: Array) -> Array:
    """y = max(x, 0)"""
    return array_module(x).maximum(x, 0)


def relu_grad(gy: Array, y: Array) -> Array:
    """gx = gy where y > 0, else 0"""
    return array_module(gy).where(y > 0, gy, gy.dtype.type(0))


def rectify(y: Array, r: Array | None) -> None:
    """y <- max(y + r, 0), in place, r None for 0"""
    if r is not None:
        y += r
    array_module(y).maximum(y, 0, out=y)


# ---- linear maps of images that treat rows and columns apart


def rows_and_columns(x: Array, A: Array, B: Array) -> Array:
    """y[n,c] = A x[n,c] B^T: x (N,C,H,W), A (OH,H) for the rows, B (OW,W) for the columns -> (N,C,OH,OW)

    Most entries of A and B are zeros: a row of bilinear interpolation has two others.
    """
    return A @ x @ B.T


# ---- softmax cross-entropy


def softmax_cross_entropy(z: Array, labels: Array, v: Array, smoothing: float) -> tuple[Array, Array]:
    """loss[n] = -sum_k t[n,k] log p[n,k] and its gradient g[n,k] = p[n,k] sum_j t[n,j] - t[n,k], p the softmax of z

    t[n,k] = v[k] ((1 - s) [k = label n] + s/K): z (N,K), labels (N,) integers, v (K,) weights, s = smoothing -> (N,), (N,K)
    """
    xp, K, log_p = array_module(z), z.shape[1], stable.log_softmax(z, 1)
    is_label = labels[:, None] == xp.arange(K)
    t = v * ((1 - smoothing) * is_label + smoothing / K).astype(z.dtype)
    counted = xp.where((t == 0) & (log_p == -xp.inf), t, log_p)  # 0 log 0 = 0
    return -(t * counted).sum(axis=1), xp.exp(log_p) * t.sum(axis=1, keepdims=True) - t


# ---- dropout


def dropout(x: Array, p: float, seed: int) -> Array:
    """y[i] = x[i] / (1 - p) where u[i] >= p, else 0; u[i] in [0, 1) the i-th number of the generator Philox, keyed by `seed`

    The numbers depend on i and on the seed, from 0 to 2^63 - 1, alone: on every device, and in backward, they are the same.
    """
    xp = array_module(x)
    kept = philox(xp.arange(x.size), seed).reshape(x.shape) >= threshold(p)
    return xp.where(kept, x * x.dtype.type(1 / (1 - p)), x.dtype.type(0))


def threshold(p: float) -> int:
    """The least k with k / 2^32 >= p"""
    return math.ceil(p * 2**32)


def philox(i: Any, seed: int) -> Any:
    """Number i of 32 random bits each, for one i or an array of them: Philox 2x32-10.

    It multiplies 32 bits by 32 bits and goes on with the upper and the lower half of the product, ten times over. Salmon,
    Moraes, Dror and Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3.
    """
    low, high, key = i, seed >> 32, seed & 0xFFFFFFFF
    for _ in range(10):
        product = low * 0xD256D193
        low, high = ((product >> 32) & 0xFFFFFFFF) ^ key ^ high, product & 0xFFFFFFFF
        key = (key + 0x9E3779B9) & 0xFFFFFFFF
    return low


# ---- parameter updates, in place: p and the state arrays change


def sgd_update(p: Array, g: Array, v: Array, lr: float, momentum: float, nesterov: bool, weight_decay: float) -> None:
    """g' = g + weight_decay p;  v <- momentum v + g';  p <- p - lr (g' + momentum v if nesterov else v)"""
    g = g + weight_decay * p
    v *= momentum
    v += g
    p -= lr * (g + momentum * v if nesterov else v)


def adamw_update(
    p: Array,
    g: Array,
    m: Array,
    v: Array,
    t: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    """m <- b1 m + (1-b1) g;  v <- b2 v + (1-b2) g^2;  p <- p - lr (weight_decay p + m_hat / (sqrt(v_hat) + eps))

    m_hat = m / (1 - b1^t), v_hat = v / (1 - b2^t); t counts the updates from 1.
    """
    b1, b2 = betas
    m *= b1
    m += (1 - b1) * g
    v *= b2
    v += (1 - b2) * g * g
    p *= 1 - lr * weight_decay
    p -= lr / (1 - b1**t) * m / ((v / (1 - b2**t)) ** 0.5 + eps)
