"""`push` beside `backward`, its transpose, where there are no differences to round: <ty, gy> = <tx, gx>"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minidl.arguments import count, function, number
from minidl.check.differences import GradientError, as_float64, chain, in_words, normal
from minidl.core import Tensor, gradients, jvp, no_grad

STEP = 1e-6  # of the difference that says which of the two is wrong


def adjoint_check(f: Callable[..., Tensor], inputs: Sequence[Any], *, seed: int = 0, tolerance: float = 1e-10) -> float:
    """Raise GradientError unless `push` and `backward` of f at `inputs` are each other's transpose; else return the error.

        |<ty, gy> - sum_i <tx_i, gx_i>| <= tolerance |tx| |gy|,    ty = jvp(y, xs, txs), gxs = gradients(y, xs, gy)

    for random tx and gy, with a tangent in every input, and in each one alone. f and inputs, of any shape, are as for
    `gradient_check`, and kinks do no harm. The identity holds to rounding, so that a small mistake shows; one that both have,
    only differences find. Where they tell which of the two is wrong, the error says so. Raises TypeError or ValueError, too,
    for an argument that cannot be.
    """
    function(f, "f", "of a Tensor for each input")
    arrays = as_float64(inputs)
    seed, tolerance = count(seed, "seed", 0), number(tolerance, "tolerance", "(0, inf)")
    xs = [Tensor(x, True, f"input {i}") for i, x in enumerate(arrays)]
    rng = np.random.default_rng(seed)
    y = f(*xs)
    gy, *txs = (normal(x.data, rng) for x in (y, *xs))
    gxs = gradients(y, xs, gy)
    worst = 0.0
    for which in [range(len(xs)), *([i] for i in range(len(xs)) if len(xs) > 1)]:
        ty = jvp(y, [xs[i] for i in which], [txs[i] for i in which])
        forward, back = float((ty * gy).sum()), math.fsum(float((txs[i] * gxs[i]).sum()) for i in which)
        size = math.sqrt(float((gy * gy).sum()) * math.fsum(float((txs[i] * txs[i]).sum()) for i in which))
        error = abs(forward - back) / size
        if not error <= tolerance:  # NaN neither
            moved = [[Tensor(x + h * (tx if i in which else 0)) for i, (x, tx) in enumerate(zip(arrays, txs, strict=True))]
                     for h in (STEP, -STEP)]  # fmt: skip
            with no_grad():
                high, low = (f(*some).data for some in moved)
            slope = float((gy * (high - low)).sum()) / (2 * STEP)
            raise GradientError(
                f"push and backward of {in_words(f, arrays)} disagree{_who(forward, back, slope, 1e-6 * size)}"
                f"\n  tangents in inputs {list(which)}: <ty, gy> = {forward:.9g}, sum <tx, gx> = {back:.9g}, "
                f"apart by {error:.2g} |tx| |gy|\n"
                f"  tolerance {tolerance:g}, seed {seed}\n  ops: {chain(f, arrays)}"
            )
        worst = max(worst, error)
    return worst


def _who(forward: float, back: float, slope: float, tolerance: float) -> str:
    """Which of the two agrees with the difference of the values, if one alone does"""
    pushed, walked = (abs(value - slope) <= max(tolerance, 1e-6 * abs(slope)) for value in (forward, back))
    if pushed == walked:
        return ""
    right, wrong = ("push", "backward") if pushed else ("backward", "push")
    return f"; {wrong} is wrong: differences of the values give {slope:.9g}, as {right} does"
