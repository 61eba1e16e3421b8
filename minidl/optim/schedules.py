"""Learning rates as functions of the step alone, so that a resumed run needs no state of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from minidl.arguments import count, counts, number

Schedule = Callable[[int], float]  # step, counted from 0 -> learning rate


def constant(lr: float) -> Schedule:
    """lr(k) = lr, at every step k. Raises TypeError or ValueError where that is no number of at least 0."""
    lr = number(lr, "lr", "[0, inf)")
    return lambda k: lr


def step_decay(lr: float, milestones: Sequence[int], factor: float = 0.1) -> Schedule:
    """lr(k) = lr factor^(number of milestones that step k has reached).

    Raises TypeError or ValueError for an lr or a factor below 0, and for milestones that are no increasing integers from 0 on.
    """
    lr, factor = number(lr, "lr", "[0, inf)"), number(factor, "factor", "[0, inf)")
    steps = counts(milestones, "milestones", 0)
    if list(steps) != sorted(set(steps)):
        raise ValueError(f"milestones: expected increasing steps, got {milestones}")
    return lambda k: lr * factor ** sum(bool(k >= step) for step in steps)


def cosine(lr: float, total: int, warmup: int = 0) -> Schedule:
    """lr(k) = lr k / warmup in the first `warmup` steps, then lr / 2 (1 + cos(pi (k - warmup) / (total - warmup))), to 0.

    Loshchilov and Hutter 2017, "SGDR", equation 5, without restarts. Raises TypeError or ValueError for an lr below 0, a total
    below 1, and a warmup that is not from 0 to total - 1.
    """
    lr, total, warmup = number(lr, "lr", "[0, inf)"), count(total, "total"), count(warmup, "warmup", 0)
    if warmup >= total:
        raise ValueError(f"warmup, total: expected 0 <= warmup < total, got {warmup} and {total}")
    return lambda k: _rise_and_fall(k, lr, warmup, total)


def one_cycle(peak: float, total: int, warmup: float = 0.3) -> Schedule:
    """lr(k) = peak k / w up to step w = warmup total, 30% of all, then peak / 2 (1 + cos(pi (k - w) / (total - w))), to 0.

    After Smith and Topin 2019, "Super-convergence", who fall linearly. Raises TypeError or ValueError for a peak below 0, a
    total below 1, and a warmup outside [0, 1).
    """
    peak, total, warmup = number(peak, "peak", "[0, inf)"), count(total, "total"), number(warmup, "warmup", "[0, 1)")
    rise = warmup * total if warmup * total >= 1 else 0  # a rise of less than a step would be a single step with a rate of 0
    return lambda k: _rise_and_fall(k, peak, rise, total)


def _rise_and_fall(k: int, peak: float, warm: float, total: int) -> float:
    k = int(k)  # a NumPy number would make one of the learning rate
    if k < warm:
        return peak * (k / warm)
    return peak * 0.5 * (1 + math.cos(math.pi * (min(k, total) - warm) / (total - warm)))
