"""Arrays that share memory, and a copy of each that does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minidl.array import Array, is_array


def apart_from(others: list[Array], gxs: Sequence[Array | None]) -> list[Any]:
    """The arrays, those copied that share memory with another one or with one of `others`, or that cannot be written to"""
    owners = {id(_owner(a)) for a in others}
    found = []
    for gx in gxs:
        if gx is not None:
            if isinstance(gx, np.generic):
                gx = np.asarray(gx)
            elif not is_array(gx):  # which the walk refuses
                pass
            elif id(_owner(gx)) in owners or not _is_writable(gx):
                gx = gx.copy()
            owners.add(id(_owner(gx)))
        found.append(gx)
    return found


def _owner(a: Any) -> Any:
    """The array to which the memory belongs that a is a view of"""
    while getattr(a, "base", None) is not None:
        a = a.base
    return a


def _is_writable(a: Array) -> bool:
    """Neither locked nor a repetition of its elements, as `broadcast_to` makes it"""
    return bool(getattr(a.flags, "writeable", True)) and all(s != 0 or n == 1 for s, n in zip(a.strides, a.shape, strict=True))
