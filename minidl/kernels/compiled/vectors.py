"""Vectors of numbers, written in LLVM's language: what the machine has, and the few loops that must be exactly as written.

A sum that the compiler may reorder has other last bits whenever it decides otherwise, and Numba's compiler decides otherwise
for a function that it has just compiled and for the same function from its cache. A run that is resumed must give the same
numbers, bit for bit; so sums over many values have their order spelled out here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic


def _vectors() -> tuple[int, int]:
    """(bytes of a vector, number of vector registers) of the CPU that Numba compiles for"""
    triple, name, features = cpu_target.target_context.codegen().magic_tuple()
    if "+avx512f" in features:
        return 64, 32
    if triple.startswith(("aarch64", "arm64")):
        return 16, 32
    return (16, 16) if name == "generic" else (32, 16)


VECTOR, REGISTERS = _vectors()
PARTS = 4  # sums that grow side by side, since each addition waits for the one before it


class Vectors:
    """Loads, stores and sums of vectors for the element type of one of Numba's pointer types"""

    def __init__(self, builder: Any, kind: Any) -> None:
        bits = kind.dtype.bitwidth
        self.builder, self.bytes = builder, bits // 8
        self.lanes = VECTOR // self.bytes
        self.element = ir.FloatType() if bits == 32 else ir.DoubleType()
        self.type = ir.VectorType(self.element, self.lanes)
        self.zero = ir.Constant(self.type, [0.0] * self.lanes)
        self.suffix = f"v{self.lanes}f{bits}"

    def at(self, pointer: Any, index: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(pointer, [index]), self.type.as_pointer())

    def load(self, pointer: Any, index: Any) -> Any:
        value = self.builder.load(self.at(pointer, index))
        value.align = self.bytes  # an element's alignment, not a vector's
        return value

    def store(self, value: Any, pointer: Any, index: Any) -> None:
        self.builder.store(value, self.at(pointer, index)).align = self.bytes

    def whole(self, n: Any) -> Any:
        """A loop over the indices at which the whole vectors of n numbers begin"""
        end = self.builder.mul(self.builder.sdiv(n, index(self.lanes)), index(self.lanes))
        return _indices(self.builder, index(0), end, index(self.lanes))

    def rest(self, n: Any) -> Any:
        """A loop over the indices of the others"""
        start = self.builder.mul(self.builder.sdiv(n, index(self.lanes)), index(self.lanes))
        return _indices(self.builder, start, n, index(1))

    def spread(self, scalar: Any) -> Any:
        """a vector of copies of one number"""
        first = self.builder.insert_element(ir.Constant(self.type, ir.Undefined), scalar, index(0, 32))
        nowhere = ir.Constant(self.type, ir.Undefined)
        return self.builder.shuffle_vector(
            first, nowhere, ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        )

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        kind = ir.FunctionType(self.type, [self.type] * 3)
        return self.builder.call(
            cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.fmuladd.{self.suffix}"), [a, b, c]
        )

    def total(self, vector: Any) -> Any:
        """the sum of a vector, as a number"""
        return self.totals([vector])[0]

    def totals(self, vectors: list[Any]) -> list[Any]:
        """The sum of each vector, as numbers.

        A round adds neighbours and packs the halves of two vectors into one, so that `lanes` vectors become one vector of
        their sums: [a0 + a1, a2 + a3, ..., b0 + b1, b2 + b3, ...] and so on.
        """
        b, lanes, sums = self.builder, self.lanes, []
        for first in range(0, len(vectors), lanes):
            some = vectors[first : first + lanes]
            count, parts = len(some), lanes
            while parts > 1:
                pairs = [(some[k], some[min(k + 1, len(some) - 1)]) for k in range(0, len(some), 2)]
                some = [b.fadd(*(b.shuffle_vector(u, v, self._every_other(k)) for k in (0, 1))) for u, v in pairs]
                parts //= 2
            memory = cgutils.alloca_once(b, self.type)  # read back one by one, which is quicker than taking the vector apart
            b.store(some[0], memory)
            numbers = b.bitcast(memory, self.element.as_pointer())
            sums += [b.load(b.gep(numbers, [index(k)])) for k in range(count)]
        return sums

    def _every_other(self, first: int) -> Any:
        positions = range(first, 2 * self.lanes, 2)
        return ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), list(positions))


@contextmanager
def _indices(builder: Any, start: Any, end: Any, step: Any) -> Iterator[Any]:
    with cgutils.for_range_slice(builder, start, end, step, intp=ir.IntType(64)) as (k, _):
        yield k


def index(value: int, bits: int = 64) -> Any:
    return ir.Constant(ir.IntType(bits), value)


@intrinsic
def address(typing, array, i):
    """A pointer to element i of an array, i counting through all its axes: what the intrinsics here read and write

    As in C nobody checks how far, and it keeps no array alive. An array with strides is an error when the kernel is compiled.
    """

    def code(context, b, signature, args):
        array, i = args
        (kind, _) = signature.args
        if kind.layout != "C":
            raise TypeError(f"expected a contiguous array, got {kind}")
        return b.gep(context.make_array(kind)(context, b, array).data, [i])

    return types.CPointer(array.dtype)(array, types.intp), code


@intrinsic
def copy(typing, target, source, n):
    """target[i] = source[i], i < n. A slice on either side would cost more than the few dozen numbers of a row."""

    def code(context, b, signature, args):
        cgutils.memcpy(b, *args)
        return context.get_dummy_value()

    return types.void(target, source, types.intp), code


@intrinsic
def copy_strided(typing, target, source, step, n):
    """target[i] = source[i step], i < n"""
    i = types.intp

    def code(context, b, signature, args):
        to, of, step, n = args
        v = Vectors(b, signature.args[0])
        # of a vector its even places, of the next, which starts one early to end at the last number, the odd ones
        places = [*range(0, v.lanes, 2), *range(v.lanes + 1, 2 * v.lanes, 2)]
        mask = ir.Constant(ir.VectorType(ir.IntType(32), v.lanes), places)
        with b.if_else(b.icmp_signed("==", step, index(1))) as (one, more):
            with one:
                cgutils.memcpy(b, to, of, n)
            with more:
                whole = b.mul(b.sdiv(n, index(v.lanes)), index(v.lanes))
                whole = b.select(b.icmp_signed("==", step, index(2)), whole, index(0))
                with _indices(b, index(0), whole, index(v.lanes)) as k:
                    first = b.mul(k, index(2))
                    second = b.add(first, index(v.lanes - 1))
                    v.store(b.shuffle_vector(v.load(of, first), v.load(of, second), mask), to, k)
                with _indices(b, whole, n, index(1)) as k:
                    b.store(b.load(b.gep(of, [b.mul(k, step)])), b.gep(to, [k]))
        return context.get_dummy_value()

    return types.void(target, source, i, i), code


@intrinsic
def affine_relu(typing, y, n, a, b):
    """y[i] = max(a y[i] + b, 0), i < n"""

    def code(context, builder, signature, args):
        p, n, a, b = args
        v = Vectors(builder, signature.args[0])

        def of(x: Any, a: Any, b: Any, zero: Any) -> Any:
            value = builder.fadd(builder.fmul(a, x), b)
            return builder.select(builder.fcmp_ordered("<", value, zero), zero, value)  # NaN stays NaN

        wide = v.spread(a), v.spread(b), v.zero
        with v.whole(n) as k:
            v.store(of(v.load(p, k), *wide), p, k)
        with v.rest(n) as k:
            place = builder.gep(p, [k])
            builder.store(of(builder.load(place), a, b, ir.Constant(v.element, 0)), place)
        return context.get_dummy_value()

    return types.void(y, types.intp, y.dtype, y.dtype), code


@intrinsic
def gate(typing, gz, x, gx, n, a, b, mean, add):
    """g = gz where a x + b > 0, else 0; gx (+)= a g, added if `add` -> (sum g, sum g (x - mean)), over n numbers of each"""

    def code(context, builder, signature, args):
        p_z, p_x, p_g, n, a, b, mean, add = args
        v = Vectors(builder, signature.args[0])
        zero = ir.Constant(v.element, 0)
        sums = [cgutils.alloca_once_value(builder, v.zero) for _ in range(2)]

        def of(gz: Any, x: Any, before: Any, a: Any, b: Any, mean: Any, zero: Any, sums: list[Any]) -> Any:
            is_open = builder.fcmp_ordered(">", builder.fadd(builder.fmul(a, x), b), zero)
            g = builder.select(is_open, gz, zero)
            builder.store(builder.fadd(builder.load(sums[0]), g), sums[0])
            builder.store(builder.fadd(builder.load(sums[1]), builder.fmul(g, builder.fsub(x, mean))), sums[1])
            return builder.fadd(builder.select(add, before, zero), builder.fmul(a, g))

        wide = v.spread(a), v.spread(b), v.spread(mean), v.zero
        with v.whole(n) as k:
            v.store(of(v.load(p_z, k), v.load(p_x, k), v.load(p_g, k), *wide, sums), p_g, k)
        totals = [cgutils.alloca_once_value(builder, v.total(builder.load(s))) for s in sums]
        with v.rest(n) as k:
            place = builder.gep(p_g, [k])
            gz_k, x_k = (builder.load(builder.gep(p, [k])) for p in (p_z, p_x))
            builder.store(of(gz_k, x_k, builder.load(place), a, b, mean, zero, totals), place)
        return context.make_tuple(builder, signature.return_type, [builder.load(t) for t in totals])

    number = gz.dtype
    return types.UniTuple(number, 2)(gz, x, gx, types.intp, number, number, number, types.boolean), code


@intrinsic
def prefetch(typing, start, lines):
    """Ask for `lines` cache lines from an address on to be brought into the second-level cache."""

    def code(context, b, signature, args):
        start, lines = args
        word = ir.IntType(32)
        line = 64 // (signature.args[0].dtype.bitwidth // 8)
        byte = ir.IntType(8).as_pointer()
        ask = cgutils.get_or_insert_function(
            b.module, ir.FunctionType(ir.VoidType(), [byte, word, word, word]), "llvm.prefetch.p0"
        )
        with cgutils.for_range(b, lines, intp=ir.IntType(64)) as loop:
            place = b.bitcast(b.gep(start, [b.mul(loop.index, index(line))]), byte)
            b.call(ask, [place, index(0, 32), index(2, 32), index(1, 32)])  # to read, into the second level, data
        return context.get_dummy_value()

    return types.void(start, types.intp), code


@intrinsic
def moments(typing, a, a_mean, b, b_mean, n):
    """(sum_i a[i] - a_mean, sum_i (a[i] - a_mean) (b[i] - b_mean)), i < n

    The sums of PARTS vectors are added up at the end, then the rest.
    """

    def code(context, b_, signature, args):
        p_a, a_mean, p_b, b_mean, n = args
        v = Vectors(b_, signature.args[0])
        means = v.spread(a_mean), v.spread(b_mean)
        parts = [[cgutils.alloca_once_value(b_, v.zero) for _ in range(2)] for _ in range(PARTS)]

        def add(sums: Any, at: Any) -> None:
            da, db = b_.fsub(v.load(p_a, at), means[0]), b_.fsub(v.load(p_b, at), means[1])
            b_.store(b_.fadd(b_.load(sums[0]), da), sums[0])
            b_.store(v.multiply_add(da, db, b_.load(sums[1])), sums[1])

        width = PARTS * v.lanes
        whole = b_.mul(b_.sdiv(n, index(width)), index(width))  # as far as all parts reach together
        with cgutils.for_range_slice(b_, index(0), whole, index(width), intp=ir.IntType(64)) as (at, _):
            for k, sums in enumerate(parts):
                add(sums, b_.add(at, index(k * v.lanes)))
        vectors = b_.mul(b_.sdiv(n, index(v.lanes)), index(v.lanes))
        with cgutils.for_range_slice(b_, whole, vectors, index(v.lanes), intp=ir.IntType(64)) as (at, _):
            add(parts[0], at)
        totals = []
        for which in range(2):
            total = b_.load(parts[0][which])
            for sums in parts[1:]:
                total = b_.fadd(total, b_.load(sums[which]))
            totals.append(cgutils.alloca_once_value(b_, v.total(total)))
        with cgutils.for_range_slice(b_, vectors, n, index(1), intp=ir.IntType(64)) as (at, _):
            da = b_.fsub(b_.load(b_.gep(p_a, [at])), a_mean)
            db = b_.fsub(b_.load(b_.gep(p_b, [at])), b_mean)
            b_.store(b_.fadd(b_.load(totals[0]), da), totals[0])
            b_.store(b_.fadd(b_.load(totals[1]), b_.fmul(da, db)), totals[1])
        return context.make_tuple(b_, signature.return_type, [b_.load(t) for t in totals])

    return types.UniTuple(a.dtype, 2)(a, a.dtype, b, b.dtype, types.intp), code
