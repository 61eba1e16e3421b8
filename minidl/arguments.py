"""Every check of an argument: one policy, and one form of message, what was expected and what came.

    samples = count(samples, "samples")        samples: expected an integer of at least 1, got 1.5
    p = number(p, "p", "[0, 1)")               p: expected a number in [0, 1), got 1.0

A number may be Python's or NumPy's, or an array of no axes, on either device. A bool is none, and no float is a count, 2.0
neither: TypeError. NaN, infinity and what is out of range: ValueError. What comes back is Python's own int or float, because
a NumPy float64 would turn arrays of float32 into float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, NoReturn

import numpy as np

from minidl.array import Array, is_array, is_float, to_cpu

Pair = tuple[int, int]
COLOURS = (1, 3, 4)  # channels of grey, RGB and RGBA


def wrong(error: type[Exception], name: str, expected: str, value: object) -> NoReturn:
    """Raise `error` with the message that all checks share."""
    raise error(f"{name}: expected {expected}, got {value!r}")


# ---- one number


def count(value: object, name: str, at_least: int | None = 1) -> int:
    """An integer that is no less than `at_least`; of either sign where that is None, as an axis is."""
    n = value if type(value) is int else _plain(value)
    if type(n) is not int:
        wrong(TypeError, name, _integer(at_least), value)
    if at_least is not None and n < at_least:
        wrong(ValueError, name, _integer(at_least), value)
    return n


def number(value: object, name: str, interval: str = "(-inf, inf)") -> float:
    """A number in the interval, such as "[0, 1)": square brackets hold their end, round ones do not; "(-inf, inf)": finite."""
    x = value if type(value) is float else _plain(value)
    if not isinstance(x, int | float):
        wrong(TypeError, name, _real(interval), value)
    try:
        x = float(x)
    except OverflowError:  # of an int with more than 308 digits
        x = math.inf if x > 0 else -math.inf
    least, most, with_least, with_most = _ends(interval)
    if not (least < x < most or (with_least and x == least) or (with_most and x == most)):
        wrong(ValueError, name, _real(interval), value)
    return x


def _plain(value: object) -> object:
    """Python's number for one of NumPy's and for what an array of no axes holds; None for a bool; all else as it is."""
    if isinstance(value, bool):
        return None
    if is_array(value):
        x: Any = value
        if x.ndim == 0 and x.dtype.kind in "iu":
            return int(x)
        return float(x) if x.ndim == 0 and (x.dtype.kind == "f" or is_float(x.dtype)) else None
    return int(value) if isinstance(value, int) else float(value) if isinstance(value, float) else value


def _integer(at_least: int | None) -> str:
    return "an integer" if at_least is None else f"an integer of at least {at_least}"


def _real(interval: str) -> str:
    return "a finite number" if interval == "(-inf, inf)" else f"a number in {interval}"


@lru_cache(256)
def _ends(interval: str) -> tuple[float, float, bool, bool]:
    least, most = map(float, interval[1:-1].split(","))
    return least, most, interval[0] == "[", interval[-1] == "]"


# ---- several numbers


def counts(values: Any, name: str, at_least: int | None = 1, length: int | None = None) -> tuple[int, ...]:
    """Integers, as of a shape, each no less than `at_least`; so many of them where there is a `length`."""
    least = -math.inf if at_least is None else at_least
    if type(values) is tuple and length is None and all([type(n) is int and n >= least for n in values]):
        return values  # as most come
    kind = "integers" if at_least is None else f"integers of at least {at_least}"
    return tuple(count(n, f"{name}[{i}]", at_least) for i, n in enumerate(_several(values, name, kind, length)))


def numbers(values: Any, name: str, interval: str = "(-inf, inf)", length: int | None = None) -> tuple[float, ...]:
    """Numbers in the interval; so many of them where there is a `length`."""
    kind = "finite numbers" if interval == "(-inf, inf)" else f"numbers in {interval}"
    return tuple(number(x, f"{name}[{i}]", interval) for i, x in enumerate(_several(values, name, kind, length)))


def pairs(values: Any, name: str, at_least: int = 0) -> tuple[Pair, ...]:
    """Pairs of integers."""
    found = _several(values, name, f"pairs of integers of at least {at_least}", None)
    return tuple(tuple(counts(two, f"{name}[{i}]", at_least, 2)) for i, two in enumerate(found))  # type: ignore[misc]


def pair(value: Any, name: str, at_least: int = 1) -> Pair:
    """An integer for both, or a (vertical, horizontal) pair of integers."""
    if type(value) is tuple and len(value) == 2:
        v, h = value
        if type(v) is int and type(h) is int and v >= at_least and h >= at_least:
            return v, h  # as layers pass them, at every call
    elif type(value) is int and value >= at_least:
        return value, value
    both = value if isinstance(value, tuple | list) else (value, value)
    expected = f"an integer of at least {at_least}, or a pair of them"
    found = [n for n in map(_plain, both) if type(n) is int]
    if len(found) != len(both):
        wrong(TypeError, name, expected, value)
    if len(found) != 2 or min(found) < at_least:
        wrong(ValueError, name, expected, value)
    return found[0], found[1]


def _several(values: Any, name: str, kind: str, length: int | None) -> list[Any]:
    """As a list. Raises TypeError for a single number, for a string, and for what is not several of anything."""
    expected = kind if length is None else f"{length} {kind}"
    flat = values.ndim == 1 if is_array(values) else isinstance(values, Iterable) and not isinstance(values, str | bytes)
    if not flat:
        wrong(TypeError, name, expected, values)
    found = list(to_cpu(values) if is_array(values) else values)
    if length is not None and len(found) != length:
        wrong(ValueError, name, expected, values)
    return found


# ---- one of several words


def one_of(value: str, name: str, choices: Iterable[str]) -> str:
    """One of the choices."""
    if not isinstance(value, str) or value not in choices:
        wrong(ValueError, name, f"one of {tuple(choices)}", value)
    return value


def flag(value: Any, name: str) -> bool:
    """True or False. All else is none, for "no" and "test" would count as true, and do so unseen."""
    if value is True or value is False:
        return value
    if isinstance(value, np.bool_) or (is_array(value) and value.ndim == 0 and value.dtype.kind == "b"):
        return bool(value)
    wrong(TypeError, name, "True or False", value)


def generator(rng: Any, name: str = "rng") -> np.random.Generator:
    """A generator of random numbers: a seed is none, for each call would draw the same."""
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"{name}: expected a numpy.random.Generator, as from np.random.default_rng(seed), got {rng!r}")
    return rng


def function(f: Any, name: str, of: str) -> None:
    """What can be called; `of` tells how in the message, as "f(model, x)"."""
    if not callable(f):
        wrong(TypeError, name, f"a function {of}", f)


# ---- what goes by names


def mapping(value: Any, name: str, of: str) -> Mapping[str, Any]:
    """What has keys and values; `of` tells which in the message, as "name -> array"."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: expected a dictionary, {of}, got {type(value).__name__}")
    return value


# ---- arrays


def images(x: Any, name: str = "x") -> None:
    """x must be (N, C, H, W)."""
    if x.ndim != 4:
        raise ValueError(f"{name}: expected (N, C, H, W), got shape {x.shape}")


def channels_first(x: Any, name: str = "x") -> None:
    """x (N,C,H,W) must not look like (N,H,W,C): with 1, 3 or 4 in its last place, and more than these in its second."""
    _, C, _, W = x.shape
    if W in COLOURS and C > max(COLOURS):
        raise ValueError(
            f"{name}: expected (N, C, H, W), got shape {x.shape}, which looks like (N, H, W, C): "
            f"pass {name}.transpose(0, 3, 1, 2)"
        )


def maps(values: Array, name: str = "maps") -> Array:
    """(N,H,W) float64 on the CPU. Raises TypeError where they are no array of numbers, ValueError for another shape, or NaN."""
    if not is_array(values) or values.dtype.kind not in "fiub":
        got = values.dtype if is_array(values) else type(values).__name__
        raise TypeError(f"{name}: expected an array of numbers, got {got}")
    if values.ndim != 3 or 0 in values.shape:
        raise ValueError(f"{name}: expected maps (N,H,W), none of these 0, got shape {values.shape}")
    checked: Array = to_cpu(values).astype(np.float64)
    if not np.isfinite(checked).all():
        raise ValueError(f"{name}: hold NaN or infinity")
    return checked


def masks(values: Array, maps: Array) -> Array:
    """(N,H,W) bool on the CPU, for these maps. Raises ValueError where one is empty, for there is no truth to point at."""
    if not is_array(values) or values.dtype != bool:
        got = values.dtype if is_array(values) else type(values).__name__
        raise TypeError(f"masks: expected an array of bool, got {got}")
    if values.shape != maps.shape:
        raise ValueError(f"masks: expected the shape of the maps, {maps.shape}, got {values.shape}")
    checked = to_cpu(values)
    if empty := np.flatnonzero(~checked.any((1, 2))).tolist():
        raise ValueError(f"masks: no pixel is in the mask of the images {empty[:10]}; leave these out")
    return checked
