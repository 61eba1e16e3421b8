"""What may make a gradient of another shape, or type, one of its input's."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, permutations
from typing import Any

from minidl.array import Array, array_module, sum_to
from minidl.inputs import axes_in_words, broadcast_axes


def mends(gx: Array, x: Array) -> Iterator[tuple[str, Array]]:
    """What to write, and the gradient that it makes, of the shape and type of x"""
    typed = "" if gx.dtype == x.dtype else "give it the type of its input: .astype(x.dtype)"
    if gx.shape == x.shape:
        yield typed, gx.astype(x.dtype)
    else:
        for text, mended in _of_its_shape(gx, x):
            yield f"{text}; then {typed}" if typed else text, mended.astype(x.dtype)


def _of_its_shape(gx: Array, x: Array) -> Iterator[tuple[str, Array]]:
    if axes := broadcast_axes(x.shape, gx.shape):
        were = "was" if len(axes) == 1 else "were"
        yield f"sum over {axes_in_words(axes)}, which {were} broadcast: minidl.array.sum_to(gx, x.shape)", sum_to(gx, x.shape)
    for some in (some for k in range(1, gx.ndim + 1) for some in combinations(range(gx.ndim), k)):
        for kept in False, True:
            if gx.sum(axis=some, keepdims=kept).shape == x.shape:
                said = some[0] if len(some) == 1 else some
                yield f"sum over it: gx.sum(axis={said}{', keepdims=True' * kept})", gx.sum(axis=some, keepdims=kept)
    if sorted(gx.shape) == sorted(x.shape):
        for order in permutations(range(gx.ndim)):
            if gx.transpose(order).shape == x.shape:
                yield "transpose it: gx.T" if gx.ndim == 2 else f"transpose it: gx.transpose{order}", gx.transpose(order)
    yield from _repeated(gx, x)
    if gx.size == x.size:
        yield "reshape it: gx.reshape(x.shape)", gx.reshape(x.shape)


def _repeated(gx: Array, x: Array) -> Iterator[tuple[str, Array]]:
    """What a sum, whose output has fewer axes than its input, hands to all that it summed"""
    xp = array_module(x)
    for some in combinations(range(x.ndim), x.ndim - gx.ndim) if gx.ndim <= x.ndim else ():
        wide: Any = xp.expand_dims(gx, some)
        if axes := broadcast_axes(wide.shape, x.shape):
            inner = f"np.expand_dims(gx, {some[0] if len(some) == 1 else some})" if some else "gx"
            yield (
                f"repeat it along {axes_in_words(axes)}: np.broadcast_to({inner}, x.shape)",
                xp.broadcast_to(wide, x.shape).copy(),
            )
