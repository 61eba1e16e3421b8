"""Micro-kernels: small blocks of matrix products that stay in registers.

They are written in LLVM's language because no loop that Numba compiles keeps two dozen vectors of sums in registers. Arrays
reach them as addresses, see `vectors.address`. They check no bounds: who calls them sees to it that all they touch, up to the
last vector, lies inside the scratch memory.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minidl.kernels.compiled.vectors import REGISTERS, Vectors, index

ROWS = 8 if REGISTERS == 32 else 4  # ROWS x COLUMNS vectors of sums, and what they are made of, fill the registers
COLUMNS = 3


def _make_tile(rows: int, columns: int) -> Any:
    @intrinsic
    def tile(typing, w, w_k, w_m, planes, offsets, K, y, y_stride, add):
        """y[m y_stride + q] (+)= sum_{k<K} w[k w_k + m w_m] planes[offsets[k] + q]

        m < rows, q < columns vectors; added to what y holds if `add`.
        """
        i = types.intp
        signature = types.void(w, i, i, planes, offsets, i, y, i, types.boolean)

        def code(context, b, signature, args):
            p_w, w_k, w_m, p_x, p_o, K, p_y, y_stride, add = args
            v = Vectors(b, signature.args[0])
            cells = [(m, n) for m in range(rows) for n in range(columns)]
            place = {(m, n): b.add(b.mul(y_stride, index(m)), index(n * v.lanes)) for m, n in cells}
            sums = {cell: cgutils.alloca_once(b, v.type) for cell in cells}  # LLVM keeps them in registers
            with b.if_else(add) as (then, otherwise):
                with then:
                    for cell in cells:
                        b.store(v.load(p_y, place[cell]), sums[cell])
                with otherwise:
                    for cell in cells:
                        b.store(v.zero, sums[cell])
            with cgutils.for_range(b, K, intp=ir.IntType(64)) as loop:
                start = b.load(b.gep(p_o, [loop.index]))
                xs = [v.load(p_x, b.add(start, index(n * v.lanes))) for n in range(columns)]
                for m in range(rows):
                    weight = v.spread(b.load(b.gep(p_w, [b.add(b.mul(loop.index, w_k), b.mul(w_m, index(m)))])))
                    for n in range(columns):
                        b.store(v.multiply_add(weight, xs[n], b.load(sums[m, n])), sums[m, n])
            for cell in cells:
                v.store(b.load(sums[cell]), p_y, place[cell])
            return context.get_dummy_value()

        return signature, code

    return tile


def _make_dot_tile(rows: int) -> Any:
    @intrinsic
    def dot_tile(typing, gy, g_stride, planes, offsets, vectors, gw, w_stride):
        """gw[m w_stride + n] += sum_q gy[m g_stride + q] planes[offsets[n] + q]

        m < rows, n < COLUMNS, q < `vectors` vectors.
        """
        i = types.intp
        signature = types.void(gy, i, planes, offsets, i, gw, i)

        def code(context, b, signature, args):
            p_g, g_stride, p_x, p_o, vectors, p_w, w_stride = args
            v = Vectors(b, signature.args[0])
            starts = [b.load(b.gep(p_o, [index(n)])) for n in range(COLUMNS)]
            cells = [(m, n) for m in range(rows) for n in range(COLUMNS)]
            sums = {cell: cgutils.alloca_once(b, v.type) for cell in cells}
            for cell in cells:
                b.store(v.zero, sums[cell])
            with cgutils.for_range(b, vectors, intp=ir.IntType(64)) as loop:
                q = b.mul(loop.index, index(v.lanes))
                xs = [v.load(p_x, b.add(start, q)) for start in starts]
                for m in range(rows):
                    g = v.load(p_g, b.add(b.mul(g_stride, index(m)), q))
                    for n in range(COLUMNS):
                        b.store(v.multiply_add(g, xs[n], b.load(sums[m, n])), sums[m, n])
            for (m, n), total in zip(cells, v.totals([b.load(sums[cell]) for cell in cells]), strict=True):
                p = b.gep(p_w, [b.add(b.mul(w_stride, index(m)), index(n))])
                b.store(b.fadd(b.load(p), total), p)
            return context.get_dummy_value()

        return signature, code

    return dot_tile


tile, half_tile = _make_tile(ROWS, COLUMNS), _make_tile(ROWS // 2, COLUMNS)
narrow_tile, single_tile = _make_tile(ROWS, 2), _make_tile(2 * ROWS, 1)
dot_tile, half_dot_tile = _make_dot_tile(ROWS), _make_dot_tile(ROWS // 2)
