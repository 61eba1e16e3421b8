"""The loops of `direct`: lay images out in planes, multiply, and put the results in their places."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from minidl.kernels.cache import kept
from minidl.kernels.compiled.tiles import COLUMNS, ROWS, dot_tile, half_dot_tile, half_tile, tile
from minidl.kernels.compiled.vectors import VECTOR, address, affine_relu, copy, copy_strided, gate, prefetch

DEPTH = 576  # how many k a tile goes through at a time: ROWS x DEPTH weights stay in the first-level cache
AHEAD = 4  # channels by which a band, whose rows of one channel are too few for the machine to foresee, is fetched ahead


# ---- which part of the work, and where it lies


class Task(NamedTuple):
    image: int  # the first
    images: int
    row: int  # of the output, the first
    rows: int
    first: int  # output channels first, ..., last - 1, of each group
    last: int


@njit(inline="always", error_model="numpy")
def task_of(number, N, p):
    """The bands of an image come one after the other, and of each band the chunks of output channels"""
    block, rest = divmod(number, p.bands * p.chunks)
    band, chunk = divmod(rest, p.chunks)
    n, row, m = block * p.images, band * p.band, chunk * p.chunk
    return Task(n, min(p.images, N - n), row, min(p.band, p.QH - row), m, min(m + p.chunk, p.rows))


@njit(inline="always", error_model="numpy")
def tasks_of(N, p):
    return -(-N // p.images) * p.bands * p.chunks


@njit(inline="always", error_model="numpy")
def row_of(x, n, c, i):
    """Where row i of channel c of image n begins in x (N,C,H,W), the index counting through all of it"""
    return ((n * x.shape[1] + c) * x.shape[2] + i) * x.shape[3]


@njit(inline="always", error_model="numpy")
def packed_row_of(plane, g, i, p):
    """Where row i of the g-th image of a task begins in the plane that begins at `plane`"""
    return plane + g * p.image_stride + i * p.S


@njit(inline="always", error_model="numpy")
def weights_of(g, phase, p):
    """Where the weights of one output phase of group g begin, packed"""
    return g * p.padded * p.channels * p.starts[-1] + p.padded * p.starts[phase] * p.channels


@njit(inline="always", error_model="numpy")
def packed_rows(rows, p):
    """How many rows of a plane the taps of so many output rows see; the rows that several images share, once"""
    return rows + p.halo if p.images == 1 else p.image_stride // p.S


@njit(inline="always", error_model="numpy")
def inside(first, step, size, rows):
    """The positions i, from 0 to rows, whose pixel first + i step is one of `size`: the first of them, and one past the last"""
    return max(0, -(first // step)), min(rows, (size - 1 - first) // step + 1)


# ---- in and out


@njit(inline="always", error_model="numpy")
def pack(source, c0, task, p, planes):
    """planes[(c, a, b)][g image + i S + j] = x[n + g, c0 + c, (r0 + i) sh + a - top, (j sw + b - left)], where that exists

    x, c0 counting from the first channel of the source, n and r0 being the task's. What lies outside the image is 0 in planes
    already.
    """
    x = source.x
    (H, W), rows = x.shape[2:], packed_rows(task.rows, p)
    plane = 0
    for c in range(c0, c0 + p.channels):
        for phase in range(len(p.phases)):
            a, b = p.phases[phase, 0] - p.top, p.phases[phase, 1] - p.left
            first = min(p.S, max(0, -(b // p.sw)))
            end = max(first, min(p.S, (W - 1 - b) // p.sw + 1))
            i0, i1 = inside(task.row * p.sh + a, p.sh, H, rows)
            length = end - first
            if p.S == W == length and p.sh == p.sw == 1:  # row follows upon row in both, as for kernels of 1x1: one long row
                length, i1 = (i1 - i0) * W, min(i1, i0 + 1)
            for g in range(task.images):
                top = row_of(x, task.image + g, source.first + c, task.row * p.sh)
                if p.bands > 1:
                    prefetch(address(x, top + AHEAD * H * W), rows * p.sh * W * x.itemsize // 64)
                for i in range(i0, i1):
                    to = address(planes, packed_row_of(plane, g, i, p) + first)
                    copy_strided(to, address(x, top + (i * p.sh + a) * W + b + first * p.sw), p.sw, length)
                    if len(source.scale):
                        affine_relu(to, length, source.scale[c], source.shift[c])
            plane += p.plane


@njit(inline="always", error_model="numpy")
def _pack_gradient(source, f0, task, p, out):
    """out[f][g image + i S + j] = gy[n + g, f0 + f, r0 + i, j]; out is 0 at all q that belong to no pixel"""
    gy = source.x
    OH, OW = gy.shape[2:]
    rows, length = (1, task.rows * OW) if p.S == OW else (task.rows, OW)
    for f in range(task.last - task.first):
        for g in range(task.images):
            start = row_of(gy, task.image + g, source.first + f0 + f, task.row)
            if p.bands > 1:
                prefetch(address(gy, start + AHEAD * OH * OW), rows * length * gy.itemsize // 64)
            for i in range(rows):
                copy(address(out, packed_row_of(f * p.length, g, i, p)), address(gy, start + i * OW), length)


@njit(inline="always", error_model="numpy")
def _unpack(out, target, flat, f0, task, phase, p):
    """y[n + g, f0 + f, (r0 + i) yh + first, ...] = out[f][g image + i S + j] + bias[f0 + f], where that exists

    f0 counts from the first channel of the target, and flat is y as a vector.
    """
    y, bias = target.y, target.bias
    H, W = y.shape[2:]
    a, b = p.first[phase, 0], p.first[phase, 1]
    first = max(0, -(b // p.yw))
    n_columns = min(p.QW, (W - 1 - b) // p.yw + 1) - first
    i0, i1 = inside(task.row * p.yh + a, p.yh, H, task.rows)
    if p.S == W == n_columns and p.yh == p.yw == 1:
        n_columns, i1 = (i1 - i0) * W, min(i1, i0 + 1)
    for f in range(task.last - task.first):
        for g in range(task.images):
            for i in range(i0, i1):
                start = packed_row_of(f * p.length, g, i, p) + first
                row = row_of(y, task.image + g, target.first + f0 + f, (task.row + i) * p.yh + a)
                at = row + b + first * p.yw
                if len(bias):
                    shift = bias[f0 + f]
                    for j in range(n_columns):
                        flat[np.uintp(at + j * p.yw)] = out[np.uintp(start + j)] + shift
                elif p.yw == 1:
                    copy(address(y, at), address(out, start), n_columns)
                elif p.yw == 2:
                    for j in range(n_columns):
                        flat[np.uintp(at + 2 * j)] = out[np.uintp(start + j)]
                else:
                    for j in range(n_columns):
                        flat[np.uintp(at + j * p.yw)] = out[np.uintp(start + j)]


@njit(inline="always", error_model="numpy")
def _unpack_gated(out, gates, task, p, sums):
    """g = out where scale x + shift > 0, else 0; gx (+)= scale g, sums += (g, g (x - mean)), channel by channel"""
    W = gates.x.shape[3]
    rows, length = (1, task.rows * W) if p.S == W else (task.rows, W)
    for f in range(task.first, task.last):
        for g in range(task.images):
            for i in range(rows):
                found = address(out, packed_row_of((f - task.first) * p.length, g, i, p))
                x_at = row_of(gates.x, task.image + g, f, task.row + i)
                gx_at = row_of(gates.gx, task.image + g, f, task.row + i)
                s, t = gate_channel(found, gates, f, x_at, gx_at, length)
                sums[0, f] += s
                sums[1, f] += t


@njit(inline="always", error_model="numpy")
def gate_channel(found, gates, f, x_at, gx_at, n):
    """n numbers of channel f through its gate -> sum g, sum g (x - mean), see `vectors.gate`; what comes next is fetched"""
    x, gx = gates.x, gates.gx
    ahead, lines = AHEAD * x.shape[2] * x.shape[3], n * x.itemsize // 64
    prefetch(address(x, x_at + ahead), lines)
    prefetch(address(gx, gx_at + ahead), lines)
    near = address(x, x_at), address(gx, gx_at)
    return gate(found, near[0], near[1], n, gates.scale[f], gates.shift[f], gates.mean[f], gates.add)


@kept(njit(nogil=True, error_model="numpy"))
def pack_tile(g_tile, w, transposed, p, out):
    """The weights of one tile phase by phase, as `tile` reads them: [k][m], 0 beyond the rows; see `direct.pack_weights`"""
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
        at = weights_of(g, phase, p) + m0 * channels * (end - first)
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


# ---- products


@njit(inline="always", error_model="numpy")
def _multiply(w, g, phase, planes, task, p, out, x, ahead):
    """out[m - first][q] = sum_k w[m, k] planes[offsets[k] + q] for the task's output channels m of group g, k of one phase

    Beside the arithmetic, which leaves the memory idle, so many numbers of x as `ahead` says are brought near: the images of
    the next task.
    """
    o_at, K = p.starts[phase] * p.channels, (p.starts[phase + 1] - p.starts[phase]) * p.channels
    w_at, x_at = weights_of(g, phase, p), (task.image + task.images) * (x.size // len(x))
    width = COLUMNS * (VECTOR // planes.itemsize)  # of a tile
    calls = -(-max(K, 1) // DEPTH) * -(-(task.last - task.first) // ROWS) * (p.length // width)
    lines = -(-ahead * x.itemsize // 64 // calls)
    for k in range(0, max(K, 1), DEPTH):
        deep = min(DEPTH, K - k)
        offsets = address(p.offsets, o_at + k)
        for m in range(task.first, task.last, ROWS):
            whole = p.rows - m > ROWS // 2
            weights = address(w, w_at + m * K + k * (ROWS if whole else ROWS // 2))
            for q in range(0, p.length, width):
                prefetch(address(x, x_at), lines)
                x_at += lines * (64 // x.itemsize)
                seen, found = address(planes, q), address(out, (m - task.first) * p.length + q)
                if whole:
                    tile(weights, ROWS, 1, seen, offsets, deep, found, p.length, k > 0)
                else:
                    half_tile(weights, ROWS // 2, 1, seen, offsets, deep, found, p.length, k > 0)


@kept(njit(nogil=True, error_model="numpy"))
def convolve(slot, slots, source, w, p, planes, results, target):
    """y[f, q] = bias[f] + sum_k w[f, k] planes[offset[k] + q], task by task; planes, results: scratch of the slots"""
    x, tasks, phases = source.x, tasks_of(len(source.x), p), len(p.starts) - 1
    mine, sums, flat_y = planes[slot], results[slot], target.y.reshape(target.y.size)
    mine[:] = 0
    for number in range(slot * tasks // slots, (slot + 1) * tasks // slots):
        task = task_of(number, len(x), p)
        ahead = task.images * (x.size // len(x)) if p.bands * p.chunks * p.groups * phases == 1 else 0
        if p.bands > 1:  # another band has other rows outside the image
            mine[:] = 0
        for g in range(p.groups):
            pack(source, g * p.channels, task, p, mine)
            for phase in range(phases):
                _multiply(w, g, phase, mine, task, p, sums, x, ahead)
                _unpack(sums, target, flat_y, g * p.rows + task.first, task, phase, p)


@kept(njit(nogil=True, error_model="numpy"))
def convolve_gated(slot, slots, source, w, p, planes, results, gates, sums):
    """The gradient of the image, from that of the output, through the gates of the relu that `pack` applied"""
    tasks, mine = tasks_of(len(source.x), p), planes[slot]
    mine[:] = 0
    for number in range(slot * tasks // slots, (slot + 1) * tasks // slots):
        task = task_of(number, len(source.x), p)
        if p.bands > 1:
            mine[:] = 0
        pack(source, 0, task, p, mine)
        _multiply(w, 0, 0, mine, task, p, results[slot], source.x, 0)
        _unpack_gated(results[slot], gates, task, p, sums[slot])


@kept(njit(nogil=True, error_model="numpy"))
def correlate(unit, units, gy, source, p, planes, gradients, gw):
    """gw[slot, f, k] = sum_q gy[f, q] planes[offset[k] + q] over the images (or bands) of a slot, for one chunk of the f

    The chunks of a slot write to different rows of its sums.
    """
    x, N, K = source.x, len(source.x), len(p.offsets)
    slot, chunk = unit // p.chunks, unit % p.chunks
    slots, items = units // p.chunks, tasks_of(N, p) // p.chunks
    mine, gradient, sums = planes[unit], gradients[unit], gw[slot]
    mine[:], gradient[:] = 0, 0
    for g in range(p.groups):
        sums[(g * p.padded + chunk * p.chunk) * K : (g * p.padded + min((chunk + 1) * p.chunk, p.padded)) * K] = 0
    for item in range(slot * items // slots, (slot + 1) * items // slots):
        task = task_of(item * p.chunks + chunk, N, p)
        if p.bands > 1 or task.images < p.images:
            mine[:], gradient[:] = 0, 0  # what an earlier task left there would be counted again
        for g in range(p.groups):
            pack(source, g * p.channels, task, p, mine)
            _pack_gradient(gy, g * p.rows + task.first, task, p, gradient)
            _add_products(gradient, gy.x, g, mine, x, task, p, sums)


@njit(inline="always", error_model="numpy")
def _add_products(gradient, gy, g, planes, x, task, p, sums):
    """sums[f, k] += sum_q gradient[f, q] planes[offset[k] + q]; beside the arithmetic the next images are brought near"""
    N, K, vectors = len(x), len(p.offsets), p.length // (VECTOR // x.itemsize)
    x_at, gy_at = (task.image + task.images) * (x.size // N), (task.image + task.images) * (gy.size // N)
    calls = -(-(task.last - task.first) // ROWS) * (K // COLUMNS)
    x_lines, gy_lines = 0, 0
    if p.bands * p.chunks * p.groups == 1:
        x_lines = -(-task.images * (x.size // N) * x.itemsize // 64 // calls)
        gy_lines = -(-task.images * (gy.size // N) * x.itemsize // 64 // calls)
    for m in range(task.first, task.last, ROWS):
        rows, w_at = address(gradient, (m - task.first) * p.length), (g * p.padded + m) * K
        if p.rows - m > ROWS // 2:
            for k in range(0, K, COLUMNS):
                prefetch(address(x, x_at), x_lines)
                prefetch(address(gy, gy_at), gy_lines)
                x_at += x_lines * (64 // x.itemsize)
                gy_at += gy_lines * (64 // x.itemsize)
                found = address(sums, w_at + k)
                dot_tile(rows, p.length, address(planes, 0), address(p.offsets, k), vectors, found, K)
        else:
            for k in range(0, K, COLUMNS):
                found = address(sums, w_at + k)
                half_dot_tile(rows, p.length, address(planes, 0), address(p.offsets, k), vectors, found, K)
