"""The smallest change that succeeds, by Adam and a binary search for its weight."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minidl import ops
from minidl.arguments import count, number
from minidl.array import Array, array_module
from minidl.attack.ball import Bounds, sizes
from minidl.attack.best import Best, losses_of, put
from minidl.attack.common import PerChannel, attacked, check_bounds, on_images, reached
from minidl.attack.result import AttackResult
from minidl.contexts import contained
from minidl.core import Parameter
from minidl.inference.batches import Progress
from minidl.inference.evaluation import logits_of
from minidl.inference.scores import Target
from minidl.nn import Module
from minidl.optim import AdamW

FIRST, TEN_TIMES, INSIDE = 1e-3, 10, 0.999999  # the first c; how it grows; arctanh needs |.| < 1


@contained
def carlini_wagner(
    model: Module,
    x: Array,
    y: Target = None,
    bounds: Bounds = (0, 1),
    targeted: bool = False,
    kappa: float = 0.0,
    searches: int = 9,
    steps: int = 200,
    lr: float = 0.01,
    mean: PerChannel = None,
    std: PerChannel = None,
    batch_size: int = 32,
    progress: Progress = False,
    keep_path: bool = False,
) -> AttackResult:
    """min over w of ||x' - x||_2^2 / (high - low)^2 + c max(S_y - max_{k != y} S_k, -kappa)

        x' = (high + low) / 2 + (high - low) / 2 tanh(w)

    by Adam, from x' = x, for `searches` values of c, each image's own. c begins with 0.001 and grows ten times as large until
    the attack succeeds; then it is sought between the largest that failed and the smallest that succeeded. A targeted attack
    takes max_{k != y} S_k - S_y. The tanh keeps x' in bounds. Carlini and Wagner 2017, "Towards evaluating the robustness of
    neural networks", section VI.A.

    Where c is said to succeed, an image of the second half of its steps did: the first step of Adam changes each value of w by
    lr, whatever c is, and may well succeed by chance.

    Returns the nearest image that succeeds, by l2; those that do not succeed come back as they were, and so do those that
    succeed without an attack. Of a linear model the size of the change is |margin| / ||w_y - w_k||_2, where no bound is in the
    way, and by how much more tells how far Adam is from its minimum.

    Args:
        kappa: the margin that is asked for, in units of the logits: success in the search is S_k - S_y >= kappa. 0: any.
        searches: values of c.
        steps: of Adam, for each of them; the paper takes 10,000.
        lr: of Adam at first, in units of w: 0.01 moves a value in the middle of [0, 1] by about 0.005 a step. It falls to 0 on
            a line, which makes up for fewer steps; in the paper it stays.

    The other arguments, and what is raised, are those of `fgsm`.
    """
    kappa, lr, bounds = number(kappa, "kappa", "[0, inf)"), number(lr, "lr", "[0, inf)"), check_bounds(bounds)
    searches, steps = count(searches, "searches"), count(steps, "steps", 0)
    net, (low, high) = on_images(model, x, mean, std), bounds
    middle, half = (high + low) / 2, (high - low) / 2

    def core(x: Array, classes: Array, part: slice) -> Iterator[Array]:
        xp, kept = array_module(x), Best(net, x, classes, targeted)
        at = xp.nonzero(kept.distance > -kappa if kappa else ~kept.done)[0]
        if len(at) == 0:
            return
        start, aim, found, length = x[at], classes[at], x[at], xp.full(len(at), np.inf)
        c, least, most = xp.full(len(at), FIRST), xp.zeros(len(at)), xp.full(len(at), np.inf)
        for _ in range(searches):
            w, success = Parameter(xp.arctanh(INSIDE * (start - middle) / half).astype(x.dtype)), xp.zeros(len(at), bool)
            optimiser = AdamW([w], lr, weight_decay=0.0)
            for t in range(steps):
                optimiser.lr = lr * (1 - t / steps)
                optimiser.zero_grad()
                image = ops.clip(half * ops.tanh(w) + middle, low, high)  # clipped for the sake of its rounding
                logits = logits_of(net, image)
                closeness = losses_of(logits, aim, targeted, "margin")
                far = ops.sum(((image - start) / (high - low)) ** 2, axis=(1, 2, 3))
                ops.sum(far + c.astype(x.dtype) * ops.relu(kappa - closeness)).backward()
                optimiser.step()
                now = image.data
                distance = kept.distances(logits.data, aim)
                there = distance <= -kappa if kappa else reached(logits.data, aim, targeted)
                size = sizes(now - start, "l2").reshape(-1).astype("float64")
                better = there & (size < length)
                found[better], length[better] = now[better], size[better]
                success = success | there if 2 * t >= steps else success
                yield put(x, at, now)
            most, least = xp.where(success, c, most), xp.where(success, least, c)
            c = xp.where(xp.isfinite(most), (least + most) / 2, TEN_TIMES * c)
        yield put(x, at, found)

    params = {
        "method": "carlini_wagner",
        "bounds": bounds,
        "targeted": targeted,
        "kappa": kappa,
        "searches": searches,
        "steps": steps,
        "lr": lr,
    }
    return attacked(net, x, y, core, searches * steps + 1, bounds, targeted, batch_size, progress, keep_path, params)
