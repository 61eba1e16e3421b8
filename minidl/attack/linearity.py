"""Why do small changes add up? Along the direction that pushes one logit most, a net is nearly linear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from minidl import arguments, ops
from minidl.array import Array, array_module, to_cpu
from minidl.attack.common import PerChannel, on_images
from minidl.contexts import contained
from minidl.core import Tensor, tape
from minidl.inference.batches import Progress, batches, reporting
from minidl.inference.evaluation import evaluation_mode, logits_of
from minidl.inference.gradients import input_gradient
from minidl.inference.images import check_images
from minidl.inference.scores import Target
from minidl.nn import Module
from minidl.ops.activation import Sigmoid
from minidl.ops.pool import MaxPool2d
from minidl.stable import logistic_slope


@dataclass(frozen=True, eq=False)
class Sweep:
    """What a model makes of x + eps d, for E values of eps. NumPy arrays.

    direction: (C,H,W), d, of -1, 0 and 1.
    logits: (E,K).
    gates: (E,), the share of ReLU gates that are not as they are at eps = 0.
    switches: (E,), the same of the switches of max pooling: in how many windows another pixel wins.
    slopes: (E,), of sigmoids: the mean of 4 y (1 - y), their derivative as a share of its largest value; near 0 they are
        saturated. NaN, as gates and switches, where the model has none.
    r2: (K,), how well a straight line fits each logit: 1 - (sum of squared residuals) / (sum of squares about the mean).
    """

    direction: Array
    logits: Array
    gates: Array
    switches: Array
    slopes: Array
    r2: Array


@dataclass(frozen=True, eq=False)
class Linearity:
    """One image moved along d = sign(dS_c/dx), and along a direction of random signs, by eps of both signs.

    eps: (E,), in the units of the image, from -max_eps to max_eps, with 0 in the middle.
    target: c.
    slope: dS_c/d eps at 0, which is <dS_c/dx, d> = ||dS_c/dx||_1.
    along, random: the two sweeps.
    counts: how many "gates", "switches" and "sigmoids" the model has.
    """

    eps: Array
    target: int
    slope: float
    along: Sweep
    random: Sweep
    counts: dict[str, int]
    params: dict[str, Any] = field(default_factory=dict)


@contained
def linearity(
    model: Module,
    x: Array,
    target: Target = None,
    max_eps: float = 32 / 255,
    count: int = 201,
    mean: PerChannel = None,
    std: PerChannel = None,
    batch_size: int = 32,
    seed: int = 0,
    progress: Progress = False,
) -> Linearity:
    """Every logit of x + eps d over eps, d = sign(dS_c/dx) fixed, and how many gates and switches that changes on the way.

    Goodfellow, Shlens and Szegedy 2015, "Explaining and harnessing adversarial examples", section 5 and figure 4: their
    explanation of adversarial examples is that nets are too linear. A ReLU net is linear as long as no gate and no switch
    changes. The images are not clipped to bounds: that would bend the lines.

    Args:
        x: one image (1,C,H,W); the model is given (x - mean) / std.
        target: the class c; None: the one that the model predicts.
        max_eps: the largest eps, in the units of x.
        count: how many eps, an odd number.
        mean, std: (C,) each, of the images that the model was trained on; None: it was trained on x as it is.
        batch_size: images in memory at a time.
        seed: of the random signs.
        progress: False, True (a bar), or a function of (done, total).

    Raises:
        TypeError, ValueError: an argument that cannot be, named with what came and what was expected.
        MemoryError: `batch_size` images at a time do not fit into memory; the message says what would.
    """
    max_eps, count = arguments.number(max_eps, "max_eps", "(0, inf)"), arguments.count(count, "count", 3)
    seed = arguments.count(seed, "seed", 0)
    if count % 2 == 0:
        raise ValueError(f"count: expected an odd number, got {count!r}")
    net = on_images(model, x, mean, std)
    check_images(net, x, target)
    if len(x) != 1:
        raise ValueError(f"x: expected one image, (1,C,H,W), got shape {x.shape}")
    xp, half = array_module(x), count // 2
    eps = max_eps * np.arange(-half, half + 1) / half
    with evaluation_mode(net, batch_size):
        gx, classes, _ = input_gradient(net, x, target, "logit")
        base = _states(net, x)
    signs = xp.asarray(np.random.default_rng(seed).choice([-1.0, 1.0], x.shape), dtype=x.dtype)
    with reporting(2 * count, progress, "linearity") as advance:
        along, random = (_sweep(net, x, d, eps, base, batch_size, advance) for d in (xp.sign(gx), signs))
    counts = {"gates": _size(base.gates), "switches": _size(base.switches), "sigmoids": _size(base.slopes)}
    params = {"method": "linearity", "max_eps": max_eps, "count": count, "seed": seed}
    return Linearity(eps, int(classes[0]), float(xp.abs(gx).sum()), along, random, counts, params)


class _States(NamedTuple):
    """What a forward pass of B images went through, op by op, newest first; each array (B,...)."""

    logits: Array
    gates: list[Array]
    switches: list[Array]
    slopes: list[Array]


def _states(net: Module, x: Array) -> _States:
    with ops.unfused():
        logits = logits_of(net, Tensor(x, requires_grad=True))
    made = tape(logits)
    gates = [gate for op in made if (gate := op.gate()) is not None]
    switches = [op.argmax for op in made if isinstance(op, MaxPool2d)]
    slopes = [4 * logistic_slope(op.x) for op in made if isinstance(op, Sigmoid)]
    return _States(logits.data, gates, switches, slopes)


def _sweep(
    net: Module, x: Array, d: Array, eps: Array, base: _States, batch_size: int, advance: Callable[[int], None]
) -> Sweep:
    xp, rows = array_module(x), []
    for part in batches(len(eps), batch_size):
        with evaluation_mode(net, batch_size):
            now = _states(net, x + xp.asarray(eps[part], dtype=x.dtype)[:, None, None, None] * d)
        B = len(now.logits)
        gates, switches = _differ(now.gates, base.gates), _differ(now.switches, base.switches)
        rows.append((to_cpu(now.logits), _mean(gates, B), _mean(switches, B), _mean(now.slopes, B)))
        advance(B)
    logits, changed, switched, slopes = (np.concatenate(arrays) for arrays in zip(*rows, strict=True))
    return Sweep(to_cpu(d[0]), logits, changed, switched, slopes, _r2(eps, logits))


def _size(arrays: list[Array]) -> int:
    return sum(a[0].size for a in arrays)


def _differ(now: list[Array], base: list[Array]) -> list[Array]:
    return [a != b for a, b in zip(now, base, strict=True)]


def _mean(arrays: list[Array], B: int) -> Array:
    """The mean (B,) of all entries of an image, on the CPU; NaN where there are none."""
    if not arrays:
        return np.full(B, np.nan)
    sums = [to_cpu(a.reshape(len(a), -1).sum(axis=1, dtype="float64")) for a in arrays]
    return np.sum(sums, axis=0) / _size(arrays)


def _r2(eps: Array, logits: Array) -> Array:
    """1 - sum (S - fit)^2 / sum (S - mean)^2, fit = mean + slope eps (eps has mean 0); 1 for a logit that does not move."""
    S = logits.astype(np.float64)
    around = S - S.mean(0)  # (E,K)
    residual = around - eps[:, None] * (eps @ around) / (eps @ eps)
    total = (around**2).sum(0)
    return 1 - np.divide((residual**2).sum(0), total, out=np.zeros_like(total), where=total > 0)
