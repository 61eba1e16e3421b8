"""A dense block as one op (Huang et al. 2017): what `concat([x, conv(relu(batch_norm(x)))])`, repeated, computes.

Written op by op, every layer copies, normalises and keeps all channels before it once more: memory and time grow with the
square of the depth. Here the block's channels lie in one array X from the start, and each layer

- takes mean and variance of the new channels alone: those of the others are known;
- normalises and rectifies while the convolution reads, z = max(scale x + shift, 0), and computes z again in backward;
- writes its channels behind the others: nothing is concatenated.

Backward fills one array G with the gradient of X, last layer first. Batch normalisation has, with g the gradient of its output,

    gx = scale (g - mean(g) - x_hat mean(g x_hat)),    scale = gamma / sqrt(var + eps),  x_hat = (x - mean) / sqrt(var + eps)

and all but the first term is, channel by channel, a line in x. The lines of all layers are added up, two numbers a channel,
and subtracted once, when the channel's turn comes.
"""

from __future__ import annotations

from dataclasses import dataclass

from minidl import kernels
from minidl.arguments import Pair, images
from minidl.array import Array, array_module, sum_type
from minidl.core import Grads, Op, sum_of
from minidl.mixed import FLOAT32, HALF
from minidl.ops.activation import ReLU
from minidl.ops.conv import Conv2d
from minidl.ops.norm import BatchNorm, BatchNormFrozen, check_several, push_line
from minidl.ops.shape import Concat
from minidl.ops.sync import check_alone, line_grad, ranks, statistics
from minidl.parallel import ALONE

Statistics = tuple[Array, Array]  # mean (C,) and var (C,)


@dataclass
class _Step:
    """target[:, first : first + F] = conv2d(max(scale x + shift, 0), w), x the first C channels of source"""

    source: Array
    mean: Array
    inv_std: Array
    scale: Array
    shift: Array
    w: Array
    padding: Pair
    target: Array
    first: int


class DenseBlock(Op):
    """y = x_L, x_l = [x_{l-1}, H_l(x_{l-1})], H one or several of conv2d(relu(batch_norm(x)), w)

    Inputs are x, then gamma, beta, w of each convolution.

    convolutions: how many there are in each H. frozen: the statistics of each batch norm, in evaluation; None in training,
    where those of the batch are taken and found in `statistics` afterwards.
    """

    precision = HALF, FLOAT32, FLOAT32  # x, gamma, beta, w, gamma, ...

    def __init__(self, convolutions: list[int], eps: float, frozen: list[Statistics] | None = None) -> None:
        self.convolutions, self.eps, self.frozen = convolutions, eps, frozen
        self.world = ALONE if frozen else ranks()

    def forward(self, x: Array, *parameters: Array) -> Array:  # (N,C,H,W), (C',) (C',) (F,C',k,k) each -> (N,C+sum F,H,W)
        images(x)
        xp, k, (N, C, H, W), self.values = array_module(x), kernels.of(x), x.shape, x.size // x.shape[1]
        triples = iter(zip(parameters[0::3], parameters[1::3], parameters[2::3], strict=True))
        layers = [[next(triples) for _ in range(count)] for count in self.convolutions]
        X = xp.empty((N, C + sum(len(layer[-1][2]) for layer in layers), H, W), x.dtype)
        X[:, :C] = x
        mean_X, var_X = (xp.empty(X.shape[1], sum_type(x.dtype)) for _ in range(2))  # of the channels that are there
        if not self.frozen:
            if self.world.size == 1:
                check_several(x)
            mean_X[:C], var_X[:C] = self._known(X, 0, C)
        frozen = iter(self.frozen or ())
        self.X, self.x_channels, self.steps, self.statistics = X, C, list[_Step](), list[Statistics]()
        for layer in layers:
            source, known = X, (mean_X[:C], var_X[:C])
            for i, (gamma, beta, w) in enumerate(layer, start=1):
                F = len(w)
                mean, var = next(frozen) if self.frozen else known
                target, first = (X, C) if i == len(layer) else (xp.empty((N, F, H, W), x.dtype), 0)
                inv_std, scale, shift = kernels.of(var).norm_line(mean, var, gamma, beta, self.eps)
                step = _Step(source, mean, inv_std, scale, shift, w, (w.shape[2] // 2, w.shape[3] // 2), target, first)
                k.affine_relu_conv(source, scale, shift, w, step.padding, target, first)
                self.steps.append(step)
                self.statistics.append((mean, var))
                if not self.frozen:
                    known = self._known(target, first, F)
                source = target
            if not self.frozen:
                mean_X[C : C + F], var_X[C : C + F] = known
            C += F
        self.mean_X = mean_X
        return X

    def push(self, tx: Array | None, *tparameters: Array | None) -> Array:  # (N,C,H,W), (C',) (C',) (F,C',k,k) each
        """ty = [tx, tH_1, ..., tH_L]: of each norm, relu and convolution its own ty, one after the other"""
        check_alone(self.world)
        xp, k, X = array_module(self.X), kernels.of(self.X), self.X
        TX = xp.zeros_like(X)  # the tangent of X as far as it has come
        TX[:, : self.x_channels] = self.tangents(tx, *tparameters)[0]
        T_source = TX
        for i, (step, (mean, var)) in enumerate(zip(self.steps, self.statistics, strict=True)):
            C, plain = step.w.shape[1], ((1, 1), step.padding, (1, 1), 1)
            T_source = TX if step.source is X else T_source
            x, t = (xp.ascontiguousarray(a[:, :C]) for a in (step.source, T_source))
            tgamma, tbeta, tw = tparameters[3 * i : 3 * i + 3]
            if self.frozen:
                t = k.channel_affine(t, step.scale, 0 * step.scale)
            else:
                gamma: Array = self.inputs[3 * i + 1].data  # type: ignore[union-attr]
                t, _, _ = k.batch_norm_grad(t, x, gamma, mean, var, self.eps)
            z = k.channel_affine_relu(x, None, step.scale, step.shift)
            t = sum_of(t, push_line(x, mean, step.inv_std, tgamma, tbeta)) * (z > 0)
            T = sum_of(k.conv2d(t, step.w, None, *plain), None if tw is None else k.conv2d(z, tw, None, *plain))
            if step.target is X:
                TX[:, step.first : step.first + len(step.w)] = T
            T_source = T
        return TX

    def backward(self, gy: Array) -> Grads:  # (N,C+sum F,H,W)
        """gx = the first channels of G, into which each layer adds gx of its convolution, relu and norm, last layer first"""
        xp, k, X = array_module(gy), kernels.of(gy), self.X
        G = gy.copy()  # the gradient of X as far as it has come
        a, b = (xp.zeros(X.shape[1], sum_type(gy.dtype)) for _ in range(2))  # the line of each channel: a + b (x - mean)
        G_source, parameters = G, list[Array | None]()
        for i, step in reversed(list(enumerate(self.steps))):
            C, channels = step.w.shape[1], slice(step.first, step.first + len(step.w))
            if step.target is X and not self.frozen:  # all later layers have added to these channels: finish them
                k.subtract_line(G, X, step.first, self.mean_X[channels], a[channels], b[channels])
            G_target = G if step.target is X else G_source
            G_source = G if step.source is X else xp.empty_like(step.source)
            z = step.source, step.scale, step.shift, step.mean  # what the convolution saw is max(scale x + shift, 0)
            add, need_w = G_source is G, self.needs[3 * i + 3]
            gw, sum_g, sum_gx = k.affine_relu_conv_grad(G_target, step.first, *z, step.w, step.padding, G_source, add, need_w)
            ggamma, line_a, line_b = line_grad(self.world, sum_g, sum_gx, step.scale, step.inv_std, self.values)
            parameters += [gw, sum_g, ggamma]
            if not self.frozen:
                if step.source is X:
                    a[:C] += line_a
                    b[:C] += line_b
                else:
                    k.subtract_line(G_source, step.source, 0, step.mean, line_a, line_b)
        C = self.x_channels
        if not self.frozen:
            k.subtract_line(G, X, 0, self.mean_X[:C], a[:C], b[:C])
        return G[:, :C].copy(), *reversed(parameters)

    def _known(self, X: Array, first: int, count: int) -> Statistics:
        """Of new channels, on all ranks"""
        if self.world.size == 1:
            found: Statistics = kernels.of(X).channel_statistics(X, first, count)
            return found
        mean, var, self.values = statistics(self.world, X, first, count)
        return mean, var.astype(mean.dtype)

    def parts(self) -> tuple[type[Op], ...]:
        return BatchNormFrozen if self.frozen else BatchNorm, ReLU, Conv2d, Concat
