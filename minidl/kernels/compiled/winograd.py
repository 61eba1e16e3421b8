"""Convolution with a 3x3 kernel and stride 1 in 16 instead of 36 products for every four pixels, after Winograd.

Take a tile of 2x2 pixels of y, the 4x4 pixels d of the picture that their windows see, and the kernel g. Then

    y = A^T [ (G g G^T) * (B^T d B) ] A          with * element by element

for the matrices below, which hold hardly anything but 0, 1 and -1 (Lavin and Gray 2016, "Fast algorithms for convolutional
neural networks", section 4.1). With the sum over the channels the element-by-element product becomes a matrix product for
each of the 16 places t of a tile,

    Y[t][f, q] = sum_c U[t][f, c] V[t][c, q],    U = G g G^T, V = B^T d B, q over tiles,

and so does the gradient of the kernel, the adjoint of the same steps: gw = G^T [ sum_q (A gy A^T) * (B^T d B) ] G. The
gradient of the picture is a convolution of gy with the turned kernel.

The pictures are packed as in `direct`. Four tiles side by side, a group, are 8 pixels wide; a table tells where each group
begins, so that the tiles of all rows and pictures of a task follow one another without gaps.
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
from minidl.kernels.compiled.direct import SCRATCH, TASKS, Plan, bounds, forward_plan, pack, packed_rows, scratch
from minidl.kernels.compiled.parallel import in_parallel
from minidl.kernels.compiled.tiles import COLUMNS, ROWS, dot_tile, half_dot_tile, half_tile, tile
from minidl.kernels.compiled.vectors import VECTOR, Vectors, copy, index, pointer, prefetch
from minidl.kernels.reference import Pair, Shape

A = np.array([[1, 0], [1, 1], [1, -1], [0, -1]])
B = np.array([[1, 0, 0, 0], [0, 1, -1, 1], [-1, 1, 1, 0], [0, 0, 0, -1]])
G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
T = 16  # places of a tile
GROUP = 4  # tiles

NARROWEST, WIDEST, WIDEST_CORRELATION = 24, 256, 64  # channels: fewer do not pay for the transforms, more outgrow the cache
SMALLEST, FEWEST = 7, 4096  # height and width, without which groups are half empty; pixels of all pictures, which pay for U


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


class Groups:
    """Loads and stores of the pixels of `lanes` tiles, each group of which lies somewhere else"""

    def __init__(self, builder: Any, v: Vectors, pixels: Any, places: Any, loop: Any) -> None:
        """in a loop over vectors: the pixels of group k are pixels[places[k] : ]"""
        self.builder, self.v, self.count = builder, v, v.lanes // GROUP
        self.kind = ir.VectorType(v.element, 2 * GROUP).as_pointer()
        k = builder.mul(loop.index, index(self.count))
        starts = [builder.load(builder.gep(places, [builder.add(k, index(i))])) for i in range(self.count)]
        self.groups = [builder.gep(pixels, [start]) for start in starts]

    def load(self, shift: Any) -> list[Any]:
        """the even pixels, from `shift` on, of all groups and the odd ones"""
        b = self.builder
        parts = [b.load(b.bitcast(b.gep(group, [shift]), self.kind)) for group in self.groups]
        for part in parts:
            part.align = self.v.bytes
        while len(parts) > 1:
            parts = [self._shuffle(u, v, range(2 * u.type.count)) for u, v in zip(parts[::2], parts[1::2], strict=True)]
        return [self._shuffle(parts[0], parts[0], range(first, 2 * self.v.lanes, 2)) for first in (0, 1)]

    def store(self, even: Any, odd: Any, shift: Any) -> None:
        b = self.builder
        for k, group in enumerate(self.groups):
            places = [i + which for i in range(k * GROUP, (k + 1) * GROUP) for which in (0, self.v.lanes)]
            b.store(self._shuffle(even, odd, places), b.bitcast(b.gep(group, [shift]), self.kind)).align = self.v.bytes

    def _shuffle(self, u: Any, v: Any, places: Any) -> Any:
        places = list(places)
        return self.builder.shuffle_vector(u, v, ir.Constant(ir.VectorType(ir.IntType(32), len(places)), places))


def _make_to_places(M: Array) -> Any:
    side = M.shape[1]  # pixels of the picture, or of gy, that a tile has to do with

    @intrinsic
    def to_places(typing, x, x_at, row, groups, first, y, y_at, y_stride, vectors):
        """y[y_at + t y_stride + q] = (M X M^T)[t] with

        X[r, s] = x[x_at + groups[first + q div GROUP] + 2 (q mod GROUP) + r row + s], t < T, q < `vectors` vectors
        """
        i = types.intp

        def code(context, b, signature, args):
            x, x_at, row, groups, first, y, y_at, y_stride, vectors = args
            kinds = signature.args
            v = Vectors(b, kinds[0])
            p_x, p_y = pointer(context, b, kinds[0], x, x_at), pointer(context, b, kinds[5], y, y_at)
            p_g = pointer(context, b, kinds[3], groups, first)
            with cgutils.for_range(b, vectors, intp=ir.IntType(64)) as loop:
                pixels = Groups(b, v, p_x, p_g, loop)
                shifts = [[b.add(b.mul(row, index(r)), index(s)) for s in range(0, side, 2)] for r in range(side)]
                X = [[pixel for shift in line for pixel in pixels.load(shift)] for line in shifts]
                q = b.mul(loop.index, index(v.lanes))
                for t, value in enumerate(value for line in _sandwich(b, M, X) for value in line):
                    v.store(value, p_y, b.add(b.mul(y_stride, index(t)), q))
            return context.get_dummy_value()

        return types.void(x, i, i, groups, i, y, i, i, i), code

    return to_places


_picture_to_places, _gradient_to_places = _make_to_places(B.T), _make_to_places(A)


@intrinsic
def _to_pixels(typing, x, x_at, x_stride, vectors, y, y_at, row, groups, first):
    """y[y_at + groups[first + q div GROUP] + 2 (q mod GROUP) + r row + s] = (A^T X A)[r, s], X[t] = x[x_at + t x_stride + q]

    q < `vectors` vectors.
    """
    i = types.intp

    def code(context, b, signature, args):
        x, x_at, x_stride, vectors, y, y_at, row, groups, first = args
        kinds = signature.args
        v = Vectors(b, kinds[0])
        p_x, p_y = pointer(context, b, kinds[0], x, x_at), pointer(context, b, kinds[4], y, y_at)
        p_g = pointer(context, b, kinds[7], groups, first)
        with cgutils.for_range(b, vectors, intp=ir.IntType(64)) as loop:
            q = b.mul(loop.index, index(v.lanes))
            X = [[v.load(p_x, b.add(b.mul(x_stride, index(4 * r + s)), q)) for s in range(4)] for r in range(4)]
            pixels = Groups(b, v, p_y, p_g, loop)
            for r, (even, odd) in enumerate(_sandwich(b, A.T, X)):
                pixels.store(even, odd, b.mul(row, index(r)))
        return context.get_dummy_value()

    return types.void(x, i, i, i, y, i, i, groups, i), code


# ---- plans


class Tiling(NamedTuple):
    """Where the tiles of a task lie, see `direct.Plan`"""

    length: int  # tiles in a task, with those that fill up the last product
    block: int  # tiles whose places are in memory at a time
    stride: int  # of these places from channel to channel
    channels: Array  # (C,): c stride; padded to whole dot tiles
    packed: Array  # where each group begins among the packed pixels
    pixels: Array  # and in y; those that fill up, behind its end
    row: int  # row stride of y in scratch
    height: int  # rows of a picture, or band, of y in scratch
    plane: int  # stride of y in scratch from channel to channel


@lru_cache(1024)
def tiling(x_shape: Shape, rows: int, padding: Pair, itemsize: int, by_task: bool) -> tuple[Plan, Tiling]:
    """For `rows` channels out. `by_task`: the places of a whole task are in memory at a time."""
    C = x_shape[1]
    p = forward_plan(x_shape, (rows, C, 3, 3), (1, 1), padding, (1, 1), 1, itemsize)
    if p.bands > 1 and p.band % 2:  # a tile is in one band
        p = p._replace(band=p.band + 1, bands=-(-p.QH // (p.band + 1)))
    across, down = -(-p.QW // (2 * GROUP)), -(-p.band // 2)  # groups, tiles
    row = across * 2 * GROUP
    g, i, j = (a.reshape(-1) for a in np.indices((p.pictures, down, across)))
    packed, pixels = g * p.image + 2 * i * p.S + 2 * GROUP * j, (g * down + i) * 2 * row + 2 * GROUP * j
    width = COLUMNS * (VECTOR // itemsize)  # of a tile of the product
    length = -(-len(g) * GROUP // width) * width
    room, fill = len(g) * 4 * GROUP, length // GROUP - len(g)
    packed, pixels = np.pad(packed, (0, fill)), np.pad(pixels, (0, fill), constant_values=room)
    reach = int(packed.max()) + 3 * p.S + 2 * GROUP + 2  # behind the last pixel that a group loads
    p = p._replace(plane=-(-max(p.plane, reach) // 16) * 16)
    block = length if by_task else min(length, max(1, 2 * SCRATCH // ((C + rows) * T * itemsize * width)) * width)
    stride = T * block + VECTOR // itemsize  # a whole number of pages apart, all channels would compete for a few cache lines
    channels = np.minimum(np.arange(-(-C // COLUMNS) * COLUMNS), C - 1) * stride
    return p, Tiling(length, block, stride, channels, packed, pixels, row, 2 * down, -(-(room + row + 2 * GROUP) // 16) * 16)


def pays(x: Shape, w: Shape, y: Shape, stride: Pair, dilation: Pair, itemsize: int, widest: int) -> bool:
    """Whether the convolution from x to y, of these shapes, can be computed here and, as measured, takes less time so."""
    kind = w[2:] == (3, 3) and stride == dilation == (1, 1) and w[0] * w[1] == x[1] * y[1]  # one group
    channels = NARROWEST <= min(x[1], y[1]) and max(x[1], y[1]) <= widest
    pixels = min(y[2:]) >= SMALLEST and y[0] * y[2] * y[3] >= FEWEST
    return kind and channels and pixels and VECTOR // itemsize >= GROUP


# ---- the compiled loops


@njit(cache=True, nogil=True, error_model="numpy")
def _kernel_places(tile, w, turned, G, padded, u):
    """U = G g G^T of w (F,C,9) for the rows of one tile, place by place, as `tile` reads it: [t][c][m], 0 beyond the rows

    `turned`: g is the kernel with its rows and its columns in reverse order, and w is (channels, rows, 9).
    """
    rows, channels = (w.shape[1], w.shape[0]) if turned else w.shape[:2]
    m0 = tile * ROWS
    height = ROWS if rows - m0 > ROWS // 2 else ROWS // 2
    Gg = np.empty((4, 3), w.dtype)
    for c in range(channels):
        for m in range(m0, m0 + height):
            at = m0 * channels + c * height + m - m0
            if m < rows:
                for s in range(3):
                    for r in range(4):
                        Gg[r, s] = 0
                        for k in range(3):
                            Gg[r, s] += G[r, k] * (w[c, m, 8 - 3 * k - s] if turned else w[m, c, 3 * k + s])
            else:
                Gg[:] = 0
            for r in range(4):
                for s in range(4):
                    u[(4 * r + s) * padded * channels + at] = Gg[r, 0] * G[s, 0] + Gg[r, 1] * G[s, 1] + Gg[r, 2] * G[s, 2]


@njit(cache=True, nogil=True, error_model="numpy")
def _convolve(slot, slots, x, channels, u, bias, rows, p, tiling, planes, places, products, pixels, y):
    """y = bias + A^T [ sum_c U * (B^T d B) ] A, task by task; planes, places, products, pixels: scratch, a row a slot"""
    N, lanes, nothing = len(x), VECTOR // x.itemsize, np.empty(0, x.dtype)
    block, stride, width = tiling.block, tiling.stride, COLUMNS * lanes
    tasks, picture = -(-N // p.pictures) * p.bands * p.chunks, x.size // N
    mine, V, Y, out = planes[slot], places[slot], products[slot], pixels[slot]
    mine[:] = 0
    for task in range(slot * tasks // slots, (slot + 1) * tasks // slots):
        n, count, r0, height, m_first, m_last = bounds(task, N, rows, p)
        if p.bands > 1:  # another band has other rows outside the picture
            mine[:] = 0
        pack(x, x.reshape(x.size), nothing, nothing, n, count, 0, channels, r0, packed_rows(height, p), p, mine)
        x_at, x_lines = (n + count) * picture, 0  # the next task's pictures are fetched beside the arithmetic
        if p.bands * p.chunks == 1:
            x_lines = -(-count * picture * x.itemsize // (64 * T * -(-rows // ROWS) * (tiling.length // width)))
        for q0 in range(0, tiling.length, block):
            n_q = min(block, tiling.length - q0)
            for c in range(channels):
                at = c * p.plane
                _picture_to_places(mine, at, p.S, tiling.packed, q0 // GROUP, V, c * stride, block, n_q // lanes)
            for t in range(T):
                for m in range(m_first, m_last, ROWS):
                    at = (t * p.padded + m) * channels
                    for q in range(t * block, t * block + n_q, width):
                        prefetch(x, x_at, x_lines)
                        x_at += x_lines * (64 // x.itemsize)
                        y_at = (m - m_first) * stride + q
                        if rows - m > ROWS // 2:
                            tile(u, at, V, q, tiling.channels, 0, channels, Y, y_at, stride, False)
                        else:
                            half_tile(u, at, V, q, tiling.channels, 0, channels, Y, y_at, stride, False)
            for m in range(m_last - m_first):
                at = m * tiling.plane
                _to_pixels(Y, m * stride, block, n_q // lanes, out, at, tiling.row, tiling.pixels, q0 // GROUP)
        _unpack(out, y, bias, n, count, m_first, m_last, r0, height, tiling)


@njit(inline="always", error_model="numpy")
def _unpack(out, y, bias, n, count, m_first, m_last, r0, rows, tiling):
    """y[n + g, m_first + m, r0 + i, j] = bias[m_first + m] + out[m][g, i, j]"""
    (F, H, W), flat = y.shape[1:], y.reshape(y.size)
    for m in range(m_first, m_last):
        for g in range(count):
            for i in range(rows):
                at = (((n + g) * F + m) * H + r0 + i) * W
                start = (m - m_first) * tiling.plane + (g * tiling.height + i) * tiling.row
                if len(bias):
                    for j in range(W):
                        flat[np.uintp(at + j)] = bias[m] + out[np.uintp(start + j)]
                else:
                    copy(y, at, out, start, W)


@njit(inline="always", error_model="numpy")
def _pack_gradient(gy, n, count, m_first, m_last, r0, rows, tiling, out):
    """out[m][g, i, j] = gy[n + g, m_first + m, r0 + i, j]; out is 0 elsewhere"""
    F, H, W = gy.shape[1:]
    for m in range(m_first, m_last):
        for g in range(count):
            for i in range(rows):
                start = (m - m_first) * tiling.plane + (g * tiling.height + i) * tiling.row
                copy(out, start, gy, (((n + g) * F + m) * H + r0 + i) * W, W)


@njit(cache=True, nogil=True, error_model="numpy")
def _correlate(unit, slots, gy, rows, x, channels, p, tiling, planes, gradients, places, gradient_places, sums):
    """sums[slot, t][f, c] = sum_q Z[t][f, q] V[t][c, q] over the pictures (or bands) of a slot, Z = A gy A^T, V = B^T d B

    for one chunk of the output channels; the chunks of a slot write to different rows of its sums.
    """
    N, K, nothing = len(x), len(tiling.channels), np.empty(0, x.dtype)
    block, stride, vectors = tiling.block, tiling.stride, tiling.length // (VECTOR // x.itemsize)
    items = -(-N // p.pictures) * p.bands
    slot, chunk = unit // p.chunks, unit % p.chunks
    mine, gradient, V, Z, total = planes[unit], gradients[unit], places[unit], gradient_places[unit], sums[slot]
    mine[:], gradient[:] = 0, 0
    for t in range(T):
        total[(t * p.padded + chunk * p.chunk) * K : (t * p.padded + min((chunk + 1) * p.chunk, p.padded)) * K] = 0
    for item in range(slot * items // slots, (slot + 1) * items // slots):
        n, count, r0, height, m_first, m_last = bounds(item * p.chunks + chunk, N, rows, p)
        if p.bands > 1 or count < p.pictures:
            mine[:], gradient[:] = 0, 0  # what an earlier task left there would be counted again
        pack(x, x.reshape(x.size), nothing, nothing, n, count, 0, channels, r0, packed_rows(height, p), p, mine)
        _pack_gradient(gy, n, count, m_first, m_last, r0, height, tiling, gradient)
        for c in range(channels):
            _picture_to_places(mine, c * p.plane, p.S, tiling.packed, 0, V, c * stride, block, vectors)
        for m in range(-(-(m_last - m_first) // ROWS) * ROWS):  # with rows of 0 that fill up the last tile
            at = m * tiling.plane
            _gradient_to_places(gradient, at, tiling.row, tiling.pixels, 0, Z, m * stride, block, vectors)
        for t in range(T):
            V_t = V[t * block :]
            for m in range(m_first, m_last, ROWS):
                z_at, at = (m - m_first) * stride + t * block, (t * p.padded + m) * K
                if rows - m > ROWS // 2:
                    for k in range(0, K, COLUMNS):
                        dot_tile(Z, z_at, stride, V_t, tiling.channels, k, vectors, total, at + k, K)
                else:
                    for k in range(0, K, COLUMNS):
                        half_dot_tile(Z, z_at, stride, V_t, tiling.channels, k, vectors, total, at + k, K)


# ---- calling them


def convolve(x: Array, w: Array, bias: Array, padding: Pair, y: Array, turned: bool = False) -> None:
    """y = bias + w (F,C,3,3) over x, or with the turned kernel, whose channels change places"""
    F, C = w.shape[:2]
    rows, channels = (C, F) if turned else (F, C)
    p, t = tiling(x.shape, rows, padding, x.itemsize, False)
    slots = get_num_threads()
    u, planes, places, products, pixels = scratch.take(
        x.dtype,
        weights=(1, T * p.padded * channels),
        planes=(slots, channels * p.plane),
        places=(slots, channels * t.stride),
        products=(slots, p.chunk * t.stride),
        out=(slots, p.chunk * t.plane),
    )
    w = np.ascontiguousarray(w).reshape(F, C, 9)
    in_parallel(_kernel_places, -(-rows // ROWS), w, turned, G.astype(x.dtype), p.padded, u[0])
    in_parallel(_convolve, slots, slots, x, channels, u[0], bias, rows, p, t, planes, places, products, pixels, y)


def correlate(gy: Array, x: Array, padding: Pair) -> Array:
    """gw (F,C,3,3) from gy (N,F,OH,OW) and x (N,C,H,W)"""
    rows, channels = gy.shape[1], x.shape[1]
    p, t = tiling(x.shape, rows, padding, x.itemsize, True)
    items, columns = -(-len(x) // p.pictures) * p.bands, len(t.channels)
    slots = min(items, max(1, TASKS // p.chunks))  # by shape alone, so that every sum has its order
    units, size = slots * p.chunks, T * p.padded * columns
    planes, gradients, places, gradient_places, sums = scratch.take(
        x.dtype,
        planes=(units, channels * p.plane),
        out=(units, p.chunk * t.plane),
        places=(units, channels * t.stride),
        products=(units, p.chunk * t.stride),
        sums=(slots, size),
    )
    in_parallel(_correlate, units, slots, gy, rows, x, channels, p, t, planes, gradients, places, gradient_places, sums)
    Y = sums[:, :size].sum(axis=0).reshape(4, 4, p.padded, columns)[:, :, :rows, :channels]
    g = G.astype(x.dtype)
    return np.ascontiguousarray(np.einsum("ru,rsfc,sv->fcuv", g, Y, g, optimize=True))
