"""Convolution with a 3x3 kernel and stride 1 in 16 instead of 36 products for every four pixels, after Winograd.

Take a tile of 2x2 pixels of y, the 4x4 pixels d of the picture that their windows see, and the kernel g. Then

    y = A^T [ (G g G^T) * (B^T d B) ] A          with * element by element

for the matrices below, which hold hardly anything but 0, 1 and -1 (Lavin and Gray 2016, "Fast algorithms for convolutional
neural networks", section 4.1). With the sum over the channels the element-by-element product becomes a matrix product for
each of the 16 places t of a tile,

    Y[t][q, f] = sum_c V[t][q, c] U[t][c, f],    U = G g G^T, V = B^T d B, q over tiles,

and so does the gradient of the kernel, the adjoint of the same steps: gw = G^T [ sum_q (A gy A^T) * (B^T d B) ] G. The
gradient of the picture is a convolution of gy with the turned kernel.

Pictures are packed with their channels side by side, so that a vector holds one pixel of as many channels: then B^T d B is a
sum of whole vectors. The work is cut into bands, of one picture each, and a task takes a few of them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import get_num_threads, njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from minidl.array import Array
from minidl.kernels.cache import kept
from minidl.kernels.compiled.direct import AHEAD, SCRATCH, TASKS, scratch
from minidl.kernels.compiled.parallel import in_parallel
from minidl.kernels.compiled.tiles import ROWS, narrow_tile, single_tile
from minidl.kernels.compiled.vectors import VECTOR, Vectors, gate, index, pointer, prefetch
from minidl.kernels.shapes import Pair, Shape

A = np.array([[1, 0], [1, 1], [1, -1], [0, -1]])
B = np.array([[1, 0, 0, 0], [0, 1, -1, 1], [-1, 1, 1, 0], [0, 0, 0, -1]])
# G is [[1, 0, 0], [h, h, h], [h, -h, h], [0, 0, 1]] with h = 1/2: written out where it is needed
T = 16  # places of a tile
APART = 16  # numbers between two places: a whole number of pages apart, all would compete for a few cache lines

CHANNELS, CHANNELS_CORRELATION = (24, 512), (16, 128)  # fewer do not pay for the transforms, more outgrow the cache
CHANNELS_DENSE = (8, 512)  # in dense blocks, which write few channels
SMALLEST, FEWEST = 7, 4096  # height and width; pixels of all pictures, which pay for U


# ---- micro-kernels


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
    def transform(typing, x, x_at, x_stride, starts, first, count, y, y_at, y_stride, apart):
        """Y = M X M^T for tile after tile, `count` of them, and one vector of channels.

        A place t of tile q lies at t stride + q apart, a pixel (r, s) at (starts[first + q] + r stride + s) apart.
        """
        i = types.intp

        def code(context, b, signature, args):
            x, x_at, x_stride, starts, first, count, y, y_at, y_stride, apart = args
            kinds = signature.args
            v = Vectors(b, kinds[0])
            p_x, p_y = pointer(context, b, kinds[0], x, x_at), pointer(context, b, kinds[6], y, y_at)
            p_s = pointer(context, b, kinds[3], starts, first)

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

        return types.void(x, i, i, starts, i, i, y, i, i, i), code

    return transform


_picture_to_places, _gradient_to_places = _make_transform(B.T, False), _make_transform(A, False)
_places_to_pixels = _make_transform(A.T, True)


@intrinsic
def _turn(typing, x, x_at, channel, n, scale, shift, s_at, pixels, first, planes, at, apart):
    """planes[at + pixels[first + j] apart + c] = x[x_at + c channel + j] for a vector of j and as many c

    Of n channels only: the rest hold the last one's. max(scale x + shift, 0) takes x's place, unless `scale` is empty.
    """
    i = types.intp

    def code(context, b, signature, args):
        x, x_at, channel, n, scale, shift, s_at, pixels, first, planes, at, apart = args
        kinds = signature.args
        v = Vectors(b, kinds[0])
        p_x, p_pixels = pointer(context, b, kinds[0], x, x_at), pointer(context, b, kinds[7], pixels, first)
        p_scale, p_shift = pointer(context, b, kinds[4], scale, s_at), pointer(context, b, kinds[5], shift, s_at)
        channels = [_at_most(b, c, n) for c in range(v.lanes)]
        rows = [v.load(p_x, b.mul(channel, c)) for c in channels]
        given = context.make_array(kinds[4])(context, b, scale).nitems
        turned = [cgutils.alloca_once(b, v.type) for _ in rows]
        with b.if_else(b.icmp_signed(">", given, index(0))) as (affine, plain):
            with affine:
                for c, row, place in zip(channels, rows, turned, strict=True):
                    factor, summand = (v.spread(b.load(b.gep(p, [c]))) for p in (p_scale, p_shift))
                    value = b.fadd(b.fmul(factor, row), summand)
                    b.store(b.select(b.fcmp_ordered("<", value, v.zero), v.zero, value), place)
            with plain:
                for row, place in zip(rows, turned, strict=True):
                    b.store(row, place)
        p_planes = pointer(context, b, kinds[9], planes, at)
        for j, value in enumerate(_transposed(b, [b.load(place) for place in turned])):
            v.store(value, p_planes, b.mul(b.load(b.gep(p_pixels, [index(j)])), apart))
        return context.get_dummy_value()

    return types.void(x, i, i, i, scale, shift, i, pixels, i, planes, i, i), code


@intrinsic
def _turn_back(typing, y, y_at, channel, n, pixels, first, planes, at, apart):
    """y[y_at + c channel + j] = planes[at + pixels[first + j] apart + c] for a vector of j and n channels"""
    i = types.intp

    def code(context, b, signature, args):
        y, y_at, channel, n, pixels, first, planes, at, apart = args
        kinds = signature.args
        v = Vectors(b, kinds[0])
        p_y, p_pixels = pointer(context, b, kinds[0], y, y_at), pointer(context, b, kinds[4], pixels, first)
        p_planes = pointer(context, b, kinds[6], planes, at)
        columns = [v.load(p_planes, b.mul(b.load(b.gep(p_pixels, [index(j)])), apart)) for j in range(v.lanes)]
        rows = list(enumerate(_transposed(b, columns)))
        for c, row in reversed(rows):  # those behind the last one first, into its place
            v.store(row, p_y, b.mul(channel, _at_most(b, c, n)))
        return context.get_dummy_value()

    return types.void(y, i, i, i, pixels, i, planes, i, i), code


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


# ---- plans


class Plan(NamedTuple):
    """How the work is cut, and where all lies in scratch memory"""

    bands: int  # of a picture
    band: int  # rows of tiles in a band
    together: int  # bands in a task
    row: int  # pixels from row to row of a packed band
    pixels: Array  # of a band: where the pixel (k div W, k mod W) lies
    out: Array  # the same, in the output
    out_row: int
    packed: Array  # of the tiles of a task: where each begins in the packed pictures
    tiles: Array  # and in the output
    band_pixels: int  # of a packed band
    band_out: int
    block: int  # tiles whose places are in memory at a time


@lru_cache(1024)
def plan(N: int, width: int, size: Pair, channels: int, itemsize: int) -> Plan:
    """For N output pictures of `size` from pictures of `width` pixels; `channels`: in and out, those that fill up included."""
    down, across = -(-size[0] // 2), -(-size[1] // 2)
    block = max(2 * ROWS, SCRATCH // (channels * T * itemsize) // (2 * ROWS) * 2 * ROWS)
    wanted = max(block, SCRATCH // (channels * 2 * itemsize))  # tiles, of which the pixels fit the cache
    band = min(down, max(1, wanted // across))
    if N * -(-down // band) < TASKS:  # few large pictures
        band = max(1, min(band, down * N // TASKS))
    bands = -(-down // band)
    band = -(-down // bands)
    together = max(1, min(wanted // (band * across), -(-N * bands // TASKS)))
    row, out_row = 2 * across + 2, 2 * across
    band_pixels, band_out = (2 * band + 2) * row, 2 * band * out_row
    k = np.arange((2 * band + 2) * width), np.arange(2 * band * size[1])
    b, i, j = (a.reshape(-1) for a in np.indices((together, band, across)))
    return Plan(
        bands, band, together, row, k[0] // width * row + k[0] % width, k[1] // size[1] * out_row + k[1] % size[1], out_row,
        b * band_pixels + 2 * i * row + 2 * j, b * band_out + 2 * i * out_row + 2 * j, band_pixels, band_out,
        min(block, -(-len(b) // (2 * ROWS)) * 2 * ROWS),
    )  # fmt: skip


@lru_cache(1024)
def pays(x: Shape, w: Shape, y: Shape, stride: Pair, dilation: Pair, channels: Pair) -> bool:
    """Whether the convolution from x to y, of these shapes, can be computed here and, as measured, takes less time so."""
    kind = w[2:] == (3, 3) and stride == dilation == (1, 1) and w[0] * w[1] == x[1] * y[1]  # one group
    enough = channels[0] <= min(x[1], y[1]) and max(x[1], y[1]) <= channels[1]
    return kind and enough and min(y[2:]) >= SMALLEST and y[0] * y[2] * y[3] >= FEWEST


def filled_up(channels: int, itemsize: int) -> int:
    """Channels in scratch memory: one vector of them, where that is a whole tile, or an even number"""
    lanes = VECTOR // itemsize
    whole = lanes if channels <= lanes and lanes >= 2 * ROWS else max(2 * lanes, ROWS)
    return -(-channels // whole) * whole


# ---- the compiled loops


@kept(njit(nogil=True, error_model="numpy"))
def _pack(x, c0, C, scale, shift, first, count, top, left, row, band, bands, pixels, band_pixels, apart, planes):
    """The bands first, ..., first + count - 1 of C channels of x side by side, or of max(scale x + shift, 0)

    A band has the rows from 2 band k - top on, as many as its tiles see. planes are 0 outside the pictures.
    """
    (channels, H, W), lanes, flat = x.shape[1:], VECTOR // x.itemsize, x.reshape(x.size)
    zero, height = x.dtype.type(0), band_pixels // row
    for b in range(count):
        n, k = divmod(first + b, bands)
        y0 = 2 * band * k - top  # the picture's row that is the first of the band
        i0 = max(0, y0)
        i1 = max(i0, min(H, y0 + height))  # no row, where the padding is wider than the band
        if bands > 1:
            planes[b * band_pixels * apart : (b + 1) * band_pixels * apart] = 0
        at = (b * band_pixels + (i0 - y0) * row + left) * apart
        start, total = ((n * channels + c0) * H + i0) * W, (i1 - i0) * W
        whole = total // lanes * lanes
        for c in range(0, C, lanes):
            if bands > 1:
                for j in range(lanes):  # the next channels' rows, too few for the machine to foresee
                    prefetch(x, start + (c + lanes + j) * H * W, total * x.itemsize // 64)
            for p in range(0, whole, lanes):
                _turn(x, start + c * H * W + p, H * W, min(lanes, C - c), scale, shift, c, pixels, p, planes, at + c, apart)
        for p in range(whole, total):
            for c in range(C):
                value = flat[np.uintp(start + c * H * W + p)]
                if len(scale):
                    value = scale[c] * value + shift[c]
                    value = zero if value < zero else value
                planes[np.uintp(at + pixels[p] * apart + c)] = value


@kept(njit(nogil=True, error_model="numpy"))
def _unpack(out, first, count, band, bands, pixels, band_pixels, apart, bias, F, y, y_first):
    """y[:, y_first : y_first + F] = the bands first, ... + bias"""
    (channels, H, W), lanes, flat = y.shape[1:], VECTOR // y.itemsize, y.reshape(y.size)
    for b in range(count):
        n, k = divmod(first + b, bands)
        i0, i1 = 2 * band * k, min(H, 2 * band * (k + 1))
        at, start, total = b * band_pixels * apart, ((n * channels + y_first) * H + i0) * W, (i1 - i0) * W
        whole = total // lanes * lanes
        for f in range(0, F, lanes):
            for p in range(0, whole, lanes):
                _turn_back(y, start + f * H * W + p, H * W, min(lanes, F - f), pixels, p, out, at + f, apart)
        for p in range(whole, total):
            for f in range(F):
                flat[np.uintp(start + f * H * W + p)] = out[np.uintp(at + pixels[p] * apart + f)]
        if len(bias):
            for f in range(F):
                plane = flat[start + f * H * W : start + f * H * W + total]
                for p in range(len(plane)):
                    plane[p] += bias[f]


@kept(njit(nogil=True, error_model="numpy"))
def _unpack_gated(out, first, count, band, bands, pixels, band_pixels, apart, F, rows, x, scale, shift, mean, gx, add, sums):
    """g = the bands first, ... where scale x + shift > 0, else 0; gx (+)= scale g; sums += (g, g (x - mean)) of each channel"""
    (channels, H, W), lanes = x.shape[1:], VECTOR // x.itemsize
    size = len(rows) // lanes
    for b in range(count):
        n, k = divmod(first + b, bands)
        i0, i1 = 2 * band * k, min(H, 2 * band * (k + 1))
        at, total = b * band_pixels * apart, (i1 - i0) * W
        whole = total // lanes * lanes
        for f0 in range(0, F, lanes):
            some = min(lanes, F - f0)
            for p in range(0, whole, lanes):
                _turn_back(rows, p, size, some, pixels, p, out, at + f0, apart)
            for f in range(some):
                for p in range(whole, total):
                    rows[np.uintp(f * size + p)] = out[np.uintp(at + pixels[p] * apart + f0 + f)]
            for f in range(f0, f0 + some):
                x_at, g_at = ((n * channels + f) * H + i0) * W, ((n * gx.shape[1] + f) * H + i0) * W
                prefetch(x, x_at + AHEAD * H * W, total * x.itemsize // 64)
                prefetch(gx, g_at + AHEAD * H * W, total * x.itemsize // 64)
                s, t = gate(rows, (f - f0) * size, x, x_at, gx, g_at, total, scale[f], shift[f], mean[f], add)
                sums[0, f] += s
                sums[1, f] += t


@njit(inline="always", error_model="numpy")
def _fetch(x, c0, C, n, count, t):
    """bring the t-th of T parts of C channels of the pictures n, ..., n + count - 1 near"""
    picture, plane = x.size // len(x), x.size // len(x) // x.shape[1]
    for k in range(count):
        prefetch(x, (n + k) * picture + c0 * plane + t * C * plane // T, -(-C * plane * x.itemsize // (64 * T)))


@kept(njit(nogil=True, error_model="numpy"))
def _kernel_places(c, w, turned, h, width, padded, u):
    """U = G g G^T of channel c of w (F,C,9), as the tiles read it: [t][f div width][c][f mod width], 0 beyond the rows

    `turned`: g is the kernel with its rows and its columns in reverse order, and w is (channels, rows, 9).
    """
    rows, channels = (w.shape[1], w.shape[0]) if turned else w.shape[:2]
    g, Gg = np.empty((3, 3), w.dtype), np.empty((4, 3), w.dtype)
    for f in range(padded):
        at = (f // width * channels + c) * width + f % width
        if f < rows:
            for r in range(3):
                for s in range(3):
                    g[r, s] = w[c, f, 8 - 3 * r - s] if turned else w[f, c, 3 * r + s]
            for s in range(3):
                Gg[0, s], Gg[3, s] = g[0, s], g[2, s]
                Gg[1, s], Gg[2, s] = (g[0, s] + g[2, s] + g[1, s]) * h, (g[0, s] + g[2, s] - g[1, s]) * h
        else:
            Gg[:] = 0
        for r in range(4):
            even, odd = Gg[r, 0] + Gg[r, 2], Gg[r, 1]
            place = at + 4 * r * padded * channels
            u[place] = Gg[r, 0]
            u[place + padded * channels] = (even + odd) * h
            u[place + 2 * padded * channels] = (even - odd) * h
            u[place + 3 * padded * channels] = Gg[r, 2]


@njit(inline="always", error_model="numpy")
def _task(first, count, x, c0, C, scale, shift, top, left, u, p, channels, rows, starts, mine, V, Y, out):
    """out = A^T [ sum_c U * (B^T d B) ] A for some bands; channels, rows: in and out, filled up"""
    lanes, v_stride, y_stride = VECTOR // x.itemsize, len(V) // T, len(Y) // T
    _pack(
        x, c0, C, scale, shift, first, count, top, left, p.row, p.band, p.bands, p.pixels, p.band_pixels, channels, mine
    )  # fmt: skip
    total = len(p.packed) // p.together * count
    for q0 in range(0, total, p.block):
        n_q = min(p.block, total - q0)
        for c in range(0, C, lanes):
            _picture_to_places(mine, c, p.row, p.packed, q0, n_q, V, c, v_stride, channels)
        for t in range(T):
            if p.bands == 1 and q0 == 0:  # the next task's pictures are fetched beside the arithmetic
                _fetch(x, c0, C, first + count, count, t)
            if rows == lanes:
                for q in range(0, n_q, 2 * ROWS):
                    single_tile(
                        V, t * v_stride + q * channels, 1, channels, u, t * rows * C, starts, 0, C,
                        Y, t * y_stride + q * rows, rows, False,
                    )  # fmt: skip
            else:
                for f in range(0, rows, 2 * lanes):
                    for q in range(0, n_q, ROWS):
                        narrow_tile(
                            V, t * v_stride + q * channels, 1, channels, u, (t * rows + f) * C, starts, 0, C,
                            Y, t * y_stride + q * rows + f, rows, False,
                        )  # fmt: skip
        for f in range(0, rows, lanes):
            _places_to_pixels(Y, f, y_stride, p.tiles, q0, n_q, out, f, p.out_row, rows)


@kept(njit(nogil=True, error_model="numpy"))
def _convolve(
    slot, slots, x, C, scale, shift, top, left, u, bias, p, channels, rows, starts, planes, places, products, pixels,
    F, y, y_first,
):  # fmt: skip
    """y = bias + A^T [ sum_c U * (B^T d B) ] A, task by task; planes, places, products, pixels: scratch, a row a slot"""
    tasks = -(-len(x) * p.bands // p.together)
    mine, V, Y, out = planes[slot], places[slot], products[slot], pixels[slot]
    mine[:], V[:] = 0, 0
    for task in range(slot * tasks // slots, (slot + 1) * tasks // slots):
        first, count = task * p.together, min(p.together, len(x) * p.bands - task * p.together)
        _task(first, count, x, 0, C, scale, shift, top, left, u, p, channels, rows, starts, mine, V, Y, out)
        _unpack(out, first, count, p.band, p.bands, p.out, p.band_out, rows, bias, F, y, y_first)


@kept(njit(nogil=True, error_model="numpy"))
def _convolve_gated(
    slot, slots, gy, g0, C, top, left, u, p, channels, rows, starts, planes, places, products, pixels, lines,
    F, x, scale, shift, mean, gx, add, sums,
):  # fmt: skip
    """The gradient of the picture, through the gates of the relu that `_pack` applied"""
    tasks, nothing = -(-len(gy) * p.bands // p.together), np.empty(0, gy.dtype)
    mine, V, Y, out = planes[slot], places[slot], products[slot], pixels[slot]
    mine[:], V[:] = 0, 0
    for task in range(slot * tasks // slots, (slot + 1) * tasks // slots):
        first, count = task * p.together, min(p.together, len(gy) * p.bands - task * p.together)
        _task(first, count, gy, g0, C, nothing, nothing, top, left, u, p, channels, rows, starts, mine, V, Y, out)
        _unpack_gated(
            out, first, count, p.band, p.bands, p.out, p.band_out, rows, F, lines[slot],
            x, scale, shift, mean, gx, add, sums[slot],
        )  # fmt: skip


@kept(njit(nogil=True, error_model="numpy"))
def _correlate(
    slot, slots, gy, g0, F, x, C, scale, shift, top, left, p, channels, rows, starts,
    planes, gradients, places, gradient_places, sums,
):  # fmt: skip
    """sums[slot, t][f, c] = sum_q Z[t][q, f] V[t][q, c] over the bands of a slot, Z = A gy A^T, V = B^T d B"""
    lanes, nothing = VECTOR // x.itemsize, np.empty(0, x.dtype)
    tasks = -(-len(x) * p.bands // p.together)
    mine, gradient, V, Z, total = planes[slot], gradients[slot], places[slot], gradient_places[slot], sums[slot]
    v_stride, z_stride = len(V) // T, len(Z) // T
    mine[:], gradient[:], total[:] = 0, 0, 0
    for task in range(slot * tasks // slots, (slot + 1) * tasks // slots):
        first, count = task * p.together, min(p.together, len(x) * p.bands - task * p.together)
        _pack(
            x, 0, C, scale, shift, first, count, top, left, p.row, p.band, p.bands, p.pixels, p.band_pixels, channels, mine
        )  # fmt: skip
        _pack(
            gy, g0, F, nothing, nothing, first, count, 0, 0, p.out_row, p.band, p.bands, p.out, p.band_out, rows, gradient
        )  # fmt: skip
        tiles = len(p.packed) // p.together * count
        for q0 in range(0, tiles, p.block):
            n_q = min(p.block, tiles - q0)
            for c in range(0, C, lanes):
                _picture_to_places(mine, c, p.row, p.packed, q0, n_q, V, c, v_stride, channels)
            for f in range(0, F, lanes):
                _gradient_to_places(gradient, f, p.out_row, p.tiles, q0, n_q, Z, f, z_stride, rows)
            for t in range(T):
                if p.bands == 1 and q0 == 0:
                    _fetch(x, 0, C, first + count, count, t)
                    _fetch(gy, g0, F, first + count, count, t)
                if channels == lanes:
                    for f in range(0, F, 2 * ROWS):
                        single_tile(
                            Z, t * z_stride + f, rows, 1, V, t * v_stride, starts, 0, n_q,
                            total, (t * rows + f) * channels, channels, True,
                        )  # fmt: skip
                else:
                    for c in range(0, C, 2 * lanes):
                        for f in range(0, F, ROWS):
                            narrow_tile(
                                Z, t * z_stride + f, rows, 1, V, t * v_stride + c, starts, 0, n_q,
                                total, (t * rows + f) * channels + c, channels, True,
                            )  # fmt: skip


@kept(njit(nogil=True, error_model="numpy"))
def _kernel_gradient(f, sums, rows, channels, h, gw):
    """gw[f] = G^T [ sum over the slots ] G"""
    C = gw.shape[1]
    Y, half = np.zeros((4, 4, C), gw.dtype), np.empty((3, 4, C), gw.dtype)
    for slot in range(len(sums)):
        for t in range(T):
            at = (t * rows + f) * channels
            line, source = Y[t // 4, t % 4], sums[slot, at : at + C]
            for c in range(C):
                line[c] += source[c]
    for s in range(4):
        for c in range(C):
            a, b = Y[1, s, c] + Y[2, s, c], Y[1, s, c] - Y[2, s, c]
            half[0, s, c], half[1, s, c], half[2, s, c] = Y[0, s, c] + h * a, h * b, h * a + Y[3, s, c]
    for r in range(3):
        for c in range(C):
            a, b = half[r, 1, c] + half[r, 2, c], half[r, 1, c] - half[r, 2, c]
            gw[f, c, r, 0], gw[f, c, r, 1], gw[f, c, r, 2] = half[r, 0, c] + h * a, h * b, h * a + half[r, 3, c]


# ---- calling them


def convolve(
    x: Array,
    scale: Array,
    shift: Array,
    w: Array,
    bias: Array,
    padding: Pair,
    y: Array,
    y_first: int,
    turned: bool = False,
) -> None:
    """y[:, y_first : y_first + F] = bias + w (F,C,3,3) over x[:, :C], or over max(scale x + shift, 0) with x's place

    `turned`: over all of x with the turned kernel, whose channels change places.
    """
    C, F = (w.shape[0], w.shape[1]) if turned else (w.shape[1], w.shape[0])
    slots = get_num_threads()
    p, channels, rows, u, starts, *memory = _prepare(x, w, C, F, y.shape[2:], turned, slots)
    in_parallel(
        _convolve, slots, slots, x, C, scale, shift, *padding, u, bias, p, channels, rows, starts, *memory[:-1], F, y, y_first
    )


def convolve_gated(
    gy: Array, first: int, w: Array, padding: Pair, x: Array, scale: Array, shift: Array, mean: Array, gx: Array, add: bool
) -> Array:
    """With g the gradient of scale x + shift: gx[:, :C] += scale g, or = -> (slots, 2, C): parts of sum g, sum g (x - mean)"""
    F, C = w.shape[:2]
    p = plan(len(gy), gy.shape[3], x.shape[2:], filled_up(F, x.itemsize) + filled_up(C, x.itemsize), x.itemsize)
    slots = min(TASKS, -(-len(x) * p.bands // p.together))  # by shape alone, so that every sum has its order
    p, channels, rows, u, starts, *memory = _prepare(gy, w, F, C, x.shape[2:], True, slots)
    sums = np.zeros((slots, 2, C))
    top, left = 2 - padding[0], 2 - padding[1]
    gates = C, x, scale, shift, mean, gx, add, sums
    in_parallel(_convolve_gated, slots, slots, gy, first, F, top, left, u, p, channels, rows, starts, *memory, *gates)
    return sums


def _prepare(x: Array, w: Array, C: int, F: int, size: Pair, turned: bool, slots: int) -> tuple[Any, ...]:
    """The plan, the channels in and out, filled up, U, where its rows begin, and scratch memory"""
    lanes, channels, rows = VECTOR // x.itemsize, filled_up(C, x.itemsize), filled_up(F, x.itemsize)
    p = plan(len(x), x.shape[3], size, channels + rows, x.itemsize)
    width = min(rows, 2 * lanes)
    u, *memory = scratch.take(
        x.dtype,
        weights=(1, T * rows * C),
        planes=(slots, p.together * p.band_pixels * channels),
        places=(slots, T * (p.block * channels + APART)),
        products=(slots, T * (p.block * rows + APART)),
        out=(slots, p.together * p.band_out * rows),
        lines=(slots, lanes * (len(p.out) + APART)),
    )
    w = np.ascontiguousarray(w).reshape(*w.shape[:2], 9)
    in_parallel(_kernel_places, C, w, turned, x.dtype.type(0.5), width, rows, u[0])
    return p, channels, rows, u[0], np.arange(C) * width, *memory


def correlate(gy: Array, first: int, F: int, x: Array, scale: Array, shift: Array, C: int, padding: Pair) -> Array:
    """gw (F,C,3,3) from gy[:, first : first + F] and x[:, :C], or max(scale x + shift, 0) in its place"""
    channels, rows = filled_up(C, x.itemsize), filled_up(F, x.itemsize)
    p = plan(len(x), x.shape[3], gy.shape[2:], channels + rows, x.itemsize)
    slots = min(TASKS, -(-len(x) * p.bands // p.together))  # by shape alone, so that every sum has its order
    *memory, sums = scratch.take(
        x.dtype,
        planes=(slots, p.together * p.band_pixels * channels),
        out=(slots, p.together * p.band_out * rows),
        places=(slots, T * (p.block * channels + APART)),
        products=(slots, T * (p.block * rows + APART)),
        sums=(slots, T * rows * channels),
    )
    starts, z = np.arange(p.block) * channels, (scale, shift)
    in_parallel(_correlate, slots, slots, gy, first, F, x, C, *z, *padding, p, channels, rows, starts, *memory, sums)
    gw = np.empty((F, C, 3, 3), x.dtype)
    in_parallel(_kernel_gradient, F, sums, rows, channels, x.dtype.type(0.5), gw)
    return gw
