"""The loops of `winograd`: pack bands of images, transform and multiply their tiles, and unpack what comes of it."""

from __future__ import annotations

import numpy as np
from numba import njit

from minidl.kernels.cache import kept
from minidl.kernels.compiled.direct_loops import gate_channel, row_of
from minidl.kernels.compiled.tiles import ROWS, narrow_tile, single_tile
from minidl.kernels.compiled.vectors import VECTOR, address, prefetch
from minidl.kernels.compiled.winograd_plan import T
from minidl.kernels.compiled.winograd_transforms import (
    gradient_to_places,
    image_to_places,
    places_to_pixels,
    turn,
    turn_back,
)

# ---- where a task's bands lie


@njit(inline="always", error_model="numpy")
def _tasks_of(N, p):
    return -(-N * p.bands // p.together)


@njit(inline="always", error_model="numpy")
def _bands_of(task, N, p):
    """The first band of a task, and how many it has; the bands of all images are counted one after the other"""
    first = task * p.together
    return first, min(p.together, N * p.bands - first)


@njit(inline="always", error_model="numpy")
def _rows_made(band, H, p):
    """The image that a band is of, its first row of H in the output, and one past its last"""
    n, k = divmod(band, p.bands)
    return n, 2 * p.band * k, min(H, 2 * p.band * (k + 1))


@njit(inline="always", error_model="numpy")
def _cell_of(b, pixel, bands):
    """Where the channels of a pixel of the b-th band of a task lie"""
    return (b * bands.size + pixel) * bands.channels


# ---- in and out


@kept(njit(nogil=True, error_model="numpy"))
def _pack(source, first, count, p, packed, planes):
    """The bands first, ..., first + count - 1 of the source's channels side by side: `packed` is p.seen or p.made

    A band has the rows from 2 band k - top on, as many as its tiles see. planes are 0 outside the images.
    """
    x, C, lanes, pixels = source.x, source.channels, VECTOR // source.x.itemsize, packed.pixels
    (H, W), flat, scale, shift = x.shape[2:], x.reshape(x.size), source.scale, source.shift
    zero, height, affine = x.dtype.type(0), packed.size // packed.row, len(source.scale) > 0
    for b in range(count):
        n, k = divmod(first + b, p.bands)
        y0 = 2 * p.band * k - packed.top  # the image's row that is the first of the band
        i0 = max(0, y0)
        i1 = max(i0, min(H, y0 + height))  # no row, where the padding is wider than the band
        if p.bands > 1:
            planes[_cell_of(b, 0, packed) : _cell_of(b + 1, 0, packed)] = 0
        at = _cell_of(b, (i0 - y0) * packed.row + packed.left, packed)
        start, total = row_of(x, n, source.first, i0), (i1 - i0) * W
        whole = total // lanes * lanes
        for c in range(0, C, lanes):
            if p.bands > 1:
                for j in range(lanes):  # the next channels' rows, too few for the machine to foresee
                    prefetch(address(x, start + (c + lanes + j) * H * W), total * x.itemsize // 64)
            some, to = min(lanes, C - c), address(planes, at + c)
            factor, summand = address(scale, c), address(shift, c)
            for i in range(0, whole, lanes):
                row = address(x, start + c * H * W + i)
                turn(row, H * W, some, affine, factor, summand, address(pixels, i), to, packed.channels)
        for i in range(whole, total):
            for c in range(C):
                value = flat[np.uintp(start + c * H * W + i)]
                if affine:
                    value = scale[c] * value + shift[c]
                    value = zero if value < zero else value
                planes[np.uintp(at + pixels[i] * packed.channels + c)] = value


@kept(njit(nogil=True, error_model="numpy"))
def _unpack(out, first, count, p, target):
    """y = the bands first, ..., first + count - 1, + bias"""
    y, bias, lanes, pixels, apart = target.y, target.bias, VECTOR // target.y.itemsize, p.made.pixels, p.made.channels
    (H, W), flat = y.shape[2:], y.reshape(y.size)
    for b in range(count):
        n, i0, i1 = _rows_made(first + b, H, p)
        at, start, total = _cell_of(b, 0, p.made), row_of(y, n, target.first, i0), (i1 - i0) * W
        whole = total // lanes * lanes
        for f in range(0, target.channels, lanes):
            some = min(lanes, target.channels - f)
            for i in range(0, whole, lanes):
                row = address(y, start + f * H * W + i)
                turn_back(row, H * W, some, address(pixels, i), address(out, at + f), apart)
        for i in range(whole, total):
            for f in range(target.channels):
                flat[np.uintp(start + f * H * W + i)] = out[np.uintp(at + pixels[i] * apart + f)]
        if len(bias):
            for f in range(target.channels):
                plane = flat[start + f * H * W : start + f * H * W + total]
                for i in range(len(plane)):
                    plane[i] += bias[f]


@kept(njit(nogil=True, error_model="numpy"))
def _unpack_gated(out, first, count, p, rows, gates, sums):
    """g = the bands first, ... where scale x + shift > 0, else 0; gx (+)= scale g; sums += (g, g (x - mean)) of each channel"""
    (H, W), F, lanes = gates.x.shape[2:], len(gates.scale), VECTOR // gates.x.itemsize
    size, pixels, apart = len(rows) // lanes, p.made.pixels, p.made.channels
    for b in range(count):
        n, i0, i1 = _rows_made(first + b, H, p)
        at, total = _cell_of(b, 0, p.made), (i1 - i0) * W
        whole = total // lanes * lanes
        for f0 in range(0, F, lanes):
            some = min(lanes, F - f0)
            for i in range(0, whole, lanes):
                turn_back(address(rows, i), size, some, address(pixels, i), address(out, at + f0), apart)
            for f in range(some):
                for i in range(whole, total):
                    rows[np.uintp(f * size + i)] = out[np.uintp(at + pixels[i] * apart + f0 + f)]
            for f in range(f0, f0 + some):
                found = address(rows, (f - f0) * size)
                s, t = gate_channel(found, gates, f, row_of(gates.x, n, f, i0), row_of(gates.gx, n, f, i0), total)
                sums[0, f] += s
                sums[1, f] += t


@njit(inline="always", error_model="numpy")
def _fetch(source, n, count, t):
    """Bring the t-th of T parts of the source's channels of the images n, ..., n + count - 1 near"""
    plane = source.x.shape[2] * source.x.shape[3]
    for k in range(count):
        at = row_of(source.x, n + k, source.first, 0) + t * source.channels * plane // T
        prefetch(address(source.x, at), -(-source.channels * plane * source.x.itemsize // (64 * T)))


# ---- the kernel: G g G^T, and the adjoint


@njit(inline="always", error_model="numpy")
def _by_G(a, b, c, h):  # noqa: N802
    """G (a, b, c)"""
    return a, (a + c + b) * h, (a + c - b) * h, c


@njit(inline="always", error_model="numpy")
def _by_G_transposed(a, b, c, d, h):  # noqa: N802
    """G^T (a, b, c, d)"""
    return a + h * (b + c), h * (b - c), h * (b + c) + d


@kept(njit(nogil=True, error_model="numpy"))
def kernel_places(c, w, turned, h, width, padded, u):
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
                Gg[0, s], Gg[1, s], Gg[2, s], Gg[3, s] = _by_G(g[0, s], g[1, s], g[2, s], h)
        else:
            Gg[:] = 0
        for r in range(4):
            place, next_place = at + 4 * r * padded * channels, padded * channels
            u[place], u[place + next_place], u[place + 2 * next_place], u[place + 3 * next_place] = _by_G(
                Gg[r, 0], Gg[r, 1], Gg[r, 2], h
            )


@kept(njit(nogil=True, error_model="numpy"))
def kernel_gradient(f, sums, rows, channels, h, gw):
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
            half[0, s, c], half[1, s, c], half[2, s, c] = _by_G_transposed(Y[0, s, c], Y[1, s, c], Y[2, s, c], Y[3, s, c], h)
    for r in range(3):
        for c in range(C):
            a, b, d, e = half[r, 0, c], half[r, 1, c], half[r, 2, c], half[r, 3, c]
            gw[f, c, r, 0], gw[f, c, r, 1], gw[f, c, r, 2] = _by_G_transposed(a, b, d, e, h)


# ---- products


@njit(inline="always", error_model="numpy")
def _task(source, first, count, u, p, memory):
    """out = A^T [ sum_c U * (B^T d B) ] A for the bands first, ..., first + count - 1"""
    mine, V, Y, out = memory
    C, lanes, channels, rows = source.channels, VECTOR // mine.itemsize, p.seen.channels, p.made.channels
    v_stride, y_stride, weights = len(V) // T, len(Y) // T, address(p.weights, 0)
    _pack(source, first, count, p, p.seen, mine)
    total = len(p.seen.tiles) // p.together * count
    for q0 in range(0, total, p.block):
        n_q, seen, made = min(p.block, total - q0), address(p.seen.tiles, q0), address(p.made.tiles, q0)
        for c in range(0, C, lanes):
            image_to_places(address(mine, c), p.seen.row, seen, n_q, address(V, c), v_stride, channels)
        for t in range(T):
            if p.bands == 1 and q0 == 0:  # the next task's images are fetched beside the arithmetic
                _fetch(source, first + count, count, t)
            if rows == lanes:
                for q in range(0, n_q, 2 * ROWS):
                    tiles, found = address(V, t * v_stride + q * channels), address(Y, t * y_stride + q * rows)
                    single_tile(tiles, 1, channels, address(u, t * rows * C), weights, C, found, rows, False)
            else:
                for f in range(0, rows, 2 * lanes):
                    for q in range(0, n_q, ROWS):
                        tiles, found = address(V, t * v_stride + q * channels), address(Y, t * y_stride + q * rows + f)
                        narrow_tile(tiles, 1, channels, address(u, (t * rows + f) * C), weights, C, found, rows, False)
        for f in range(0, rows, lanes):
            places_to_pixels(address(Y, f), y_stride, made, n_q, address(out, f), p.made.row, rows)


@kept(njit(nogil=True, error_model="numpy"))
def convolve(slot, slots, source, u, p, memory, target):
    """y = bias + A^T [ sum_c U * (B^T d B) ] A, task by task; memory: planes, places, products, pixels; a row of each a slot"""
    planes, places, products, pixels = memory
    mine = planes[slot], places[slot], products[slot], pixels[slot]
    mine[0][:], mine[1][:] = 0, 0
    N, tasks = len(source.x), _tasks_of(len(source.x), p)
    for task in range(slot * tasks // slots, (slot + 1) * tasks // slots):
        first, count = _bands_of(task, N, p)
        _task(source, first, count, u, p, mine)
        _unpack(mine[3], first, count, p, target)


@kept(njit(nogil=True, error_model="numpy"))
def convolve_gated(slot, slots, source, u, p, memory, lines, gates, sums):
    """The gradient of the image, through the gates of the relu that `_pack` applied; lines: scratch memory, too"""
    planes, places, products, pixels = memory
    mine = planes[slot], places[slot], products[slot], pixels[slot]
    mine[0][:], mine[1][:] = 0, 0
    N, tasks = len(source.x), _tasks_of(len(source.x), p)
    for task in range(slot * tasks // slots, (slot + 1) * tasks // slots):
        first, count = _bands_of(task, N, p)
        _task(source, first, count, u, p, mine)
        _unpack_gated(mine[3], first, count, p, lines[slot], gates, sums[slot])


@kept(njit(nogil=True, error_model="numpy"))
def correlate(slot, slots, gy, source, p, memory, sums):
    """sums[slot, t][f, c] = sum_q Z[t][q, f] V[t][q, c] over the bands of a slot, Z = A gy A^T, V = B^T d B

    memory: planes of the images and of the gradients, places of both; a row of each a slot
    """
    mine, gradient, V, Z, total = memory[0][slot], memory[1][slot], memory[2][slot], memory[3][slot], sums[slot]
    C, F, lanes, channels, rows = source.channels, gy.channels, VECTOR // mine.itemsize, p.seen.channels, p.made.channels
    v_stride, z_stride, places = len(V) // T, len(Z) // T, address(p.places, 0)
    mine[:], gradient[:], total[:] = 0, 0, 0
    N, tasks = len(source.x), _tasks_of(len(source.x), p)
    for task in range(slot * tasks // slots, (slot + 1) * tasks // slots):
        first, count = _bands_of(task, N, p)
        _pack(source, first, count, p, p.seen, mine)
        _pack(gy, first, count, p, p.made, gradient)
        tiles = len(p.seen.tiles) // p.together * count
        for q0 in range(0, tiles, p.block):
            n_q, seen, made = min(p.block, tiles - q0), address(p.seen.tiles, q0), address(p.made.tiles, q0)
            for c in range(0, C, lanes):
                image_to_places(address(mine, c), p.seen.row, seen, n_q, address(V, c), v_stride, channels)
            for f in range(0, F, lanes):
                gradient_to_places(address(gradient, f), p.made.row, made, n_q, address(Z, f), z_stride, rows)
            for t in range(T):
                if p.bands == 1 and q0 == 0:
                    _fetch(source, first + count, count, t)
                    _fetch(gy, first + count, count, t)
                if channels == lanes:
                    for f in range(0, F, 2 * ROWS):
                        left, found = address(Z, t * z_stride + f), address(total, (t * rows + f) * channels)
                        single_tile(left, rows, 1, address(V, t * v_stride), places, n_q, found, channels, True)
                else:
                    for c in range(0, C, 2 * lanes):
                        for f in range(0, F, ROWS):
                            left, found = address(Z, t * z_stride + f), address(total, (t * rows + f) * channels + c)
                            narrow_tile(left, rows, 1, address(V, t * v_stride + c), places, n_q, found, channels, True)
