"""Is a gradient right? `gradient_check` compares what `backward` says with differences of the function's own values, and
`adjoint_check` with what `push` says, its transpose, where there are no differences to round:

    F(x) = sum_k gy[k] f(x)[k],    dF/dx . d  ~  (F(x + h d) - F(x - h d)) / 2h
    <ty, gy> = <tx, gx>

The cotangent gy is random. A cotangent of ones is blind: the outputs of a softmax, or of batch normalisation, have a constant
sum, so with ones the true gradient is zero, and one that is zero or seven times too large passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from minidl.arguments import count, number
from minidl.array import Array, array_module
from minidl.core import Tensor, gradients, jvp, no_grad, tape, walk

ONE_BY_ONE = 300  # so many elements of an input are checked each on its own: all of a small input, a random choice of a large
ALL_PATTERNS = 5  # up to so many inputs, every choice of those that need a gradient is tried


class GradientError(AssertionError):
    """A gradient is wrong, or cannot be checked; the message says what was found."""


@dataclass(frozen=True)
class Difference:
    """Two values of one derivative, at an element or along a direction."""

    at: str  # "[0, 2, 1]" or "random direction"
    analytic: float
    numeric: float

    @property
    def error(self) -> float:
        """|analytic - numeric| / max(1, |analytic|, |numeric|)"""
        error = abs(self.analytic - self.numeric) / max(1.0, abs(self.analytic), abs(self.numeric))
        return math.inf if math.isnan(error) else error

    def __str__(self) -> str:
        return f"{self.at}: analytic {self.analytic:.9g}, numeric {self.numeric:.9g}, error {self.error:.2g}"


@dataclass(frozen=True)
class Report:
    """What a check that passed has seen: of each input the worst element and the random direction."""

    elements: tuple[Difference, ...]
    directions: tuple[Difference, ...]

    @property
    def error(self) -> float:
        """The largest error of all."""
        return max(d.error for d in self.elements + self.directions)


def gradient_check(
    f: Callable[..., Tensor],
    inputs: Sequence[Any],
    *,
    seed: int = 0,
    step: float = 1e-6,
    tolerance: float = 1e-6,
    cotangent: Array | None = None,
) -> Report:
    """Raise GradientError unless the gradients of f at `inputs` are right; else return a Report of the errors.

    f: takes one Tensor per input, returns one Tensor of any shape. It must give the same values each time (seed its random
    numbers inside f) and be smooth within a few steps of the inputs (keep relu and max away from kinks and ties).
    inputs: arrays or Tensors, computed with in float64 whatever their type, since differences need its digits.
    seed: of the random cotangent and directions. cotangent: an array of the shape of f's output to take its place.
    step: h. The numeric value is wrong by about h^2 |f'''| / 6, the next term of the series, and by 1e-16 |f| / h, the
    rounding of f in float64: at h = 1e-6 both are small, about 1e-12 and 1e-10 for values around 1.
    tolerance: of |analytic - numeric| / max(1, |analytic|, |numeric|): far above those two, far below a real mistake.

    Checked are: each element (a random choice of 300 in a larger input) and a random direction of each input; that every
    choice of inputs that need a gradient gives the same gradients, and none to the others (with more than 5 inputs: each on
    its own); that forward and backward leave the inputs, the cotangent and what was saved as they were.

    Raises TypeError or ValueError, too, for an argument that cannot be: no inputs, an empty one, another cotangent, numbers.
    """
    if len(inputs) == 0:
        raise ValueError("inputs: expected at least one array or Tensor, got none")
    seed, step, tolerance = count(seed, "seed", 0), number(step, "step", "(0, inf)"), number(tolerance, "tolerance", "(0, inf)")
    xs = [_as_float64(x, f"inputs[{i}]") for i, x in enumerate(inputs)]
    rng = np.random.default_rng(seed)
    title = f"the gradient of {getattr(f, '__qualname__', repr(f))} at {', '.join(str(x.shape) for x in xs)}"

    y = _output(f, xs, title)
    gy = _cotangent(cotangent, y, rng)
    gxs = _gradients(f, xs, [True] * len(xs), gy, title)
    for needs in _patterns(len(xs)):
        for i, gx in enumerate(_gradients(f, xs, needs, gy, title)):
            if needs[i] and not _same(gx, gxs[i], tolerance):
                only = ", ".join(str(k) for k, need in enumerate(needs) if need)
                raise GradientError(f"{title}: that of input {i} changes where only these inputs need one: {only}")

    elements, directions, wrong = [], [], ""
    for i, (x, gx) in enumerate(zip(xs, gxs, strict=True)):
        direction = array_module(x).asarray(rng.standard_normal(x.shape))
        along = Difference("random direction", float((gx * direction).sum()), _slope(f, xs, i, direction, gy, step))
        each = []
        for k in rng.permutation(x.size)[:ONE_BY_ONE]:
            index = tuple(int(j) for j in np.unravel_index(k, x.shape))
            one = array_module(x).zeros_like(x)
            one[index] = 1
            each.append(Difference(str(list(index)), float(gx[index]), _slope(f, xs, i, one, gy, step)))
        worst, misses = max(each, key=lambda d: d.error), sum(d.error > tolerance for d in each)
        if misses or along.error > tolerance:
            wrong += f"\n  input {i} {x.shape}: wrong in {misses} of {len(each)} elements, worst\n    {worst}\n    {along}"
        elements.append(worst)
        directions.append(along)
    if wrong:
        drawn = f"random, seed {seed}" if cotangent is None else "as given"
        raise GradientError(
            f"{title} is wrong{wrong}\n  tolerance {tolerance:g}, step {step:g}, cotangent {drawn}\n  ops: {_chain(f, xs)}"
        )
    return Report(tuple(elements), tuple(directions))


def adjoint_check(f: Callable[..., Tensor], inputs: Sequence[Any], *, seed: int = 0, tolerance: float = 1e-10) -> float:
    """Raise GradientError unless `push` and `backward` of f at `inputs` are each other's transpose; else return the error.

        |<ty, gy> - sum_i <tx_i, gx_i>| <= tolerance |tx| |gy|,    ty = jvp(y, xs, txs), gxs = gradients(y, xs, gy)

    for random tx and gy, with a tangent in every input, and in each one alone. f and inputs, of any shape, are as for
    `gradient_check`, and kinks do no harm. The identity holds to rounding, so that a small mistake shows; one that both have,
    only differences find. Raises TypeError or ValueError, too, for an argument that cannot be.
    """
    if len(inputs) == 0:
        raise ValueError("inputs: expected at least one array or Tensor, got none")
    seed, tolerance = count(seed, "seed", 0), number(tolerance, "tolerance", "(0, inf)")
    xs = [Tensor(_as_float64(x, f"inputs[{i}]"), True, f"input {i}") for i, x in enumerate(inputs)]
    rng = np.random.default_rng(seed)
    y = f(*xs)
    gy, *txs = (array_module(x.data).asarray(rng.standard_normal(x.shape)) for x in (y, *xs))
    gxs = gradients(y, xs, gy)
    worst = 0.0
    for which in [range(len(xs)), *([i] for i in range(len(xs)) if len(xs) > 1)]:
        ty = jvp(y, [xs[i] for i in which], [txs[i] for i in which])
        forward, back = float((ty * gy).sum()), math.fsum(float((txs[i] * gxs[i]).sum()) for i in which)
        size = math.sqrt(float((gy * gy).sum()) * math.fsum(float((txs[i] * txs[i]).sum()) for i in which))
        error = abs(forward - back) / size
        if not error <= tolerance:  # NaN neither
            raise GradientError(
                f"push and backward of {getattr(f, '__qualname__', repr(f))} at {', '.join(str(x.shape) for x in xs)} disagree"
                f"\n  tangents in inputs {list(which)}: <ty, gy> = {forward:.9g}, sum <tx, gx> = {back:.9g}, "
                f"apart by {error:.2g} |tx| |gy|\n"
                f"  tolerance {tolerance:g}, seed {seed}\n  ops: {_chain(f, [x.data for x in xs])}"
            )
        worst = max(worst, error)
    return worst


def _as_float64(x: Any, name: str) -> Array:
    x = x if isinstance(x, Tensor) else Tensor(x)
    if x.size == 0:
        raise ValueError(f"{name}: expected at least one element, got shape {x.shape}")
    return x.data.astype(np.float64)


def _cotangent(cotangent: Array | None, y: Array, rng: np.random.Generator) -> Array:
    if cotangent is None:
        return array_module(y).asarray(rng.standard_normal(y.shape))
    if cotangent.shape != y.shape:
        raise ValueError(f"cotangent: expected the shape of the output, {y.shape}, got {cotangent.shape}")
    return cotangent.astype(np.float64)


def _output(f: Callable[..., Tensor], xs: list[Array], title: str) -> Array:
    """f(x), after making sure that it can be differenced: finite, float64, and the same at each call"""
    with no_grad():
        y, again = (f(*[Tensor(x.copy()) for x in xs]) for _ in range(2))
    if not isinstance(y, Tensor):
        raise TypeError(f"f: expected a function that returns one Tensor, got {type(y).__name__}")
    if y.dtype != np.float64:
        raise GradientError(f"{title}: float64 inputs gave an output of {y.dtype}")
    if not array_module(y.data).isfinite(y.data).all():
        raise GradientError(f"{title}: the output is not finite")
    if not _same(y.data, again.data, 1e-12):  # a difference of 1e-12 in f is one of 1e-6 in its slope
        raise GradientError(f"{title}: two calls with the same inputs gave different values; seed random numbers inside f")
    return y.data


def _patterns(n: int) -> list[Sequence[bool]]:
    """Choices of the inputs that need a gradient"""
    if n <= ALL_PATTERNS:
        return [needs for needs in product((True, False), repeat=n) if any(needs)]
    return [[i == k for i in range(n)] for k in range(n)]


def _gradients(f: Callable[..., Tensor], xs: list[Array], needs: Sequence[bool], gy: Array, title: str) -> list[Array]:
    """What backward says, zeros where nothing arrives. Two passes must say the same and change nothing in place."""
    inputs = [Tensor(x.copy(), need, f"input {i}") for i, (x, need) in enumerate(zip(xs, needs, strict=True))]
    y = f(*inputs)
    _unchanged(inputs, xs, f"{title}: the forward pass")
    passes = []
    for _ in range(2):
        leaves: dict[Tensor, Array] = {}
        gy_after = gy
        try:
            for step in walk(y, gy, leaves=leaves, apart=False) if y.requires_grad else ():
                if step.op is y.op:
                    gy_after = step.gy
        except Exception as error:
            notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", ()))
            raise GradientError(f"{title}: backward fails with {type(error).__name__}: {error}{notes}") from error
        _unchanged(inputs, xs, f"{title}: backward")
        if not _same(gy_after, gy, 0):
            raise GradientError(f"{title}: backward changes gy in place")
        passes.append([leaves[x].copy() if x in leaves else array_module(x.data).zeros_like(x.data) for x in inputs])
    for i, (x, first, second) in enumerate(zip(inputs, *passes, strict=True)):
        if not x.requires_grad and x in leaves:
            raise GradientError(f"{title}: input {i} needs none and got one")
        if not array_module(first).isfinite(first).all():
            raise GradientError(f"{title}: that of input {i} is not finite")
        if not _same(first, second, 0):
            raise GradientError(f"{title}: a second backward gives input {i} another one: an op changes what it saved")
    return passes[0]


def _unchanged(inputs: list[Tensor], xs: list[Array], who: str) -> None:
    for i, (x, before) in enumerate(zip(inputs, xs, strict=True)):
        if not _same(x.data, before, 0):
            raise GradientError(f"{who} changes input {i} in place")


def _slope(f: Callable[..., Tensor], xs: list[Array], i: int, d: Array, gy: Array, h: float) -> float:
    """sum_k gy[k] (f(x + h d)[k] - f(x - h d)[k]) / 2h, x the input i"""
    with no_grad():
        high = f(*[Tensor(x + h * d if k == i else x.copy()) for k, x in enumerate(xs)])
        low = f(*[Tensor(x - h * d if k == i else x.copy()) for k, x in enumerate(xs)])
    return float((gy * (high.data - low.data)).sum()) / (2 * h)


def _same(a: Array, b: Array, tolerance: float) -> bool:
    return bool(array_module(a).allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True))


def _chain(f: Callable[..., Tensor], xs: list[Array]) -> str:
    """The ops from the inputs to the output"""
    y = f(*[Tensor(x.copy(), requires_grad=True) for x in xs])
    return " -> ".join(type(op).__name__ for op in reversed(tape(y))) if y.requires_grad else "none"
