"""Small parameters side by side in one vector, and their state beside them, so that one call of a kernel updates them all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

from minidl.array import Array, array_module
from minidl.core import Parameter

LARGE = 1 << 18  # numbers; gathering the gradient of a parameter as large as this costs as much as a kernel for it alone


@dataclass(frozen=True)
class Place:
    """Where a parameter lies among its neighbours"""

    vectors: list[Array]  # of all of them the numbers, and each kind of state
    start: int
    data: Array  # the part of the first vector that is p.data


def lay_out(params: Sequence[Parameter], state: Mapping[str, list[Array]]) -> dict[int, Place]:
    """Put neighbours side by side. A large parameter stays where it is, and so do those that share one array."""
    sharing = Counter(id(p.data) for p in params)

    def kind(i: int) -> object:
        a = params[i].data
        return i if a.size > LARGE or sharing[id(a)] > 1 else (array_module(a), a.dtype)

    places: dict[int, Place] = {}
    for _, neighbours in groupby(range(len(params)), kind):
        members = list(neighbours)
        if len(members) == 1:
            continue
        data, views = _side_by_side([params[i].data for i in members])
        vectors, starts = [data], accumulate((a.size for a in views), initial=0)
        for i, start, view in zip(members, starts, views, strict=False):
            params[i].data, places[i] = view, Place(vectors, start, view)
        for arrays in state.values():
            vector, arrays[members[0] : members[-1] + 1] = _side_by_side([arrays[i] for i in members])
            vectors.append(vector)
    return places


def put_in_rows(p: Parameter) -> None:
    """What kernels change in place lies row by row"""
    if not p.data.flags.c_contiguous:
        p.data = array_module(p.data).ascontiguousarray(p.data)


def _side_by_side(arrays: list[Array]) -> tuple[Array, list[Array]]:
    """One vector of the numbers of all, and the views of it that are equal to each"""
    vector = array_module(arrays[0]).concatenate([a.reshape(-1) for a in arrays])
    ends = accumulate(a.size for a in arrays)
    return vector, [vector[end - a.size : end].reshape(a.shape) for a, end in zip(arrays, ends, strict=True)]
