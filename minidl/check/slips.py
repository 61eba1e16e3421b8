"""Which mistake makes the gradient that backward gives of the one that differences measure.

A mistake is named only where it is undone and what comes out is right: at the elements that were measured, along random
directions, and once more at inputs beside these, with another cotangent. A factor that is 2 by chance is another one there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from typing import Any

import numpy as np

from minidl.array import Array, array_module, to_cpu
from minidl.check.differences import Point, normal
from minidl.inputs import axes_in_words

Index = tuple[int, ...]
FEW = 20  # elements that are measured anew
LISTED = 10  # indices that are named one by one
SIDES = 8  # wrong elements whose two sides are measured


@dataclass(frozen=True)
class Seen:
    """A point, and the gradient of each input that backward gives there, on the CPU"""

    point: Point
    gxs: list[Array]


@dataclass(frozen=True)
class Measured:
    """Slopes of one input at some of its elements: `numeric` by differences"""

    at: list[Index]
    numeric: Array

    def of(self, gx: Array) -> Array:
        """The elements of gx that were measured, on the CPU"""
        columns = tuple(np.array(self.at).T) if self.at and self.at[0] else ()
        return np.atleast_1d(to_cpu(gx)[columns])


@dataclass(frozen=True)
class Slip:
    """A mistake: in words, and how to undo it. Where `known` is false, what comes out says nothing."""

    text: str
    undo: Callable[[list[Array]], Array]
    known: Array | None = None


def find(
    here: Seen,
    there: Callable[[], Seen | None],
    i: int,
    measured: Sequence[Measured],
    direction: Array,
    tolerance: float,
) -> str:
    """What is wrong with the gradient of input i, or "" where it is none of the mistakes that are known here.

    there: inputs beside these, with another cotangent. measured: of each input. direction: a random one, which was compared.
    """
    mine = measured[i]
    if text := _kinks(here, i, mine, direction, tolerance) or _step(here, i, mine, tolerance):
        return text
    if here.point.rounding > 0.01 * _scale(mine.numeric, mine.of(here.gxs[i])):
        return ""  # the differences have too few digits to tell
    if not here.gxs[i].any():
        seen, hint = there(), "look for detach(), .data, or a backward that returns None"
        return f"zero everywhere; {hint}" if seen and not seen.gxs[i].any() else ""
    for slip in _slips(here, i, measured, tolerance):
        if _right(here, i, slip, mine, tolerance) and (beside := there()) and _right(beside, i, slip, None, tolerance):
            return slip.text
    if (seen := there()) and all(_without_gy(s, i, tolerance) for s in (here, seen)):
        return "gy is not used: multiply by it"
    return ""


# ---- mistakes


def _slips(here: Seen, i: int, measured: Sequence[Measured], tolerance: float) -> Iterator[Slip]:
    gx, mine = here.gxs[i], measured[i]
    analytic, numeric = mine.of(gx), mine.numeric
    if here.point.is_constant(i):
        yield Slip("not 0, although the values do not depend on this input", lambda gxs: 0 * gxs[i])
        return
    if abs(numeric).max() <= 1000 * here.point.rounding:  # no factor can be told of what is 0
        return
    yield from _of_another(here, i, measured, tolerance)
    for text, arrange in [("", _itself), *_arrangements(gx)]:
        again = mine.of(arrange(gx))
        c = float(again @ numeric) / float(numeric @ numeric)
        if c and _agree(again, c * numeric, tolerance):
            if abs(c - 1) < 1e-6 and text:
                yield Slip(text, lambda gxs, arrange=arrange: arrange(gxs[i]))  # type: ignore[misc]
            else:
                times = _times(c) if text else f"{_times(c)} everywhere"
                said = "; and ".join(filter(None, [text, times + _length(c, here, i)]))
                yield Slip(said, lambda gxs, arrange=arrange, c=c: arrange(gxs[i]) / c)  # type: ignore[misc]
    more = float((analytic - numeric).mean())
    if _agree(analytic - more, numeric, tolerance):
        yield Slip(f"too {'large' if more > 0 else 'small'} by {abs(more):.4g} everywhere", lambda gxs: gxs[i] - more)
    yield from _shifts(gx, i)
    yield from _boxes(here, i, mine, tolerance)


def _itself(gx: Array) -> Array:
    return gx


def _of_another(here: Seen, i: int, measured: Sequence[Measured], tolerance: float) -> Iterator[Slip]:
    """Two inputs whose gradients were returned in the wrong order"""
    for j, other in enumerate(measured):
        if j == i or here.gxs[j].shape != here.gxs[i].shape:
            continue
        theirs, mine = other.of(here.gxs[i]), measured[i].of(here.gxs[j])
        if _agree(theirs, other.numeric, tolerance) and _agree(mine, measured[i].numeric, tolerance):
            text = f"inputs {min(i, j)} and {max(i, j)} have each other's gradient: return them in the order of the inputs"
            yield Slip(text, lambda gxs, j=j: gxs[j])  # type: ignore[misc]


def _arrangements(gx: Array) -> Iterator[tuple[str, Callable[[Array], Array]]]:
    """Other orders of the same numbers"""
    shape, axes = gx.shape, range(gx.ndim)
    long = [k for k in axes if shape[k] > 1]
    orders = permutations(axes) if len(long) >= 2 and gx.ndim <= 5 else ()
    for order in sorted(orders, key=lambda order: tuple(shape[k] for k in order) != shape):  # without a reshape first
        moved = tuple(shape[k] for k in order)
        back = tuple(int(k) for k in np.argsort(order))
        if [k for k in order if k in long] != long:
            how = ".T" if gx.ndim == 2 else f".transpose{back}"
            if moved == shape:
                yield f"transposed: write gx{how}", lambda g, back=back: g.transpose(back)  # type: ignore[misc]
            else:
                text = f"reshaped where it should be transposed: write gx.reshape{moved}{how}"
                yield text, lambda g, moved=moved, back=back: g.reshape(moved).transpose(back)  # type: ignore[misc]
    for some in (some for k in range(1, len(long) + 1) for some in combinations(long, k)):
        text = f"reversed along {axes_in_words(some)}: write np.flip(gx, {some[0] if len(some) == 1 else some})"
        yield text, lambda g, some=some: np.flip(g, some)  # type: ignore[misc]
    for k, by in ((k, by) for k in long if shape[k] > 2 for by in (1, -1, 2, -2)):
        text = f"rolled by {by} along axis {k}: write np.roll(gx, {-by}, axis={k})"
        yield text, lambda g, k=k, by=by: np.roll(g, -by, axis=k)  # type: ignore[misc]


def _shifts(gx: Array, i: int) -> Iterator[Slip]:
    """What was pushed over the edge is lost, and cannot be compared"""
    for k, by in ((k, by) for k, n in enumerate(gx.shape) if n > 2 for by in (1, -1)):
        known = np.ones(gx.shape, bool)
        known[(slice(None),) * k + (-1 if by == 1 else 0,)] = False
        yield Slip(
            f"shifted by {by} along axis {k}, so that an edge of it is lost",
            lambda gxs, k=k, by=by: np.roll(gxs[i], -by, axis=k),  # type: ignore[misc]
            known,
        )


def _boxes(here: Seen, i: int, mine: Measured, tolerance: float) -> Iterator[Slip]:
    """All that is wrong lies in one box, x[1:3, 0], and in that box all is wrong"""
    gx, numeric = here.gxs[i], mine.numeric
    wrong = ~_close(mine.of(gx), numeric, tolerance)
    right = ~wrong & (abs(numeric) > tolerance * _scale(numeric))  # where both are 0, nothing can be told
    if not wrong.any() or not right.any():
        return
    at = np.array(mine.at)
    sets = [sorted(set(at[wrong, k].tolist())) for k in range(gx.ndim)]
    inside = np.all([np.isin(at[:, k], some) for k, some in enumerate(sets)], axis=0)
    if (inside & right).any():
        return
    if any(len(some) > LISTED and some != list(range(some[0], some[-1] + 1)) for some in sets):
        return
    box: Any = np.ix_(*sets)
    told = ", ".join(_range(some, n) for some, n in zip(sets, gx.shape, strict=True))
    of_box = numeric[inside]
    factor = float(mine.of(gx)[inside] @ of_box) / float(of_box @ of_box) if of_box.any() else 0.0
    if factor and inside.sum() > 1:

        def undo(gxs: list[Array]) -> Array:
            mended = gxs[i].copy()
            mended[box] /= factor
            return mended

        yield Slip(f"only x[{told}], and {_times(factor)} there", undo)
    known = np.ones(gx.shape, bool)
    known[box] = False
    zero = not gx[box].any()
    yield Slip(f"only x[{told}]{', and 0 there' * zero}", lambda gxs: gxs[i], known)


def _range(some: list[int], n: int) -> str:
    """As between the brackets of an index"""
    if len(some) == n:
        return ":"
    if len(some) == 1:
        return str(some[0])
    return f"{some[0]}:{some[-1] + 1}" if some == list(range(some[0], some[-1] + 1)) else str(some)


def _times(c: float) -> str:
    """ "the sign is turned", "2.00 times too large\""""
    turned, size = "the sign is turned" if c < 0 else "", max(abs(c), 1 / abs(c))
    if abs(size - 1) < 1e-6:
        return turned
    number = f"{size:.2f}" if 1.005 < size < 1000 else f"{size:.9g}"
    times = f"{number} times too {'large' if abs(c) > 1 else 'small'}"
    return f"{turned}, and it is {times}" if turned else times


def _length(c: float, here: Seen, i: int) -> str:
    """Where the factor is the number of elements of something"""
    size = max(abs(c), 1 / abs(c))
    k = round(size)
    if k < 2 or abs(size - k) > 1e-6 * size:
        return ""
    slip = "summed where it should be averaged" if abs(c) > 1 else "averaged where it should be summed"
    things = [(f"input {i}", here.gxs[i].shape), ("the output", here.point.gy.shape)]
    things += [(f"input {j}", gx.shape) for j, gx in enumerate(here.gxs) if j != i]
    for what, shape in things:
        if k == math.prod(shape):
            return f"; {k} is the number of elements of {what}: {slip}?"
        for some in (some for m in range(1, len(shape)) for some in combinations(range(len(shape)), m)):
            if k == math.prod(shape[a] for a in some):
                return f"; {k} is the length of {axes_in_words(some)} of {what}: {slip}?"
    return ""


# ---- differences that say nothing


def _kinks(here: Seen, i: int, mine: Measured, direction: Array, tolerance: float) -> str:
    """Elements where the slopes to both sides differ, however small the step is"""
    analytic, numeric = mine.of(here.gxs[i]), mine.numeric
    errors = abs(analytic - numeric) / np.maximum(1, np.maximum(abs(analytic), abs(numeric)))
    worst = [int(k) for k in np.argsort(-errors)[:SIDES] if errors[k] > tolerance]
    move = f"no difference can check it, so move the point, by more than the step {here.point.step:g}"
    if not worst:
        text, _, _ = _kink(here.point, i, direction, tolerance)
        return f"a kink in the random direction, where {text}; {move}" if text else ""
    found = []
    for k in worst:
        text, low, high = _kink(here.point, i, here.point.one(i, mine.at[k]), tolerance)
        slack = tolerance * max(1.0, abs(low), abs(high)) + here.point.rounding
        if text and low - slack <= analytic[k] <= high + slack:
            found.append(f"at {list(mine.at[k])}, where {text}")
    if not found:
        return ""
    n = "" if len(found) == 1 else f" (and at {len(found) - 1} more of the {len(worst)} worst)"
    return f"a kink {found[0]}{n}; {move}"


def _kink(point: Point, i: int, d: Array, tolerance: float) -> tuple[str, float, float]:
    """In words, or "", and the lower and the higher of the slopes to both sides"""
    (left, right), (near_left, near_right) = (point.sides(i, d, h) for h in (point.step, point.step / 8))
    low, high = min(left, right, near_left, near_right), max(left, right, near_left, near_right)
    apart, near = right - left, near_right - near_left
    # between the sides of a smooth function lies h f'', an eighth of it nearer by; between those of a kink, always the same
    smooth = abs(near - apart / 8) <= 0.05 * abs(apart) + 16 * point.rounding
    if smooth or max(abs(apart), abs(near)) <= tolerance * max(1.0, abs(left), abs(right)):
        return "", low, high
    return f"the slope is {left + 0.0:.4g} to the left and {right + 0.0:.4g} to the right", low, high


def _step(here: Seen, i: int, mine: Measured, tolerance: float) -> str:
    """A step with which the differences agree with the gradient"""
    analytic, point = mine.of(here.gxs[i]), here.point
    wrong = [int(k) for k in np.flatnonzero(~_near(analytic, mine.numeric, tolerance))][:FEW]
    for step in (100 * point.step, point.step / 100, 1e4 * point.step) if wrong else ():
        coarse = replace(point, step=step)
        if all(_near(analytic[k], coarse.slope(i, point.one(i, mine.at[k])), tolerance) for k in wrong):
            return f"the differences are too coarse: with step={step:g} the wrong elements agree, so pass that"
    return ""


# ---- is it right, once the mistake is undone?


def _right(seen: Seen, i: int, slip: Slip, measured: Measured | None, tolerance: float) -> bool:
    gx, point, rng = slip.undo(seen.gxs), seen.point, np.random.default_rng(i)
    mine = measured or measure(point, i, gx.shape, rng, FEW)
    known = np.ones(len(mine.at), bool) if slip.known is None else mine.of(slip.known)
    scale, noise = _scale(mine.numeric), point.rounding
    if not _agree(mine.of(gx)[known], mine.numeric[known], tolerance, scale, noise):
        return False
    for _ in range(2):
        d = normal(gx, rng) * (1 if slip.known is None else slip.known)
        if not _agree(float((gx * d).sum()), point.slope(i, d), tolerance, scale, 4 * noise):
            return False
    return True


def is_gradient(point: Point, i: int, gx: Array, rng: np.random.Generator, tolerance: float) -> bool:
    """Whether gx is that of input i, at a few elements and along random directions"""
    return _right(Seen(point, [to_cpu(gx)]), i, Slip("", lambda gxs: gxs[0]), measure(point, i, gx.shape, rng, FEW), tolerance)


def _without_gy(seen: Seen, i: int, tolerance: float) -> bool:
    ones = replace(seen.point, gy=array_module(seen.point.gy).ones_like(seen.point.gy))
    return _right(Seen(ones, seen.gxs), i, Slip("", lambda gxs: gxs[i]), None, tolerance)


def measure(point: Point, i: int, shape: Index, rng: np.random.Generator, most: int) -> Measured:
    """The slopes of input i at `most` of its elements, or at all if they are fewer"""
    at = [tuple(int(j) for j in np.unravel_index(k, shape)) for k in rng.permutation(math.prod(shape))[:most]]
    return Measured(at, np.array([point.slope(i, point.one(i, index)) for index in at]))


def _near(a: Any, b: Any, tolerance: float) -> Any:
    return abs(a - b) <= tolerance * np.maximum(1, np.maximum(abs(a), abs(b)))


def _scale(*numbers: Array) -> float:
    """1, or the largest number where that is less: small gradients are compared more closely"""
    return min(1.0, max(float(abs(n).max()) for n in numbers))


def _close(a: Any, b: Any, tolerance: float, scale: float | None = None, noise: float = 1e-9) -> Any:
    scale = _scale(np.atleast_1d(b)) if scale is None else scale
    return abs(a - b) <= tolerance * np.maximum(scale, np.maximum(abs(a), abs(b))) + noise


def _agree(a: Any, b: Any, tolerance: float, scale: float | None = None, noise: float = 1e-9) -> bool:
    return bool(np.all(_close(a, b, tolerance, scale, noise)))
