"""The shortest way over the nearest border, as if the model were linear; from where that leads, again."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minidl.arguments import count, number
from minidl.array import Array, array_module
from minidl.attack.ball import Bounds, normalize, sizes
from minidl.attack.common import PerChannel, answers, attacked, check_bounds, class_gradients, on_images, reached
from minidl.attack.result import AttackResult
from minidl.contexts import contained
from minidl.inference.batches import Progress
from minidl.inference.scores import Target
from minidl.nn import Module


@contained
def deepfool(
    model: Module,
    x: Array,
    y: Target = None,
    bounds: Bounds = (0, 1),
    targeted: bool = False,
    overshoot: float = 0.02,
    steps: int = 50,
    candidates: int = 10,
    mean: PerChannel = None,
    std: PerChannel = None,
    batch_size: int = 32,
    progress: Progress = False,
    keep_path: bool = False,
) -> AttackResult:
    """x <- x + (1 + overshoot) r, r the shortest to where the linearised margin of class y over another one is 0:

        k = argmin_k |S_k - S_y| / ||w_k||_2,    w_k = d(S_k - S_y)/dx,    r = |S_k - S_y| / ||w_k||_2^2 w_k

    until the model answers another class. Moosavi-Dezfooli, Fawzi and Frossard 2016, "DeepFool: a simple and accurate method
    to fool deep neural networks", algorithm 2. The l2 size of the change is an upper estimate of the distance from the
    border: of a linear model it is (1 + overshoot) times that distance, exactly, where no bound is in the way.

    Args:
        y: None: the class that the model predicts. An image that it takes for another class than y stays as it is.
        bounds: the paper has none; here a value that stands at one is left out of w_k where it would leave, and every step
            is clipped.
        targeted: y is the class to reach; each step goes to its border with the class that the model then predicts.
        overshoot: how far beyond the border each step goes, as a share of its length; with 0 an image of a linear model
            ends on the border itself, where rounding decides who wins.
        steps: at most so many.
        candidates: how many classes k, those with the largest logits at the start; each costs a backward pass a step.

    The other arguments, and what is raised, are those of `fgsm`.
    """
    overshoot, bounds = number(overshoot, "overshoot", "[0, inf)"), check_bounds(bounds)
    steps, candidates = count(steps, "steps", 0), count(candidates, "candidates")
    net = on_images(model, x, mean, std)

    def core(x: Array, classes: Array, part: slice) -> Iterator[Array]:
        return to_the_border(net, x, classes, targeted, overshoot, steps, candidates, bounds)

    params = {
        "method": "deepfool",
        "bounds": bounds,
        "targeted": targeted,
        "overshoot": overshoot,
        "steps": steps,
        "candidates": candidates,
    }
    return attacked(net, x, y, core, steps, bounds, targeted, batch_size, progress, keep_path, params)


def to_the_border(
    net: Module,
    x: Array,
    classes: Array,
    targeted: bool,
    overshoot: float,
    steps: int,
    candidates: int,
    bounds: Bounds,
) -> Iterator[Array]:
    """The images (N,C,H,W) of one batch after every step, until all have arrived; inside `evaluation_mode`."""
    xp = array_module(x)
    logits = answers(net, x)  # (N,K)
    K = logits.shape[1]
    others = logits.copy()
    others[xp.arange(len(x)), classes] = -np.inf
    ranked = (-others).argsort(axis=1)[:, : min(candidates, K - 1)]  # (N,k), the best first, without the class itself
    todo = xp.nonzero(~reached(logits, classes, targeted))[0]
    for _ in range(steps):
        if len(todo) == 0:
            return
        here = classes[todo][:, None]
        leave, rivals = (logits[todo].argmax(1)[:, None], here) if targeted else (here, ranked[todo])
        r = shortest(net, x[todo], leave, rivals, bounds)
        x = x.copy()
        x[todo] = xp.clip(x[todo] + (1 + overshoot) * r, *bounds)
        logits[todo] = answers(net, x[todo])
        todo = todo[~reached(logits[todo], classes[todo], targeted)]
        yield x


def shortest(net: Module, x: Array, leave: Array, rivals: Array, bounds: Bounds) -> Array:
    """The shortest r (n,C,H,W) after which some class of `rivals` (n,k) draws level with the one of `leave` (n,1)."""
    xp, (n, k) = array_module(x), rivals.shape
    logits, gx = class_gradients(net, x, xp.concatenate([leave, rivals], axis=1))  # (n,K) (n,1+k,C,H,W)
    w = gx[:, 1:] - gx[:, :1]  # (n,k,C,H,W)
    stuck = ((x <= bounds[0])[:, None] & (w < 0)) | ((x >= bounds[1])[:, None] & (w > 0))
    w = xp.where(stuck, 0, w).reshape(n * k, *x.shape[1:])
    f = xp.take_along_axis(logits, rivals, 1) - xp.take_along_axis(logits, leave, 1)  # (n,k)
    length = sizes(w, "l2").reshape(n, k)
    few = 16 * np.finfo(x.dtype).eps
    margin = xp.maximum(xp.abs(f), few * xp.abs(logits).max(axis=1, keepdims=True))  # ties move too
    distance = margin / xp.maximum(length, np.finfo(x.dtype).tiny)
    nearest = xp.where(length > 0, distance, np.inf).argmin(axis=1)
    at = xp.arange(n)
    w = normalize(w.reshape(n, k, *x.shape[1:])[at, nearest])
    # at least so far that rounding lets one pixel move, also where all logits are 0 or the gradient is steep
    values = xp.where((x == 0).all(axis=(1, 2, 3), keepdims=True), bounds[1] - bounds[0], sizes(x, "linf"))
    least = few * values / xp.maximum(sizes(w, "linf"), np.finfo(x.dtype).tiny)
    r: Array = xp.maximum(distance[at, nearest][:, None, None, None], least) * w
    return r.astype(x.dtype, copy=False)
