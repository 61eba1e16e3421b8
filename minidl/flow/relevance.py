"""Layer-wise relevance propagation: rules for the way back that share the score out, as hooks on the steps of a walk.

    relevance = Relevance(y)
    for step in walk(y, y.data):
        relevance(step)

The walk starts with the score itself and carries relevance R in place of gradients. Each op shares the R of its output y among
its inputs, in proportion to what each contributes to y. Bach, Binder, Montavon, Klauschen, Müller and Samek 2015, "On
pixel-wise explanations for non-linear classifier decisions by layer-wise relevance propagation"; Montavon, Binder, Lapuschkin,
Samek and Müller 2019, "Layer-wise relevance propagation: an overview". For a layer y_k = sum_j x_j w_jk + b_k every rule is

    R_j = sum_k c_jk R_k / (z_k + e_k),     z_k = sum_j c_jk + d_k,     e_k = epsilon, with the sign of z_k

with contributions c_jk and a bias d_k that differ from rule to rule; a+ = max(a, 0), a- = min(a, 0):

    epsilon     c = x w                              d = b
    zplus       c = x+ w+ + x- w-                    d = b+         also known as alpha 1, beta 0
    gamma       c = x w + g (x w)+, d = b + g b+ where y > 0; c = x w + g (x w)-, d = b + g b- where y < 0
                for x >= 0 and y > 0: c = x (w + g w+), as Montavon et al. write it
    flat        c = 1                                d = 0          every input of a window gets the same
    z-box       c = x w - low w+ - high w-           d = 0          for pixels between low and high
    composite   by depth: z-box where bounds are given, else flat, in the layers nearest the image, those with no other below;
                above them gamma in convolutions and norms, and epsilon in linear layers

All other ops do the same whatever the rule:

- Batch norm with its running statistics belongs to the convolution or linear layer before it, w' = s w and b' = s (b - mean) +
  beta with s = gamma / sqrt(var + eps), where nothing else reads that layer. Elsewhere it is a layer of its own, w = s for each
  channel.
- Joins and means are shared by contribution, as by the rule epsilon: of y = a + b, R_a = a R / (a + b + e), and what is fixed
  counts as a bias. So are differences, resizing, and products with what is fixed, but for x @ w with a matrix w, which is a
  linear layer. A concatenation gives back to each part its own.
- An activation (a ReLU or what says by its `gate()` that it is one, tanh, gelu) passes R on as it is. Of a max pooling the
  maximum takes all. Moves move it back.
- An op of which none of this is known is an error.

Nothing is lost unseen: at every cut of the graph the relevance on it, and what biases and e took behind it, are the score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minidl import inputs, kernels
from minidl.analysis.facts import facts
from minidl.arguments import number, one_of
from minidl.array import Array, array_like, array_module
from minidl.core import GetItem, MatMul, Op, Step, Tensor, To, tape
from minidl.flow.backward_pass import BackwardPass
from minidl.flow.ledger import Line
from minidl.flow.relu_rules import gated
from minidl.ops.activation import GELU, Tanh
from minidl.ops.conv import Conv2d
from minidl.ops.elementwise import Clip
from minidl.ops.linear import Linear
from minidl.ops.norm import BatchNormFrozen
from minidl.ops.pool import MaxPool2d
from minidl.ops.reduce import Max
from minidl.ops.shape import BroadcastTo, Concat, Flip, Pad, Reshape, Transpose

RULES = ("composite", "epsilon", "gamma", "zplus")
ACTIVATIONS = (Tanh, GELU)  # beside those with gates
MOVES = (MaxPool2d, Max, Concat, Reshape, Transpose, Flip, Pad, BroadcastTo, GetItem, To)
Bounds = tuple[Any, Any]  # the lowest and the highest value of a pixel, numbers or arrays that broadcast to the images


class NoRuleError(ValueError):
    """An op that nobody has said how to share relevance through. reason: the message without the place in a file."""

    def __init__(self, op: Op) -> None:
        name = type(op).__name__
        why = "has no rule: it is not known to be piecewise linear; explain a logit or a margin, or take another method"
        super().__init__(f"relevance: {name} (called at {inputs.place(op.where)}) {why}")
        self.reason = f"{name} {why}"


@dataclass(frozen=True)
class Layer:
    """y = forward(x, w) + b, linear in x and in w; adjoint(s, w) is the gradient in x for a gradient s of y. b: fits y."""

    x: Array
    w: Array
    b: Any
    forward: Callable[[Array, Array], Array]
    adjoint: Callable[[Array, Array], Array]


class Relevance:
    """The hook for one walk from y, which starts with `y.data`.

    rule: "composite", "epsilon", "gamma" or "zplus". gamma, epsilon: g and e of the formulas. bounds: (low, high) of the
    pixels, for "composite" alone. biases, stabilisers: of each op what its bias and e took, once the walk has passed it.

    Raises ValueError or TypeError for an argument that cannot be; the hook raises `NoRuleError`, a ValueError, at an op without
    a rule, and ValueError where bounds cannot be carried to the first layer.
    """

    def __init__(
        self, y: Tensor, rule: str = "composite", gamma: float = 0.25, epsilon: float = 1e-6, bounds: Bounds | None = None
    ) -> None:
        self.rule, self.gamma, self.epsilon, self.bounds = *settings(rule, gamma, epsilon), bounds
        if bounds is not None and rule != "composite":
            raise ValueError(f"bounds: expected None with rule={rule!r}; the z-box is part of rule='composite'")
        self.biases: dict[Op, float] = {}
        self.stabilisers: dict[Op, float] = {}
        ops = tape(y)
        if any(op.unfolds for op in ops):
            raise ValueError("y: expected a graph that is there, got one with ops.recompute; use minidl.ops.unfused()")
        read = [x for op in ops for x, need in zip(op.inputs, op.needs, strict=True) if need and x is not None]
        self.outputs = {x.op: x.data for x in read} | {y.op: y.data}
        uses = Counter(x.op for x in read)
        self.merged = {op: layer for op in ops if (layer := _behind(op)) is not None and uses[layer] == 1}  # norm: layer
        self.norms: dict[Op, tuple[Array, Array]] = {}  # behind a layer, scale and shift, once the walk has met it
        below, self.first = dict[Op | None, bool](), set[Op]()
        for op in reversed(ops):
            layers_below = any(below.get(x.op, False) for x in op.inputs if x is not None)
            if _is_layer(op) and not layers_below:
                self.first.add(op)
            below[op] = layers_below or _is_layer(op)

    def __call__(self, step: Step) -> None:
        """Replace the gradients of a step by relevance."""
        op, R = step.op, step.gy
        y = self.outputs.pop(op)  # of a graph that is given back as it is used, its memory
        if op in self.merged:
            self.norms[self.merged[op]] = _line(op)
            step.gxs[0], taken = R, (0.0, 0.0)
        elif _is_layer(op):
            step.gxs[0], *taken = self._through_layer(op, R)  # type: ignore[assignment]
        elif backward_pass := _activation(step):
            step.gxs[backward_pass[0]], taken = R, (0.0, 0.0)
        elif type(op) in MOVES:
            taken = _sum(R) - sum(_sum(gx) for gx in step.gxs if gx is not None), 0.0  # what is fixed, such as a border
        else:
            taken = self._by_contribution(step, y)
        self.biases[op], self.stabilisers[op] = taken

    def _by_contribution(self, step: Step, y: Array) -> tuple[float, float]:
        """R_i = x_i (J_i^T s), s = R / (y + e), of y = sum_i J_i x_i + c; c takes <c, s>, and e takes <e, s>"""
        op, s = step.op, _divided(step.gy, y, self.epsilon)
        constant = facts(op).constant(op, s)
        if constant is None:
            raise NoRuleError(op)
        step.gxs = [None if gx is None else x.data * gx for x, gx in zip(op.inputs, op.backward(s), strict=True)]  # type: ignore[union-attr]
        return constant, _lost(step.gy, y, s)

    def _through_layer(self, op: Op, R: Array) -> tuple[Array, float, float]:
        layer, g = _layer(op, self.norms.get(op)), self.gamma
        x, w, b = layer.x, layer.w, layer.b
        rule = self.rule
        if rule == "composite":
            rule = "input" if op in self.first else "epsilon" if isinstance(op, Linear | MatMul) else "gamma"
        if rule == "epsilon":
            return _share(layer, R, self.epsilon, (x, w, b))
        if rule == "zplus":
            return _share(layer, R, self.epsilon, (_up(x), _up(w), _up(b)), (_down(x), _down(w), 0.0))
        if rule == "gamma":
            z = layer.forward(x, w) + b
            more = _up(x), w + g * _up(w), b + g * _up(b)
            rest = _down(x), w + g * _down(w), 0.0
            over = _share(layer, R * (z > 0), self.epsilon, more, rest)
            if not bool((R * (z <= 0)).any()):
                return over
            more = _up(x), w + g * _down(w), b + g * _down(b)
            rest = _down(x), w + g * _up(w), 0.0
            under = _share(layer, R * (z <= 0), self.epsilon, more, rest)
            return over[0] + under[0], over[1] + under[1], over[2] + under[2]
        if self.bounds is None:
            return _share(layer, R, self.epsilon, (0 * x + 1, 0 * w + 1, 0.0))
        low, high = (_carried(op.inputs[0], bound) for bound in self.bounds)
        return _share(layer, R, self.epsilon, (x, w, 0.0), (-low, _up(w), 0.0), (-high, _down(w), 0.0))


def account(backward_pass: BackwardPass, relevance: Relevance) -> list[Line]:
    """A line for each cut of `BackwardPass(y, y.data, relevance)`: `total`, the relevance on the cut and what was taken behind
    it, is the score. `counts`: the relevance of each wire; `bias`, `biases`: what biases and stabilisers took."""
    counts = {wire: _sum(R) for wire, R in backward_pass.gx.items()}
    lines, taken, op, own = list[Line](), 0.0, None, None
    for k, cut in enumerate(backward_pass.cuts):
        if k > 0:
            op = backward_pass.ops[k - 1]
            own = relevance.biases[op] + relevance.stabilisers[op]
            taken += own
        lines.append(Line(op, {wire: counts[wire] for wire in cut}, taken, None, own))
    return lines


def settings(rule: str, gamma: float, epsilon: float) -> tuple[str, float, float]:
    """The three of them, checked."""
    return one_of(rule, "rule", RULES), number(gamma, "gamma", "[0, inf)"), number(epsilon, "epsilon", "[0, inf)")


# ---- what shares relevance out


def _share(layer: Layer, R: Array, epsilon: float, *parts: tuple[Array, Array, Any]) -> tuple[Array, float, float]:
    """R_j = sum_k c_jk R_k / (z_k + e_k), and what d and e took; the sum of the parts x w is c, that of their b is d."""
    parts = parts[:1] + tuple(part for part in parts[1:] if bool(part[0].any()))  # behind a ReLU, x- is 0
    z: Any = sum(layer.forward(x, w) + b for x, w, b in parts)
    s = _divided(R, z, epsilon)
    Rx: Any = sum(x * layer.adjoint(s, w) for x, w, _ in parts)
    d = sum(b for _, _, b in parts)
    return Rx, _sum(d * s), _lost(R, z, s)


def _divided(R: Array, z: Array, epsilon: float) -> Array:
    """s = R / (z + e), e with the sign of z, that of 0 being positive; without e and z, 0"""
    xp = array_module(z)
    below = z + xp.where(z < 0, -epsilon, epsilon).astype(z.dtype)
    nothing = below == 0
    return R * ~nothing / (below + nothing)


def _lost(R: Array, z: Array, s: Array) -> float:
    """<e, s> = sum R - <z, s>: what e took"""
    return _sum(R - z * s)


def _sum(a: Array) -> float:
    return float(a.sum(dtype="float64"))


def _up(a: Any) -> Any:
    return a * (a > 0)


def _down(a: Any) -> Any:
    return a * (a < 0)


def _activation(step: Step) -> list[int]:
    """Which input an activation g with g(0) = 0 has, [0] or [1]; [] of another op."""
    if type(step.op) in ACTIVATIONS:
        return [0]
    return [] if isinstance(step.op, Clip) and _moved(step.op) else gated(step)


def _moved(op: Clip) -> bool:
    """Whether it makes something of 0"""
    return (op.low is not None and op.low > 0) or (op.high is not None and op.high < 0)


# ---- layers


def _is_layer(op: Op) -> bool:
    """Whether it has weights, which are fixed"""
    if type(op) is MatMul:
        return op.needs == (True, False) and op.b.ndim == 2
    return type(op) in (Conv2d, Linear, BatchNormFrozen) and op.needs[0] and not any(op.needs[1:])


def _behind(op: Op) -> Op | None:
    """The layer that a batch norm belongs to, if there is one before it"""
    x = op.inputs[0]
    if type(op) is not BatchNormFrozen or not _is_layer(op) or x is None or x.op is None:
        return None
    return x.op if type(x.op) in (Conv2d, Linear) and _is_layer(x.op) else None


def _layer(op: Any, norm: tuple[Array, Array] | None) -> Layer:
    """The op as a layer, with the norm behind it in its weights"""
    x: Array = op.inputs[0].data
    k = kernels.of(x)
    if isinstance(op, BatchNormFrozen):
        scale, shift = (_by_channel(a, x.ndim) for a in _line(op))
        return Layer(x, scale, shift, _times, _times)
    if isinstance(op, MatMul):
        return Layer(x, op.b, 0.0, k.matmul, lambda s, w: k.matmul(s, w.T))
    w, b = op.w, 0.0 if op.b is None else op.b
    if norm is not None:
        scale, shift = norm
        w, b = w * scale.reshape(-1, *[1] * (w.ndim - 1)), b * scale + shift
    b = b if isinstance(b, float) else _by_channel(b, x.ndim)
    if isinstance(op, Linear):
        return Layer(x, w, b, lambda x, w: k.matmul(x, w.T), k.matmul)
    geometry = op.stride, op.padding, op.dilation, op.groups
    return Layer(
        x,
        w,
        b,
        lambda x, w: k.conv2d(x, w, None, *geometry),
        lambda s, w: k.conv2d_grad_x(s, w, x.shape, *geometry),
    )


def _line(norm: Any) -> tuple[Array, Array]:
    """scale and shift of y = scale x + shift, (C,) each"""
    return norm.scale, norm.inputs[2].data - norm.mean * norm.scale


def _by_channel(a: Array, ndim: int) -> Array:
    """(C,) -> (C,1,1) beside (N,C,H,W)"""
    return a.reshape(-1, *[1] * (ndim - 2))


def _times(x: Array, w: Array) -> Array:
    return x * w


def _carried(x: Any, bound: Any) -> Array:
    """A bound of the pixels, where the first layer reads them"""
    if x.op is None:
        return array_module(x.data).broadcast_to(array_like(bound, x.data, x.dtype), x.shape)
    if type(x.op) not in (Reshape, Transpose, Flip):
        raise ValueError(
            f"bounds: expected None, or a model whose first layer reads the image itself; {type(x.op).__name__} comes before"
        )
    return x.op.push(_carried(x.op.inputs[0], bound))
