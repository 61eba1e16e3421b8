"""What `winograd` does with vectors: M X M^T for tiles, and channels side by side where there were pixels side by side.

Written in LLVM's language, like the micro-kernels of tiles.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minidl.array import Array
from minidl.kernels.compiled.vectors import Vectors, index

A = np.array([[1, 0], [1, 1], [1, -1], [0, -1]])
B = np.array([[1, 0, 0, 0], [0, 1, -1, 1], [-1, 1, 1, 0], [0, 0, 0, -1]])
# G is [[1, 0, 0], [h, h, h], [h, -h, h], [0, 0, 1]] with h = 1/2: written out where it is needed, in winograd_loops.py


def _sandwich(b: Any, M: Array, X: list[list[Any]]) -> list[list[Any]]:
    """M X M^T, of vectors"""

    def dot(row: Array, vectors: Any) -> Any:
        total = None
        for factor, vector in sorted(zip(row, vectors, strict=True), key=lambda term: -term[0]):  # the positive ones first
            if factor == 1:
                total = vector if total is None else b.fadd(total, vector)
            elif factor == -1:
                total = b.fneg(vector) if total is None else b.fsub(total, vector)
        return total

    MX = [[dot(row, column) for column in zip(*X, strict=True)] for row in M]
    return [[dot(row, line) for row in M] for line in MX]


def _make_transform(M: Array, from_places: bool) -> Any:
    """M X M^T for tiles X of pixels or, `from_places`, of places"""
    side = M.shape[1]

    @intrinsic
    def transform(typing, x, x_stride, starts, count, y, y_stride, apart):
        """Y = M X M^T for tile after tile, `count` of them, and one vector of channels.

        A place t of tile q lies at t stride + q apart, a pixel (r, s) at (starts[q] + r stride + s) apart.
        """
        i = types.intp

        def code(context, b, signature, args):
            p_x, x_stride, p_s, count, p_y, y_stride, apart = args
            v = Vectors(b, signature.args[0])

            def place(n: int, r: int, s: int, stride: Any, loop: Any) -> Any:
                return b.add(b.mul(stride, index(n * r + s)), b.mul(loop.index, apart))

            def pixel(r: int, s: int, stride: Any, start: Any) -> Any:
                return b.mul(b.add(start, b.add(b.mul(stride, index(r)), index(s))), apart)

            with cgutils.for_range(b, count, intp=ir.IntType(64)) as loop:
                start = b.load(b.gep(p_s, [loop.index]))

                def of_x(r: int, s: int) -> Any:
                    return place(side, r, s, x_stride, loop) if from_places else pixel(r, s, x_stride, start)

                X = [[v.load(p_x, of_x(r, s)) for s in range(side)] for r in range(side)]
                for r, line in enumerate(_sandwich(b, M, X)):
                    for s, value in enumerate(line):
                        at = pixel(r, s, y_stride, start) if from_places else place(len(M), r, s, y_stride, loop)
                        v.store(value, p_y, at)
            return context.get_dummy_value()

        return types.void(x, i, starts, i, y, i, i), code

    return transform


image_to_places, gradient_to_places = _make_transform(B.T, False), _make_transform(A, False)
places_to_pixels = _make_transform(A.T, True)


@intrinsic
def turn(typing, x, channel, n, affine, scale, shift, pixels, planes, apart):
    """planes[pixels[j] apart + c] = x[c channel + j] for a vector of j and as many c

    Of n channels only: the rest hold the last one's. If `affine`, max(scale[c] x + shift[c], 0) takes x's place.
    """
    i = types.intp

    def code(context, b, signature, args):
        p_x, channel, n, affine, p_scale, p_shift, p_pixels, p_planes, apart = args
        v = Vectors(b, signature.args[0])
        channels = [_at_most(b, c, n) for c in range(v.lanes)]
        rows = [v.load(p_x, b.mul(channel, c)) for c in channels]
        turned = [cgutils.alloca_once(b, v.type) for _ in rows]
        with b.if_else(affine) as (then, plain):
            with then:
                for c, row, place in zip(channels, rows, turned, strict=True):
                    factor, summand = (v.spread(b.load(b.gep(p, [c]))) for p in (p_scale, p_shift))
                    value = b.fadd(b.fmul(factor, row), summand)
                    b.store(b.select(b.fcmp_ordered("<", value, v.zero), v.zero, value), place)
            with plain:
                for row, place in zip(rows, turned, strict=True):
                    b.store(row, place)
        for j, value in enumerate(_transposed(b, [b.load(place) for place in turned])):
            v.store(value, p_planes, b.mul(b.load(b.gep(p_pixels, [index(j)])), apart))
        return context.get_dummy_value()

    return types.void(x, i, i, types.boolean, scale, shift, pixels, planes, i), code


@intrinsic
def turn_back(typing, y, channel, n, pixels, planes, apart):
    """y[c channel + j] = planes[pixels[j] apart + c] for a vector of j and n channels"""
    i = types.intp

    def code(context, b, signature, args):
        p_y, channel, n, p_pixels, p_planes, apart = args
        v = Vectors(b, signature.args[0])
        columns = [v.load(p_planes, b.mul(b.load(b.gep(p_pixels, [index(j)])), apart)) for j in range(v.lanes)]
        rows = list(enumerate(_transposed(b, columns)))
        for c, row in reversed(rows):  # those behind the last one first, into its place
            v.store(row, p_y, b.mul(channel, _at_most(b, c, n)))
        return context.get_dummy_value()

    return types.void(y, i, i, pixels, planes, i), code


def _at_most(b: Any, c: int, n: Any) -> Any:
    """min(c, n - 1)"""
    last = b.sub(n, index(1))
    return b.select(b.icmp_signed("<", index(c), last), index(c), last)


def _transposed(b: Any, rows: list[Any]) -> list[Any]:
    """The columns of n vectors of n numbers: log2(n) times, each row of the first half is interleaved with one of the second"""
    n = len(rows)
    for _ in range(n.bit_length() - 1):
        pairs = zip(rows[: n // 2], rows[n // 2 :], strict=True)
        rows = [b.shuffle_vector(u, v, _mixed(n, half)) for u, v in pairs for half in (0, n // 2)]
    return rows


def _mixed(n: int, first: int) -> Any:
    places = [place for k in range(first, first + n // 2) for place in (k, n + k)]
    return ir.Constant(ir.VectorType(ir.IntType(32), n), places)
