"""Weights that were made for a model that is not quite this one: other names, other input channels, another head."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minidl.array import Array, is_array
from minidl.io.notes import short

COUNT, MEAN = "num_batches_tracked", "running_mean"  # of a batch norm
MOST_DOTS = 10  # of a prefix that is advised
NUMBERED = re.compile(r"\b(norm|relu|conv)\.([0-9])(?=\.)")


def strip(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The same under names without `prefix`; names that do not begin with it stay.

    Raises ValueError if none begins with it, or if two names become one.
    """
    stripped = {name.removeprefix(prefix): value for name, value in state.items()}
    if prefix and not any(name.startswith(prefix) for name in state):
        raise ValueError(f"prefix={prefix!r}: no name begins with it; the first is {short(next(iter(state), None))}")
    if len(stripped) < len(state):
        raise ValueError(f"prefix={prefix!r}: there are entries of the same name with and without it")
    return stripped


def joined(state: Mapping[str, Any], mine: Mapping[str, Array]) -> dict[str, Any]:
    """`state` with names such as `norm.1.weight` as `norm1.weight` where `mine` has them so: the published DenseNets'."""
    return {(NUMBERED.sub(r"\1\2", name) if name not in mine and NUMBERED.sub(r"\1\2", name) in mine else name): value
            for name, value in state.items()}  # fmt: skip


def without(state: Mapping[str, Any], mine: Mapping[str, Array], layers: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """`state` with the entries of `layers` from `mine`, the arrays of the model; and the names of those entries.

    Raises ValueError for a layer that the model does not have.
    """
    for layer in layers:
        if not any(_is_in(name, layer) for name in mine):
            last = _layer([*mine][-1]) if mine else None
            raise ValueError(f"skip={layer!r}: the model has no layer of that name; its last is {last!r}")
    left_out = [name for name in mine if any(_is_in(name, layer) for layer in layers)]
    rest = {name: value for name, value in state.items() if not any(_is_in(name, layer) for layer in layers)}
    return rest | {name: mine[name] for name in left_out}, left_out


def count_from_zero(state: Mapping[str, Any], mine: Mapping[str, Array]) -> dict[str, Any]:
    """`state` with 0 for how many batches a batch norm has seen where that is missing: PyTorch before 0.4.1 did not count."""
    uncounted = [n for n in mine if n.endswith(COUNT) and n not in state and n.removesuffix(COUNT) + MEAN in state]
    return {**state, **{name: np.zeros_like(mine[name]) for name in uncounted}}


def fit_input(state: Mapping[str, Any], mine: Mapping[str, Array]) -> dict[str, Any]:
    """`state` with the first convolution's weights, for C channels, made to fit the N channels of the model's:

        w'[f,n] = (1/N) sum_c w[f,c]        so that sum_n w'[f,n] * g = sum_c w[f,c] * g for any g

    A grey image, the same g in all channels, then gives what it gave before. For N = 1 it is the sum over the channels, for
    other N their mean times C/N, N times over.
    """
    name = _first_convolution(mine)
    w: Any = state.get(name)
    if not is_array(w) or w.dtype.kind not in "fiub" or not _differ_in(1, w.shape, mine[name].shape):
        return dict(state)
    F, N, kh, kw = mine[name].shape
    mean = w.sum(1, keepdims=True, dtype=np.float64) / N  # (F,1,kh,kw)
    return {**state, name: np.broadcast_to(mean, (F, N, kh, kw))}


def advice(state: Mapping[str, Any], mine: Mapping[str, Array]) -> list[str]:
    """Options of `weights.load` that would help where `state` does not fit `mine`."""
    prefixes, found = _prefixes(state, mine), []
    if prefixes:
        n = sum(name.startswith(prefixes[0]) for name in state)
        whose = "every name begins" if n == len(state) else f"{n:,} of {len(state):,} names begin"
        choices = " or ".join(f"prefix={short(prefix)}" for prefix in prefixes)
        others = any(not name.startswith(prefixes[0]) and name not in mine for name in state)
        more = ", and strict=False for the others" if others else ""
        found.append(f"{whose} with {short(prefixes[0])}: pass {choices}{more}")
        state = {name.removeprefix(prefixes[0]): value for name, value in state.items()}
    shapes = {n: (state[n].shape, a.shape) for n, a in mine.items() if is_array(state.get(n)) and state[n].shape != a.shape}
    name = _first_convolution(mine)
    if name in shapes and _differ_in(1, *shapes[name]):
        (_, came, *_), (_, expected, *_) = shapes.pop(name)
        found.append(f"{name} is for {came} input channels, the model's for {expected}: pass adapt_input=True")
    heads = list(dict.fromkeys(map(_layer, shapes)))
    if 0 < len(heads) <= 3 and all(_differ_in(0, *pair) for pair in shapes.values()):
        (came, *_), (expected, *_) = next(iter(shapes.values()))
        skip = repr(heads[0]) if len(heads) == 1 else repr(heads)
        found.append(f"{' and '.join(heads)}: {came} outputs, {expected} in the model: pass skip={skip} to leave it as it is")
    return found


def _prefixes(state: Mapping[str, Any], mine: Mapping[str, Array]) -> list[str]:
    """What the most names begin with before the name of an array of the model, if those are more than fit as they are."""
    votes = Counter[str]()
    for name in state:
        end = 0
        for _ in range(MOST_DOTS):
            end = name.find(".", end) + 1
            if end == 0:
                break
            if name[end:] in mine:
                votes[name[:end]] += 1
    most = max(votes.values(), default=0)
    fit = sum(name in mine for name in state)
    return [prefix for prefix, n in votes.items() if n == most > fit][:3]


def _first_convolution(mine: Mapping[str, Array]) -> str:
    """The name of its weights, or "" if there is none"""
    return next((name for name, a in mine.items() if a.ndim == 4), "")


def _differ_in(axis: int, a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    """Whether two shapes differ in this axis and in no other."""
    return len(a) == len(b) > axis and a != b and a[:axis] + a[axis + 1 :] == b[:axis] + b[axis + 1 :]


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def _is_in(name: str, layer: str) -> bool:
    return f"{name}.".startswith(f"{layer}.")
