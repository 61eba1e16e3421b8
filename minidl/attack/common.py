"""What all attacks share: the model as a function of images in bounds, the arguments checked, the steps of every batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from minidl.arguments import flag, numbers, wrong
from minidl.array import Array, array_like, array_module
from minidl.attack.ball import Bounds
from minidl.attack.result import AttackResult
from minidl.core import Tensor, gradients, no_grad
from minidl.inference.batches import Progress, batches, of_part, reporting
from minidl.inference.evaluation import Answering, evaluation_mode, logits_of
from minidl.inference.images import check_images
from minidl.inference.scores import Output, Target, decisions, score, targets
from minidl.nn import Module

PerChannel = Sequence[float] | Array | None  # one number a channel
ROUNDINGS = 4  # so many may have moved an image out of its bounds
Core = Callable[[Array, Array, slice], Iterator[Array]]  # (x, classes, which of all) -> the images after every step


class Normalised(Module):
    """y = model((x - mean) / std), so that gradients are those in the image x (N,C,H,W)"""

    def __init__(self, model: Module, mean: Array, std: Array) -> None:
        self.model, self.mean, self.std = model, mean, std  # (1,C,1,1) each

    def forward(self, x: Tensor) -> Tensor:
        return self.model((x - self.mean) / self.std)


def on_images(model: Module, x: Array, mean: PerChannel, std: PerChannel) -> Answering:
    """The model as a function of images like x (N,C,H,W); mean and std are what it was trained on them with, or None."""
    check_images(model, x)
    if mean is None and std is None:
        return Answering(model)
    C = x.shape[1]
    if mean is None or std is None:
        raise TypeError(f"mean, std: expected {C} numbers each, or None twice, got {mean!r} and {std!r}")
    shift = array_like(numbers(mean, "mean", length=C), x, x.dtype)
    scale = array_like(numbers(std, "std", "(0, inf)", C), x, x.dtype)
    return Answering(Normalised(model, shift.reshape(1, C, 1, 1), scale.reshape(1, C, 1, 1)))


def check_bounds(bounds: Bounds) -> Bounds:
    """(low, high), low < high."""
    low, high = numbers(bounds, "bounds", length=2)
    if low >= high:
        wrong(ValueError, "bounds", "(low, high), low < high", bounds)
    return low, high


def inside(x: Array, bounds: Bounds) -> Array:
    """x with the values that a rounding has put outside of the bounds back on them. Raises ValueError where it was more."""
    low, high = bounds
    xp, rounding = array_module(x), ROUNDINGS * float(np.finfo(x.dtype).eps) * max(abs(low), abs(high))
    if not bool(((x >= low - rounding) & (x <= high + rounding)).all()):
        least, most = float(x.min()), float(x.max())
        raise ValueError(
            f"x: expected values in the bounds [{low:g}, {high:g}], got {least:.4g} to {most:.4g} "
            "(normalised input? pass mean and std, and the images as they were before)"
        )
    return xp.clip(x, *bounds)


def scores_of(logits: Tensor, classes: Array, output: Output) -> Tensor:
    """The scores (N,) of the model's own logits (N,K); of one logit as those of the two answers that it decides between."""
    if callable(output):
        return score(logits, classes, output)
    if output == "sigmoid" and logits.shape[1] == 1:
        output = "prob"  # which it is, and 1 - that for class 0
    return score(decisions(logits), classes, output)


def score_gradient(net: Answering, x: Array, classes: Array, output: Output) -> Array:
    """d score_c / dx (N,C,H,W) of one batch."""
    image = Tensor(x, requires_grad=True)
    scores = scores_of(logits_of(net.model, image), classes, output)
    (gx,) = gradients(scores, [image], array_module(x).ones_like(scores.data), keep_graph=False)
    return gx


def class_gradients(net: Module, x: Array, classes: Array) -> tuple[Array, Array]:
    """The logits (N,K) of one batch, and dS_c/dx (N,k,C,H,W) of the k classes c of each image, classes (N,k)."""
    xp, image = array_module(x), Tensor(x, requires_grad=True)
    logits = logits_of(net, image)
    found = []
    for j in range(classes.shape[1]):
        gy = xp.zeros_like(logits.data)
        gy[xp.arange(len(x)), classes[:, j]] = 1
        found += gradients(logits, [image], gy)
    return logits.data, xp.stack(found, axis=1)


def answers(net: Module, x: Array) -> Array:
    """The logits (N,K) of one batch, without a graph."""
    with no_grad():
        return logits_of(net, x).data


def reached(logits: Array, classes: Array, targeted: bool) -> Array:
    """(N,) bool: whether the answer is `classes` (N,), for a targeted attack, or anything else, for another."""
    return (logits.argmax(1) == classes) == targeted


def check_target(y: Target, targeted: bool) -> None:
    if flag(targeted, "targeted") and y is None:
        raise ValueError("y: a targeted attack needs the class that it is to reach, got None")


def attacked(
    net: Module,
    x: Array,
    y: Target,
    core: Core,
    steps: int,
    bounds: Bounds,
    targeted: bool,
    batch_size: int,
    progress: Progress,
    keep_path: bool,
    params: dict[str, Any],
) -> AttackResult:
    """Run `core`, of at most so many `steps`, on one batch after the other, and collect what it did."""
    check_images(net, x, y, "y")
    check_target(y, targeted)
    keep_path = flag(keep_path, "keep_path")
    x = inside(x, bounds)
    xp, parts, paths = array_module(x), [], []
    with reporting(len(x) * steps, progress, params["method"]) as advance:
        for part in batches(len(x), batch_size):
            start, n = x[part], part.stop - part.start
            with evaluation_mode(net, batch_size):
                before = answers(net, start)
            classes = targets(before, of_part(y, part), "y")
            now, moved, path = start, xp.zeros(n, dtype="int64"), [start]
            left, changes = n * steps, core(start, classes, part)
            while True:
                with evaluation_mode(net, batch_size):  # one step, so that it is left before anything else runs
                    after = next(changes, None)
                if after is None:
                    break
                moved += (after != now).any(axis=(1, 2, 3))
                now = after
                path += [now] if keep_path else []
                left -= n
                advance(n)
            advance(left)  # of a batch that was done before
            if keep_path:
                paths.append(xp.stack([*path, *[now] * (steps + 1 - len(path))]))
            with evaluation_mode(net, batch_size):
                logits = answers(net, now)
            parts.append((now, now - start, reached(logits, classes, targeted), classes, before, logits, moved))
    now, delta, success, classes, before, logits, moved = (xp.concatenate(arrays) for arrays in zip(*parts, strict=True))
    kept = xp.concatenate(paths, axis=1) if keep_path else None
    return AttackResult(now, delta, success, classes, before, logits, moved, kept, params)
