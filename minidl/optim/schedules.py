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


def step_decay(lr: float, milestones: Sequence[int], gamma: float = 0.1) -> Schedule:
    """lr(k) = lr gamma^(number of milestones that step k has reached).

    Raises TypeError or ValueError for an lr or a gamma below 0, and for milestones that are no increasing integers from 0 on.
    """
    lr, gamma = number(lr, "lr", "[0, inf)"), number(gamma, "gamma", "[0, inf)")
    steps = counts(milestones, "milestones", 0)
    if list(steps) != sorted(set(steps)):
        raise ValueError(f"milestones: expected increasing steps, got {milestones}")
    return lambda k: lr * gamma ** sum(bool(k >= step) for step in steps)


def cosine(lr: float, total_steps: int, warmup: int = 0) -> Schedule:
    """lr(k) = lr k / warmup in the first `warmup` steps, then lr / 2 (1 + cos(pi (k - warmup) / (total_steps - warmup))), to 0.

    Loshchilov and Hutter 2017, "SGDR", equation 5, without restarts. Raises TypeError or ValueError for an lr below 0, a
    total_steps below 1, and a warmup that is not from 0 to total_steps - 1.
    """
    lr, total_steps, warmup = number(lr, "lr", "[0, inf)"), count(total_steps, "total_steps"), count(warmup, "warmup", 0)
    if warmup >= total_steps:
        raise ValueError(f"warmup, total_steps: expected 0 <= warmup < total_steps, got {warmup} and {total_steps}")
    return lambda k: _rise_and_fall(k, lr, warmup, total_steps)


def one_cycle(max_lr: float, total_steps: int, warmup: float = 0.3) -> Schedule:
    """lr(k) = max_lr k / w up to step w = warmup total_steps, then max_lr / 2 (1 + cos(pi (k - w) / (total_steps - w))), to 0.

    After Smith and Topin 2019, "Super-convergence", who fall linearly. Raises TypeError or ValueError for a max_lr below 0, a
    total_steps below 1, and a warmup outside [0, 1).
    """
    max_lr, total_steps, warmup = (
        number(max_lr, "max_lr", "[0, inf)"),
        count(total_steps, "total_steps"),
        number(warmup, "warmup", "[0, 1)"),
    )
    # a rise of less than a step would be a single step with a rate of 0
    rise = warmup * total_steps if warmup * total_steps >= 1 else 0
    return lambda k: _rise_and_fall(k, max_lr, rise, total_steps)


def _rise_and_fall(k: int, max_lr: float, warm: float, total_steps: int) -> float:
    k = int(k)  # a NumPy number would make one of the learning rate
    if k < warm:
        return max_lr * (k / warm)
    return max_lr * 0.5 * (1 + math.cos(math.pi * (min(k, total_steps) - warm) / (total_steps - warm)))
