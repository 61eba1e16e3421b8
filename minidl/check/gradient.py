"""`backward` beside differences of the function's own values:

    F(x) = sum_k gy[k] f(x)[k],    dF/dx . d  ~  (F(x + h d) - F(x - h d)) / 2h

The cotangent gy is random. A cotangent of ones is blind: the outputs of a softmax, or of batch normalisation, have a constant
sum, so with ones the true gradient is zero, and one that is zero or seven times too large passes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import combinations, product
from typing import Any

import numpy as np

from minidl.arguments import count, function, number
from minidl.array import Array, array_module, is_array, to_cpu
from minidl.check import slips
from minidl.check.differences import Difference, GradientError, Point, as_float64, chain, in_words, name, normal, same
from minidl.check.shapes import mends
from minidl.core import Step, Tensor, no_grad, walk

ONE_BY_ONE = 300  # so many elements of an input are checked each on its own: all of a small input, a random choice of a large
MENDS = 12  # ways that a gradient of another shape is made to fit
ALL_PATTERNS = 5  # up to so many inputs, every choice of those that need a gradient is tried


@dataclass(frozen=True, repr=False)
class Report:
    """What a check that passed has seen: of each input the worst element and the random direction. It is shown as one line."""

    elements: tuple[Difference, ...]
    directions: tuple[Difference, ...]
    function: str  # its name
    checked: int  # elements, each on its own
    tolerance: float

    @property
    def error(self) -> float:
        """The largest error of all."""
        return max(d.error for d in self.elements + self.directions)

    def __repr__(self) -> str:
        n, k = len(self.elements), self.checked
        exponent = math.ceil(math.log10(max(self.error, 1e-16)))
        return (
            f"{self.function}: right in {n} input{'s' * (n != 1)}, {k:,} element{'s' * (k != 1)} checked, "
            f"largest error below 1e{exponent}, tolerance {self.tolerance:g}"
        )


def gradient_check(
    f: Callable[..., Tensor],
    inputs: Sequence[Any],
    *,
    seed: int = 0,
    step: float = 1e-6,
    tolerance: float = 1e-6,
    cotangent: Array | None = None,
) -> Report:
    """Raise GradientError unless the gradients of f at `inputs` are right; else return a Report, which prints as one line.

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

    The error says what slipped (a factor, a sign, a transpose, a sum over a broadcast axis, a kink, ...) where the gradient is
    right once that is undone. Where nothing is said, no such mistake alone explains the numbers.

    Raises TypeError or ValueError, too, for an argument that cannot be: no inputs, an empty one, another cotangent, numbers.
    """
    function(f, "f", "of a Tensor for each input")
    xs = as_float64(inputs)
    seed, step, tolerance = count(seed, "seed", 0), number(step, "step", "(0, inf)"), number(tolerance, "tolerance", "(0, inf)")
    rng = np.random.default_rng(seed)
    title = f"the gradient of {in_words(f, xs)}"

    y = _output(f, xs, title)
    gy = _cotangent(cotangent, y, rng)
    point = Point(f, xs, gy, step)
    gxs = _gradients(point, [True] * len(xs), title, tolerance)
    for needs in _patterns(len(xs)):
        for i, gx in enumerate(_gradients(point, needs, title, tolerance)):
            if needs[i] and not same(gx, gxs[i], tolerance):
                only = ", ".join(str(k) for k, need in enumerate(needs) if need)
                raise GradientError(f"{title}: that of input {i} changes where only these inputs need one: {only}")

    elements, directions, measured, ways = [], [], [], []
    for i, (x, gx) in enumerate(zip(xs, gxs, strict=True)):
        direction = normal(x, rng)
        directions.append(Difference("random direction", float((gx * direction).sum()), point.slope(i, direction)))
        ways.append(direction)
        measured.append(slips.measure(point, i, x.shape, rng, ONE_BY_ONE))
        pairs = zip(measured[i].at, measured[i].of(gx).tolist(), measured[i].numeric.tolist(), strict=True)
        elements.append([Difference(str(list(index)), a, n) for index, a, n in pairs])
    worst = [max(each, key=lambda d: d.error) for each in elements]

    @cache
    def beside() -> slips.Seen | None:
        return _beside(point, title, tolerance, rng)

    here, wrong = slips.Seen(point, [to_cpu(gx) for gx in gxs]), ""
    for i, (each, along) in enumerate(zip(elements, directions, strict=True)):
        misses = sum(d.error > tolerance for d in each)
        if misses or along.error > tolerance:
            slip = slips.find(here, beside, i, measured, ways[i], tolerance)
            wrong += f"\n  input {i} {xs[i].shape}: wrong in {misses} of {len(each)} elements{': ' * bool(slip)}{slip}"
            wrong += f"\n    worst {worst[i]}\n    {along}"
    if wrong:
        drawn = f"random, seed {seed}" if cotangent is None else "as given"
        raise GradientError(
            f"{title} is wrong{wrong}\n  tolerance {tolerance:g}, step {step:g}, cotangent {drawn}\n  ops: {chain(f, xs)}"
        )
    return Report(tuple(worst), tuple(directions), name(f), sum(map(len, elements)), tolerance)


def _beside(point: Point, title: str, tolerance: float, rng: np.random.Generator) -> slips.Seen | None:
    """A little beside, and another cotangent: each number moves by up to 1%, and 0 by 1% of the others; where f cannot be asked
    there, 0 stays, and where it cannot be asked there either, all stay
    """
    gy = normal(point.gy, rng)
    moves = [0.01 * array_module(x).asarray(rng.uniform(-1, 1, x.shape)) for x in point.xs]
    near = [x + move * abs(x) for x, move in zip(point.xs, moves, strict=True)]
    off = [y + move * (x == 0) * (float(abs(x).mean()) or 1) for x, y, move in zip(point.xs, near, moves, strict=True)]
    for xs in off, near, point.xs:
        there = Point(point.f, xs, gy, point.step)
        try:
            _output(point.f, xs, title)
            return slips.Seen(there, [to_cpu(gx) for gx in _gradients(there, [True] * len(xs), title, tolerance)])
        except Exception:  # whatever f raises for numbers that nobody asked it about
            continue
    return None


def _cotangent(cotangent: Array | None, y: Array, rng: np.random.Generator) -> Array:
    if cotangent is None:
        return normal(y, rng)
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
        raise GradientError(
            f"{title}: float64 inputs gave an output of {y.dtype}; make arrays inside f with np.zeros_like(x), or dtype=x.dtype"
        )
    if not array_module(y.data).isfinite(y.data).all():
        raise GradientError(f"{title}: the output is not finite")
    if not same(y.data, again.data, 1e-12):  # a difference of 1e-12 in f is one of 1e-6 in its slope
        raise GradientError(f"{title}: two calls with the same inputs gave different values; seed random numbers inside f")
    return y.data


def _patterns(n: int) -> list[Sequence[bool]]:
    """Choices of the inputs that need a gradient"""
    if n <= ALL_PATTERNS:
        return [needs for needs in product((True, False), repeat=n) if any(needs)]
    return [[i == k for i in range(n)] for k in range(n)]


def _gradients(point: Point, needs: Sequence[bool], title: str, tolerance: float) -> list[Array]:
    """What backward says, zeros where nothing arrives. Two passes must say the same and change nothing in place."""
    xs, gy = point.xs, point.gy
    inputs = [Tensor(x.copy(), need, f"input {i}") for i, (x, need) in enumerate(zip(xs, needs, strict=True))]
    y = point.f(*inputs)
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
            mend = next(_mended(point, needs, inputs, y, tolerance), "")
            raise GradientError(f"{title}: backward fails with {type(error).__name__}: {error}{mend}{notes}") from error
        _unchanged(inputs, xs, f"{title}: backward")
        if not same(gy_after, gy, 0):
            raise GradientError(f"{title}: backward changes gy in place")
        passes.append([leaves[x].copy() if x in leaves else array_module(x.data).zeros_like(x.data) for x in inputs])
    for i, (x, first, second) in enumerate(zip(inputs, *passes, strict=True)):
        if not x.requires_grad and x in leaves:
            raise GradientError(f"{title}: input {i} needs none and got one")
        if not array_module(first).isfinite(first).all():
            raise GradientError(f"{title}: that of input {i} is not finite")
        if not same(first, second, 0):
            raise GradientError(f"{title}: a second backward gives input {i} another one: an op changes what it saved")
    return passes[0]


def _mended(point: Point, needs: Sequence[bool], inputs: list[Tensor], y: Tensor, tolerance: float) -> Iterator[str]:
    """What to write in the backward whose gradients do not fit their inputs: after it, all gradients are right"""
    rng = np.random.default_rng(0)
    ways: list[Callable[[Step, list[str]], None]] = [_reorder, *(partial(_mend, k) for k in range(MENDS))]
    for mend in ways:
        leaves: dict[Tensor, Array] = {}
        said: list[str] = []
        try:
            for step in walk(y, point.gy, leaves=leaves):
                mend(step, said)
        except Exception:  # no such mend, or something else is wrong, too
            continue
        gxs = [leaves[x] if x in leaves else array_module(x.data).zeros_like(x.data) for x in inputs]
        if said and all(slips.is_gradient(point, i, gx, rng, tolerance) for i, gx in enumerate(gxs) if needs[i]):
            yield "".join(f"\n  with this it is right: {text}" for text in said)


def _reorder(step: Step, said: list[str]) -> None:
    """Put the gradients of two inputs in each other's place, where both then fit"""
    for i, j in combinations(_misfits(step), 2):
        step.gxs[i], step.gxs[j] = step.gxs[j], step.gxs[i]
        if not {i, j} & set(_misfits(step)):
            said.append(
                f"return the gradients of the inputs {i} and {j} of {type(step.op).__name__} in the order of the inputs"
            )
            return
        step.gxs[i], step.gxs[j] = step.gxs[j], step.gxs[i]


def _misfits(step: Step) -> list[int]:
    """The inputs whose gradients are arrays of another shape or type"""
    return [
        j
        for j, (x, need, gx) in enumerate(zip(step.op.inputs, step.op.needs, step.gxs, strict=True))
        if x is not None and need and gx is not None and is_array(gx) and (gx.shape != x.shape or gx.dtype != x.dtype)
    ]


def _mend(k: int, step: Step, said: list[str]) -> None:
    """Put the k-th mend of each gradient that does not fit its input in its place, the last where there are fewer"""
    choices = []
    for j in _misfits(step):
        x, gx = step.op.inputs[j], step.gxs[j]
        assert x is not None and gx is not None
        choices.append((j, list(mends(gx, x.data))))
    if choices and k >= max(len(found) for _, found in choices):
        raise IndexError
    for j, found in choices:
        text, step.gxs[j] = found[min(k, len(found) - 1)]
        said.append(f"for input {j} of {type(step.op).__name__}, {text}")


def _unchanged(inputs: list[Tensor], xs: list[Array], who: str) -> None:
    for i, (x, before) in enumerate(zip(inputs, xs, strict=True)):
        if not same(x.data, before, 0):
            raise GradientError(f"{who} changes input {i} in place")
