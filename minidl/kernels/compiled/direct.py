"""Convolution of any kind as one matrix product: im2col without the copy.

Lay a zero-padded picture out row by row with a row stride of S pixels. The pixel that tap (u, v) of the kernel meets at
output position q = i S + j then lies at q + u S + v: the column of im2col for that tap is the picture itself, shifted by a
constant. A convolution is a matrix product

    y[f, q] = sum_k w[f, k] planes[offset[k] + q],        k over channels and taps,

without a matrix of columns, only with a table of offsets. The few q that belong to no pixel (the ends of the rows) are left
out when y is copied to its place. The same product serves everything:

- a stride s splits the picture into s x s planes, one for each phase of a pixel's row and column; dilation only changes
  offsets;
- the gradient of the picture is the product of gy's plane with the transposed kernel, where the taps of one phase make the
  pixels of one phase;
- the gradient of the kernel, gw[f, k] = sum_q gy[f, q] planes[offset[k] + q], meets the same planes and offsets.

Where the pictures end, a zero column serves as the right border of one row and the left border of the next, and zero rows
likewise. The work is cut into tasks (a few pictures, or a band of rows of one; and some of the output channels) that fit the
second-level cache; the cut depends on shapes alone, so the bits of a result do not depend on the number of threads.

The products themselves are in `tiles`.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import get_num_threads, njit

from minidl.array import Array
from minidl.kernels.cache import kept
from minidl.kernels.compiled.parallel import in_parallel
from minidl.kernels.compiled.tiles import COLUMNS, ROWS, dot_tile, half_dot_tile, half_tile, tile
from minidl.kernels.compiled.vectors import VECTOR, affine_relu, copy, copy_strided, prefetch
from minidl.kernels.shapes import Pair, Shape, conv_size

SCRATCH = 256 * 1024  # bytes of planes and results that a task should keep in the second-level cache
DEPTH = 576  # how many k a tile goes through at a time: ROWS x DEPTH weights stay in the first-level cache
AHEAD = 4  # channels by which a band, whose rows of one channel are too few for the machine to foresee, is fetched ahead
TASKS = 8  # a convolution is cut into at least so many tasks, where it is large enough


# ---- plans: where everything lies


class Plan(NamedTuple):
    """The geometry of one convolution, all a kernel needs beside the arrays. Positions (i, j) count on the output's grid."""

    groups: int
    padded: int  # output channels of a group, with those that fill up the last tile
    sh: int  # of the planes: plane (c, a, b) holds x[c, i sh + a - top, j sw + b - left] at (i, j)
    sw: int
    top: int  # padding; negative where the picture is cropped
    left: int
    phases: Array  # (P, 2): the (a, b) that some tap uses
    QH: int  # rows and columns of output positions
    QW: int
    S: int  # row stride
    image: int  # stride from picture to picture, a multiple of S
    pictures: int  # in a task
    reach: int  # the largest shift of a tap, in rows
    band: int  # rows of output in a task
    bands: int
    chunk: int  # output channels in a task
    chunks: int
    length: int  # of a row of y in scratch, a whole number of tiles
    plane: int  # stride from plane to plane
    offsets: Array  # (K,): where the pixel under tap k lies for q = 0; padded to whole tiles
    taps: Array  # the tap of the kernel for each entry of offsets of one channel, phase by phase
    starts: Array  # (Q+1,): the taps of output phase o are taps[starts[o]:starts[o+1]]
    yh: int  # output phase o writes (i, j) to y[i yh + first[o, 0], j yw + first[o, 1]], where that exists
    yw: int
    first: Array  # (Q, 2)


def _plan(
    N: int,
    channels: int,  # into the product, of one group
    rows: int,  # channels out of the product, of one group
    groups: int,
    x_size: Pair,
    size: Pair,
    stride: Pair,
    padding: Pair,
    tap_phase: list[list[tuple[int, Pair, Pair]]],  # per output phase: (tap, its input phase, its shift in positions)
    y_stride: Pair,
    y_first: list[Pair],
    itemsize: int,
) -> Plan:
    phases = sorted({phase for taps in tap_phase for _, phase, _ in taps}) or [(0, 0)]
    reach = [max((shift[axis] for taps in tap_phase for _, _, shift in taps), default=0) for axis in (0, 1)]
    span = []  # positions from one row (picture) to the next, so that only zeros are shared between neighbours
    for axis in (0, 1):
        s, p = stride[axis], padding[axis]
        first = min(max(0, -((a[axis] - p) // s)) for a in phases)  # position of the first pixel: ceil((p - a) / s)
        end = max((x_size[axis] - 1 + p - a[axis]) // s + 1 for a in phases)  # behind the last pixel
        needed = size[axis] + reach[axis]
        span.append(max(size[axis], min(end, needed), needed - first))
    (QH, QW), S = size, span[1]
    vector = VECTOR // itemsize
    width = COLUMNS * vector  # of a tile

    wanted = max(8 * width, SCRATCH // ((channels * len(phases) + rows) * itemsize))  # positions in a task
    image = span[0] * S
    if image <= wanted:
        enough = -(-4 * width // image)  # pictures for at least a few tiles
        pictures, band = max(1, min(wanted // image, max(enough, N // TASKS), N)), QH
    else:
        bands = -(-QH // max(1, wanted // S))
        pictures, band = 1, -(-QH // bands)
    if N * QH * S >= TASKS * 4 * width:  # few large pictures: narrower bands
        while pictures == 1 and band > 1 and N * -(-QH // band) < TASKS and band * S > 8 * width:
            band = -(-band // 2)
    bands = -(-QH // band)
    tasks = -(-N // pictures) * bands
    tiles = -(-rows // ROWS)
    chunks = min(tiles, max(1, TASKS // tasks)) if channels * rows >= 4096 else 1
    chunk = -(-tiles // chunks) * ROWS
    used = (pictures - 1) * image + (band - 1) * S + QW
    length = -(-used // width) * width
    plane = -(-(max(length, (pictures - 1) * image + (band + reach[0]) * S) + reach[0] * S + reach[1]) // 16) * 16

    taps = [tap for taps in tap_phase for tap, _, _ in taps]
    starts = np.cumsum([0] + [len(taps) for taps in tap_phase])
    offsets = [
        (c * len(phases) + phases.index(phase)) * plane + shift[0] * S + shift[1]
        for taps in tap_phase
        for c in range(channels)
        for _, phase, shift in taps
    ]
    offsets += [0] * (-len(offsets) % COLUMNS)
    return Plan(
        groups, -(-rows // (ROWS // 2)) * (ROWS // 2), *stride, *padding, np.array(phases, np.int64), QH, QW, S, image,
        pictures, reach[0], band, bands, chunk, -(-tiles * ROWS // chunk), length, plane, np.array(offsets, np.int64),
        np.array(taps, np.int64), starts.astype(np.int64), *y_stride, np.array(y_first, np.int64),
    )  # fmt: skip


@lru_cache(1024)
def forward_plan(
    x_shape: Shape, w_shape: Shape, stride: Pair, padding: Pair, dilation: Pair, groups: int, itemsize: int
) -> Plan:
    """Tap (u, v) finds its pixel in plane (u d mod s, v d mod s), shifted by (u d div s, v d div s)."""
    (N, _, H, W), (F, C, kh, kw) = x_shape, w_shape
    OH, OW = (conv_size(*a) for a in zip((H, W), (kh, kw), stride, padding, dilation, strict=True))
    taps = []
    for u in range(kh):
        for v in range(kw):
            (su, a), (sv, b) = divmod(u * dilation[0], stride[0]), divmod(v * dilation[1], stride[1])
            taps.append((u * kw + v, (a, b), (su, sv)))
    return _plan(N, C, F // groups, groups, (H, W), (OH, OW), stride, padding, [taps], (1, 1), [(0, 0)], itemsize)


@lru_cache(1024)
def grad_x_plan(
    gy_shape: Shape, w_shape: Shape, x_shape: Shape, stride: Pair, padding: Pair, dilation: Pair, groups: int, itemsize: int
) -> Plan:
    """gx[y] with y + p = q s + r gets w[u] gy[q - (u d - r) / s] from the taps with u d mod s = r."""
    (N, F, OH, OW), (_, C, kh, kw), (H, W) = gy_shape, w_shape, x_shape[2:]
    reach, first, size = [], [], []
    for n, k, s, p, d in zip((H, W), (kh, kw), stride, padding, dilation, strict=True):
        reach.append(d * (k - 1) // s)  # the largest shift
        first.append(p // s)  # the smallest q of any pixel
        size.append((n - 1 + p) // s - p // s + 1)
    groups_of_taps, y_first = [], []
    for r in range(stride[0]):
        for c in range(stride[1]):
            taps = []
            for u in range(kh):
                for v in range(kw):
                    (su, a), (sv, b) = divmod(u * dilation[0], stride[0]), divmod(v * dilation[1], stride[1])
                    if (a, b) == (r, c):
                        taps.append((u * kw + v, (0, 0), (reach[0] - su, reach[1] - sv)))
            groups_of_taps.append(taps)
            y_first.append((first[0] * stride[0] + r - padding[0], first[1] * stride[1] + c - padding[1]))
    cropped = reach[0] - first[0], reach[1] - first[1]
    return _plan(
        N, F // groups, C, groups, (OH, OW), (size[0], size[1]), (1, 1), cropped, groups_of_taps, stride, y_first, itemsize
    )


# ---- the compiled loops


@njit(inline="always", error_model="numpy")
def pack(x, scale, shift, n, count, c0, channels, r0, rows, p, planes):
    """planes[(c, a, b)][g image + i S + j] = x[n + g, c0 + c, (r0 + i) sh + a - top, (j sw + b - left)], where that exists

    What lies outside the picture is 0 in planes already. Where scale and shift (one a channel) are not empty, max(scale x +
    shift, 0) takes the place of x.
    """
    C, H, W = x.shape[1:]
    plane = 0
    for c in range(channels):
        for phase in range(len(p.phases)):
            a, b = p.phases[phase, 0] - p.top, p.phases[phase, 1] - p.left
            first = min(p.S, max(0, -(b // p.sw)))
            end = max(first, min(p.S, (W - 1 - b) // p.sw + 1))
            i0, i1 = max(0, -((r0 * p.sh + a) // p.sh)), min(rows, (H - 1 - a) // p.sh + 1 - r0)
            length = end - first
            if p.S == W == length and p.sh == p.sw == 1:  # row follows upon row in both, as for kernels of 1x1: one long row
                length, i1 = (i1 - i0) * W, min(i1, i0 + 1)
            for g in range(count):
                picture = ((n + g) * C + c0 + c) * H
                if p.bands > 1:
                    prefetch(x, (picture + AHEAD * H + r0 * p.sh) * W, rows * p.sh * W * x.itemsize // 64)
                for i in range(i0, i1):
                    at = plane + g * p.image + i * p.S + first
                    copy_strided(planes, at, x, (picture + (r0 + i) * p.sh + a) * W + b + first * p.sw, p.sw, length)
                    if len(scale):
                        affine_relu(planes, at, length, scale[c0 + c], shift[c0 + c])
            plane += p.plane


@njit(inline="always", error_model="numpy")
def pack_gradient(gy, n, count, f0, channels, r0, rows, p, out):
    """out[f][g image + i S + j] = gy[n + g, f0 + f, r0 + i, j]; out is 0 at all q that belong to no pixel"""
    F, OH, OW = gy.shape[1:]
    rows, length = (1, rows * OW) if p.S == OW else (rows, OW)
    for f in range(channels):
        for g in range(count):
            at, start = f * p.length + g * p.image, (((n + g) * F + f0 + f) * OH + r0) * OW
            if p.bands > 1:
                prefetch(gy, start + AHEAD * OH * OW, rows * length * gy.itemsize // 64)
            for i in range(rows):
                copy(out, at + i * p.S, gy, start + i * OW, length)


@njit(inline="always", error_model="numpy")
def _unpack(out, y, flat, bias, n, count, f0, channels, r0, rows, phase, p):
    """y[n + g, f0 + f, (r0 + i) yh + first, ...] = out[f][g image + i S + j] + bias[f0 + f], where that exists"""
    F, H, W = y.shape[1:]
    a, b = p.first[phase, 0], p.first[phase, 1]
    first = max(0, -(b // p.yw))
    n_columns = min(p.QW, (W - 1 - b) // p.yw + 1) - first
    i0, i1 = max(0, -((r0 * p.yh + a) // p.yh)), min(rows, (H - 1 - a) // p.yh + 1 - r0)
    if p.S == W == n_columns and p.yh == p.yw == 1:
        n_columns, i1 = (i1 - i0) * W, min(i1, i0 + 1)
    for f in range(channels):
        for g in range(count):
            picture = ((n + g) * F + f0 + f) * H
            for i in range(i0, i1):
                start = f * p.length + g * p.image + i * p.S + first
                at = (picture + (r0 + i) * p.yh + a) * W + b + first * p.yw
                if len(bias):
                    shift = bias[f0 + f]
                    for j in range(n_columns):
                        flat[np.uintp(at + j * p.yw)] = out[np.uintp(start + j)] + shift
                elif p.yw == 1:
                    copy(y, at, out, start, n_columns)
                elif p.yw == 2:
                    for j in range(n_columns):
                        flat[np.uintp(at + 2 * j)] = out[np.uintp(start + j)]
                else:
                    for j in range(n_columns):
                        flat[np.uintp(at + j * p.yw)] = out[np.uintp(start + j)]


@kept(njit(nogil=True, error_model="numpy"))
def _pack_tile(g_tile, w, transposed, p, out):
    """The weights of one tile phase by phase, as `tile` reads them: [k][m], 0 beyond the rows; see `pack_weights`"""
    rows, channels, taps = w.shape[1:]
    row, channel = channels * taps, taps  # strides
    if transposed:
        rows, channels = channels, rows
        row, channel = channel, row
    flat, tiles, zero = w.reshape(w.size), -(-rows // ROWS), w.dtype.type(0)
    g, m0 = g_tile // tiles, g_tile % tiles * ROWS
    height = ROWS if rows - m0 > ROWS // 2 else ROWS // 2
    for phase in range(len(p.starts) - 1):
        first, end = p.starts[phase], p.starts[phase + 1]
        at = (g * taps + first) * channels * p.padded + m0 * channels * (end - first)
        for c in range(channels):
            for t in range(first, end):
                start = (g * rows + m0) * row if not transposed else g * channels * channel + m0 * row
                start += c * channel + p.taps[t]
                if m0 + ROWS <= rows:
                    for m in range(ROWS):
                        out[np.uintp(at + m)] = flat[np.uintp(start + m * row)]
                else:
                    for m in range(height):
                        out[at + m] = flat[start + m * row] if m0 + m < rows else zero
                at += height


@njit(inline="always", error_model="numpy")
def multiply(w, w_at, planes, o_at, K, rows, m_first, m_last, p, out, x, x_at, x_size):
    """out[m - m_first][q] = sum_{k<K} w[m, k] planes[offsets[o_at + k] + q] for the output channels m_first <= m < m_last

    Beside the arithmetic, which leaves the memory idle, x[x_at : x_at + x_size] is brought near: the next task's pictures.
    """
    width = COLUMNS * (VECTOR // planes.itemsize)  # of a tile
    calls = -(-max(K, 1) // DEPTH) * -(-(m_last - m_first) // ROWS) * (p.length // width)
    lines = -(-x_size * x.itemsize // 64 // calls)
    for k in range(0, max(K, 1), DEPTH):
        deep = min(DEPTH, K - k)
        for m in range(m_first, m_last, ROWS):
            y_at, whole = (m - m_first) * p.length, rows - m > ROWS // 2
            at = w_at + m * K + k * (ROWS if whole else ROWS // 2)
            for q in range(0, p.length, width):
                prefetch(x, x_at, lines)
                x_at += lines * (64 // x.itemsize)
                if whole:
                    tile(w, at, ROWS, 1, planes, q, p.offsets, o_at + k, deep, out, y_at + q, p.length, k > 0)
                else:
                    half_tile(w, at, ROWS // 2, 1, planes, q, p.offsets, o_at + k, deep, out, y_at + q, p.length, k > 0)


@kept(njit(nogil=True, error_model="numpy"))
def _convolve(slot, slots, x, scale, shift, channels, w, bias, rows, p, planes, results, y, y_first):
    """y[y_first + f, q] = bias[f] + sum_k w[f, k] planes[offset[k] + q], task by task; planes, results: scratch of the slots"""
    N, phases, x_picture = len(x), len(p.starts) - 1, x.size // len(x)
    tasks = -(-N // p.pictures) * p.bands * p.chunks
    mine, sums, flat_y = planes[slot], results[slot], y.reshape(y.size)
    mine[:] = 0
    for task in range(slot * tasks // slots, (slot + 1) * tasks // slots):
        n, count, r0, height, m_first, m_last = bounds(task, N, rows, p)
        if p.bands > 1:  # another band has other rows outside the picture
            mine[:] = 0
        for g in range(p.groups):
            pack(x, scale, shift, n, count, g * channels, channels, r0, packed_rows(height, p), p, mine)
            for phase in range(phases):
                K, o_at = (p.starts[phase + 1] - p.starts[phase]) * channels, p.starts[phase] * channels
                w_at = g * p.padded * channels * p.starts[phases] + p.padded * o_at
                ahead = count * x_picture if p.bands * p.chunks * p.groups * phases == 1 else 0
                multiply(w, w_at, mine, o_at, K, rows, m_first, m_last, p, sums, x, (n + count) * x_picture, ahead)
                f0 = y_first + g * rows + m_first
                _unpack(sums, y, flat_y, bias, n, count, f0, m_last - m_first, r0, height, phase, p)


@kept(njit(nogil=True, error_model="numpy"))
def _correlate(unit, slots, gy, gy_first, rows, x, scale, shift, channels, p, planes, gradients, gw):
    """gw[slot, f, k] = sum_q gy[gy_first + f, q] planes[offset[k] + q] over the pictures (or bands) of a slot

    for one chunk of the output channels; the chunks of a slot write to different rows of its sums.
    """
    N, K = len(x), len(p.offsets)
    x_picture, gy_picture = x.size // N, gy.size // N
    items = -(-N // p.pictures) * p.bands
    vectors = p.length // (VECTOR // x.itemsize)
    slot, chunk = unit // p.chunks, unit % p.chunks
    mine, gradient, sums = planes[unit], gradients[unit], gw[slot]
    mine[:], gradient[:] = 0, 0
    for g in range(p.groups):
        sums[(g * p.padded + chunk * p.chunk) * K : (g * p.padded + min((chunk + 1) * p.chunk, p.padded)) * K] = 0
    for item in range(slot * items // slots, (slot + 1) * items // slots):
        n, count, r0, height, m_first, m_last = bounds(item * p.chunks + chunk, N, rows, p)
        if p.bands > 1 or count < p.pictures:
            mine[:], gradient[:] = 0, 0  # what an earlier task left there would be counted again
        for g in range(p.groups):
            pack(x, scale, shift, n, count, g * channels, channels, r0, packed_rows(height, p), p, mine)
            f0 = gy_first + g * rows + m_first
            pack_gradient(gy, n, count, f0, m_last - m_first, r0, height, p, gradient)
            x_at, g_next = (n + count) * x_picture, (n + count) * gy_picture
            calls = -(-(m_last - m_first) // ROWS) * (K // COLUMNS)
            x_lines, g_lines = 0, 0
            if p.bands * p.chunks * p.groups == 1:
                x_lines = -(-count * x_picture * x.itemsize // 64 // calls)
                g_lines = -(-count * gy_picture * x.itemsize // 64 // calls)
            for m in range(m_first, m_last, ROWS):
                g_at, w_at = (m - m_first) * p.length, (g * p.padded + m) * K
                if rows - m > ROWS // 2:
                    for k in range(0, K, COLUMNS):
                        prefetch(x, x_at, x_lines)
                        prefetch(gy, g_next, g_lines)
                        x_at += x_lines * (64 // x.itemsize)
                        g_next += g_lines * (64 // x.itemsize)
                        dot_tile(gradient, g_at, p.length, mine, p.offsets, k, vectors, sums, w_at + k, K)
                else:
                    for k in range(0, K, COLUMNS):
                        half_dot_tile(gradient, g_at, p.length, mine, p.offsets, k, vectors, sums, w_at + k, K)


@njit(inline="always", error_model="numpy")
def bounds(task, N, rows, p):
    """the pictures n, ..., n + count - 1, the rows r0, ... and the output channels m_first, ..., m_last - 1 of a task"""
    block, rest = divmod(task, p.bands * p.chunks)
    band, chunk = divmod(rest, p.chunks)
    n, r0, m = block * p.pictures, band * p.band, chunk * p.chunk
    return n, min(p.pictures, N - n), r0, min(p.band, p.QH - r0), m, min(m + p.chunk, rows)


@njit(inline="always", error_model="numpy")
def packed_rows(height, p):
    """how many rows of a plane the taps of `height` output rows see; the rows that several pictures share, once"""
    return height + p.reach if p.pictures == 1 else p.image // p.S


# ---- calling them


class _Scratch(threading.local):
    """Memory that a thread's convolutions use one after the other"""

    def __init__(self) -> None:
        self.held: dict[str, Array] = {}

    def take(self, dtype: Any, **sizes: Pair) -> list[Array]:
        """An array (slots, size) for each name, every row on a cache line"""
        found = []
        for name, (slots, size) in sizes.items():
            size = -(-size // 16) * 16
            needed = slots * size * dtype.itemsize
            if name not in self.held or self.held[name].nbytes < needed:
                memory = np.empty(needed + 64, np.uint8)
                self.held[name] = memory[-memory.ctypes.data % 64 :]
            found.append(self.held[name][:needed].view(dtype).reshape(slots, size))
        return found


scratch = _Scratch()


def pack_weights(w: Array, transposed: bool, p: Plan, out: Array) -> None:
    """Write w (groups, rows, channels, taps), or, `transposed`, (groups, channels, rows, taps), as the tiles read it."""
    rows = w.shape[2 if transposed else 1]
    in_parallel(_pack_tile, len(w) * -(-rows // ROWS), np.ascontiguousarray(w), transposed, p, out)


def convolve(
    x: Array, scale: Array, shift: Array, w: Array, bias: Array, p: Plan, y: Array, y_first: int, transposed: bool = False
) -> None:
    """y[:, y_first:] = bias + w (groups, rows, channels, taps) times the planes of x, or of max(scale x + shift, 0)

    `transposed`: w is (groups, channels, rows, taps).
    """
    groups, rows, channels, taps = w.shape
    if transposed:
        rows, channels = channels, rows
    slots = get_num_threads()
    packed, planes, out = scratch.take(
        x.dtype,
        weights=(1, groups * p.padded * channels * taps),
        planes=(slots, channels * len(p.phases) * p.plane),
        out=(slots, p.chunk * p.length),
    )
    pack_weights(w, transposed, p, packed[0])
    in_parallel(_convolve, slots, slots, x, scale, shift, channels, packed[0], bias, rows, p, planes, out, y, y_first)


def correlate(gy: Array, gy_first: int, x: Array, scale: Array, shift: Array, w_shape: Shape, p: Plan) -> Array:
    """gw (F,C/groups,kh,kw) from gy[:, gy_first : gy_first + F] and the planes of x, or of max(scale x + shift, 0)"""
    F, C, kh, kw = w_shape
    rows, K, columns = F // p.groups, C * kh * kw, len(p.offsets)
    sums = p.groups * p.padded * columns
    items, most = -(-len(x) // p.pictures) * p.bands, 2**26 // (sums * x.itemsize)
    slots = min(items, max(1, TASKS // p.chunks), max(2, most))  # by shape alone, so that every sum has its order
    units = slots * p.chunks
    planes, out, gw = scratch.take(
        x.dtype, planes=(units, C * len(p.phases) * p.plane), out=(units, p.chunk * p.length), sums=(slots, sums)
    )
    in_parallel(_correlate, units, slots, gy, gy_first, rows, x, scale, shift, C, p, planes, out, gw)
    return gw[:, :sums].sum(axis=0).reshape(p.groups, p.padded, columns)[:, :rows, :K].reshape(w_shape)
