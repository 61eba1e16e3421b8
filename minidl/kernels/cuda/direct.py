"""3x3 convolution of stride 1 without columns: a block of threads keeps a piece of the pictures at hand, to read it nine times.

im2col writes every pixel nine times to memory and reads it nine times again. Here a block copies the pixels that its results
need, with a border of one, to shared memory, and the sums of products stay in registers. What limits it then is arithmetic:

    forward    a thread sums ROWS pixels, one below the other, of PER features: ROWS + 2 pixels and PER weights read from shared
               memory serve ROWS * PER products. Lanes of a warp are neighbours in a row, so that each reads another bank.
    gx         is the forward pass of gy, with the weights turned round, see conv.py
    gw         a thread sums FS * 9 weights over the pixels of its warp; warps and blocks are put together in their order, so
               that the same call gives the same bits.

Many loads have to be on their way at once. So whoever copies reads something in any case, where nothing is meant to be read the
first pixel, and puts a 0 in its place: no branch waits for a load. Where in the pictures a place of shared memory comes from is
looked up in a table, since to divide takes longer than to load; indices are unsigned, since Numba asks others whether they are
below 0.

Halves are copied to shared memory as float32. Float64 takes the columns of windows.py, since shared memory would not hold it.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import cuda

from minidl.array import Array, array_module, sum_type
from minidl.kernels.cache import kept
from minidl.kernels.cuda.launch import U, jit, launch_blocks, quotient
from minidl.kernels.shapes import Pair, Shape

ROWS = 8  # pixels of a thread
LANES = 64  # columns of so many pixels that a block has
THREADS = 2 * LANES  # for half of the block's features each
CHANNELS = 8  # of x at a time
PLACES = 7  # that a thread copies of each channel
PLANE = PLACES * THREADS  # pixels of a channel at a time, border and all

WARP, WARPS = 32, 8  # threads of a warp, warps of a block that sums weights
PIXELS = 32  # of a warp, at a time
FS, F_LANES = 4, 4  # features of a thread, and threads of a warp along the features
C_LANES = WARP // F_LANES  # threads of a warp along the channels of x
F_TILE = FS * F_LANES
GY_PLANE = WARPS * PIXELS + 1  # in shared memory; odd, so that neighbours are in other banks
GY_TURNS, X_TURNS = WARPS * PIXELS // WARP, 13  # places that a thread copies of each channel
X_PLANE = WARP * X_TURNS + 1
SHARED = F_TILE * GY_PLANE + C_LANES * X_PLANE
TURNS, SUMS = 8, 32  # of the block that adds the pieces up: threads of a sum, sums
MOST = 128  # channels
MANY, ENOUGH = 64, 100 * (LANES * ROWS * 16)  # with so many channels a block takes long, and 100 blocks are too few
PIECES = 264  # blocks that share the pictures, twice as many as a large GPU has multiprocessors


def serves(x: Array, w_shape: Shape, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> bool:
    """Whether the kernels below compute this convolution: 3x3, stride 1, one group, where that is sooner than by columns

    It is for pictures that are not tiny, up to MOST channels, and where there is work for the whole device.
    """
    (N, C, H, W), F = x.shape, w_shape[0]
    one = w_shape[2:] == (3, 3) and stride == dilation == (1, 1) and groups == 1
    OH, OW = H + 2 * padding[0] - 2, W + 2 * padding[1] - 2
    if not one or max(padding) > 2 or min(OH, OW) <= 4 or max(C, F) > MOST or sum_type(x.dtype).itemsize > 4:
        return False
    return bool(C < MANY or N * OH * OW * F > ENOUGH)


def conv3x3(x: Array, w: Array, padding: Pair, out: Array) -> None:
    """out[n,f,i,j] = sum_{c,u,v} w[f,c,u,v] x[n,c, i + u - p, j + v - p]"""
    N, F, OH, OW = out.shape
    columns = min(LANES, 32, _cover(OW))
    stacks = min(LANES // columns, _cover(-(-OH // ROWS)))  # of ROWS rows, that a block has of a picture
    pictures = LANES // columns // stacks
    size = (stacks * ROWS + 2) * (columns + 2)
    size += (columns - size) % 32  # the next picture begins in the bank behind the one that this one's row ends in
    per = _features_of_a_thread(F)
    down, across = -(-OH // (stacks * ROWS)), -(-OW // columns)
    grid = -(-N // pictures), down * across, -(-F // (2 * per))
    places = _places(array_module(x), pictures, stacks * ROWS + 2, columns + 2, size, PLANE)
    form = *x.shape[2:], *padding, OH, OW, _log(columns), _log(stacks), pictures, size, across
    launch_blocks(FORWARD[per], grid, (THREADS,), flat(x), w.reshape(F, -1), places, *form, flat(out))


def conv3x3_grad_w(gy: Array, x: Array, padding: Pair) -> Array:
    """gw[f,c,u,v] = sum_{n,i,j} gy[n,f,i,j] x[n,c, i + u - p, j + v - p], float32"""
    xp, (N, F, OH, OW), C = array_module(gy), gy.shape, x.shape[1]
    columns = min(32, _cover(OW))
    rows = min(WARPS * PIXELS // columns, _cover(OH))  # of a picture
    pictures = WARPS * PIXELS // columns // rows
    size = (rows + 2) * (columns + 2)
    tiles = -(-N // pictures), -(-OH // rows), -(-OW // columns)
    f_tiles, c_tiles = -(-F // F_TILE), -(-C // C_LANES)
    pieces = max(1, min(tiles[0] * tiles[1] * tiles[2], PIECES // (f_tiles * c_tiles)))
    sums = xp.empty((pieces, F, C * 9), np.float32)
    to_gy = _places(xp, pictures, rows, columns, rows * columns, WARP * GY_TURNS)
    to_x = _places(xp, pictures, rows + 2, columns + 2, size, WARP * X_TURNS)
    form = *x.shape[2:], *padding, OH, OW, _log(columns), _log(rows), pictures, size, *tiles
    launch_blocks(_weights, (pieces, f_tiles, c_tiles), (WARP * WARPS,), flat(gy), flat(x), to_gy, to_x, *form, sums)
    gw = xp.empty((F, C, 3, 3), np.float32)
    launch_blocks(_add_up, (-(-F * C * 9 // SUMS),), (SUMS, TURNS), sums.reshape(pieces, -1), gw.reshape(-1))
    return gw


def flat(x: Array) -> Array:
    """(N,C,H,W) as (N,C,HW), in the same memory where x is contiguous or some of the channels of an array that is"""
    return x.reshape(x.shape[0], x.shape[1], -1)


def _log(n: int) -> int:
    """Of a power of two"""
    return n.bit_length() - 1


def _cover(n: int) -> int:
    """The smallest power of two that is n or more"""
    return 1 << (n - 1).bit_length()


def _features_of_a_thread(F: int) -> int:
    """8, or 6 or 4 where less is computed in vain"""
    return min(FORWARD, key=lambda per: -(-F // (2 * per)) * per)


def _places(xp: Any, pictures: int, rows: int, pitch: int, size: int, count: int) -> Array:
    """For each of `count` places of shared memory, the picture, row and column that it is for, in 10 bits each, or -1: int32"""
    return _table(xp, xp.cuda.runtime.getDevice(), pictures, rows, pitch, size, count)


@cache
def _table(xp: Any, device: int, pictures: int, rows: int, pitch: int, size: int, count: int) -> Array:
    """`_places` on one device"""
    n, rest = np.divmod(np.arange(count), size)
    row, column = np.divmod(rest, pitch)
    return xp.asarray(np.where((n < pictures) & (row < rows), n << 20 | row << 10 | column, -1).astype(np.int32))


def _forward(per: int) -> Any:
    """The kernel in which a thread sums `per` features, a number that the compiler has to know"""
    features, reach, shared_pixels, shared_weights = 2 * per, ROWS + 2, CHANNELS * PLANE, CHANNELS * 9 * 2 * per
    lines = THREADS // features  # of weights, copied at a time
    weight_turns = -(-CHANNELS * 9 // lines)

    def forward(x, w, places, H, W, ph, pw, OH, OW, columns, stacks, pictures, size, across, y):
        """y[n,f,i,j] for `pictures` n, 2 * per f, 2^stacks * ROWS i and 2^columns j"""
        N, C, F, t = x.shape[0], x.shape[1], y.shape[1], cuda.threadIdx.x
        pitch = (1 << columns) + 2
        first_n, first_f = cuda.blockIdx.x * pictures, cuda.blockIdx.z * features
        tile_i = quotient(cuda.blockIdx.y, across)
        first_i, first_j = (tile_i * ROWS) << stacks, (cuda.blockIdx.y - tile_i * across) << columns
        pixels = cuda.shared.array(shared_pixels, np.float32)
        weights = cuda.shared.array(shared_weights, np.float32)

        inside = cuda.local.array(PLACES, np.bool_)
        picture = cuda.local.array(PLACES, np.uint64)
        place = cuda.local.array(PLACES, np.uint64)
        for k in range(PLACES):
            coded = places[U(t + k * THREADS)]
            n, i, j = first_n + (coded >> 20), first_i + (coded >> 10 & 1023) - ph, first_j + (coded & 1023) - pw
            inside[k] = (coded >= 0) & (n < N) & (0 <= i) & (i < H) & (0 <= j) & (j < W)
            picture[k] = n if inside[k] else 0
            place[k] = i * W + j if inside[k] else 0

        half, stack, j = t // LANES, t % LANES >> columns, t % LANES & (1 << columns) - 1
        above = (stack & (1 << stacks) - 1) * ROWS
        corner = (stack >> stacks) * size + above * pitch + j  # of the pixels under this thread's
        line, f = t // features, first_f + t % features  # of the weights that it copies
        sums = cuda.local.array((per, ROWS), np.float32)
        for g in range(per):
            for r in range(ROWS):
                sums[g, r] = np.float32(0)
        column = cuda.local.array(reach, np.float32)
        fresh = cuda.local.array(weight_turns, np.float32)

        for first_c in range(0, C, CHANNELS):
            cuda.syncthreads()
            for k in range(PLACES):
                for c in range(CHANNELS):
                    value = np.float32(x[picture[k], U(min(first_c + c, C - 1)), place[k]])
                    pixels[U(c * PLANE + t + k * THREADS)] = value if inside[k] else np.float32(0)
            for k in range(weight_turns):
                at = line + k * lines  # c * 9 + u * 3 + v
                known = (f < F) & (at < (C - first_c) * 9)
                value = np.float32(w[U(f if known else 0), U(first_c * 9 + at if known else 0)])
                fresh[k] = value if known else np.float32(0)
            for k in range(weight_turns):
                if line < lines and line + k * lines < CHANNELS * 9:
                    weights[U((line + k * lines) * features + t % features)] = fresh[k]
            cuda.syncthreads()
            for c in range(min(CHANNELS, C - first_c)):
                for v in range(3):
                    below, first_weight = U(c * PLANE + corner + v), U((c * 9 + v) * features + half * per)
                    for r in range(reach):
                        column[r] = pixels[below + U(r * pitch)]
                    for u in range(3):
                        for g in range(per):
                            weight = weights[first_weight + U(u * 3 * features + g)]
                            for r in range(ROWS):
                                sums[g, r] += weight * column[r + u]

        n, i, j = first_n + (stack >> stacks), first_i + above, first_j + j
        if n < N and j < OW:
            for g in range(per):
                for r in range(ROWS):
                    if first_f + half * per + g < F and i + r < OH:
                        y[U(n), U(first_f + half * per + g), U((i + r) * OW + j)] = sums[g, r]

    forward.__qualname__ = f"forward_{per}"
    return jit(THREADS, 4)(forward)


FORWARD = {per: _forward(per) for per in (8, 6, 4)}


@jit(WARP * WARPS, 2)
def _weights(gy, x, to_gy, to_x, H, W, ph, pw, OH, OW, columns, rows, pictures, size, along, down, across, sums):
    """sums[piece,f,c*9+u*3+v]: the sum of gy[n,f,i,j] x[n,c, i + u - ph, j + v - pw] over this block's share of n, i and j

    The block goes from tile to tile, each of `pictures` n, 2^rows i and 2^columns j.
    """
    N, F, C, pitch = gy.shape[0], gy.shape[1], x.shape[1], (1 << columns) + 2
    lane, warp = cuda.threadIdx.x % WARP, cuda.threadIdx.x // WARP
    f_lane, c_lane = lane // C_LANES, lane % C_LANES
    first_f, first_c = cuda.blockIdx.y * F_TILE, cuda.blockIdx.z * C_LANES
    shared = cuda.shared.array(SHARED, np.float32)  # gy's pixels, then those of x
    total = cuda.local.array((FS, 3, 3), np.float32)
    for f in range(FS):
        for u in range(3):
            for v in range(3):
                total[f, u, v] = np.float32(0)
    g = cuda.local.array((FS, 4), np.float32)
    window = cuda.local.array((3, 6), np.float32)

    for tile in range(cuda.blockIdx.x, along * down * across, cuda.gridDim.x):
        line = quotient(tile, across)
        tile_n = quotient(line, down)
        first_n, first_i, first_j = tile_n * pictures, (line - tile_n * down) << rows, (tile - line * across) << columns
        cuda.syncthreads()
        for k in range(GY_TURNS):
            coded = to_gy[U(lane + k * WARP)]
            n, i, j = first_n + (coded >> 20), first_i + (coded >> 10 & 1023), first_j + (coded & 1023)
            inside = (coded >= 0) & (n < N) & (i < OH) & (j < OW)
            picture, place = U(n if inside else 0), U(i * OW + j if inside else 0)
            for turn in range(F_TILE // WARPS):
                f = warp + turn * WARPS
                value = np.float32(gy[picture, U(min(first_f + f, F - 1)), place])
                shared[U(f * GY_PLANE + lane + k * WARP)] = value if inside & (first_f + f < F) else np.float32(0)
        for k in range(X_TURNS):
            coded = to_x[U(lane + k * WARP)]
            n, i, j = first_n + (coded >> 20), first_i + (coded >> 10 & 1023) - ph, first_j + (coded & 1023) - pw
            inside = (coded >= 0) & (n < N) & (0 <= i) & (i < H) & (0 <= j) & (j < W)
            picture, place = U(n if inside else 0), U(i * W + j if inside else 0)
            for turn in range(C_LANES // WARPS):
                c = warp + turn * WARPS
                value = np.float32(x[picture, U(min(first_c + c, C - 1)), place])
                shared[U(F_TILE * GY_PLANE + c * X_PLANE + lane + k * WARP)] = value if inside else np.float32(0)
        cuda.syncthreads()
        for p in range(warp * PIXELS, (warp + 1) * PIXELS, 4):  # four neighbours in a row
            row = p >> columns
            corner = (row >> rows) * size + (row & (1 << rows) - 1) * pitch + (p & (1 << columns) - 1)
            from_gy, from_x = U(f_lane * GY_PLANE + p), U(F_TILE * GY_PLANE + c_lane * X_PLANE + corner)
            for f in range(FS):
                for k in range(4):
                    g[f, k] = shared[from_gy + U(F_LANES * GY_PLANE * f + k)]
            for u in range(3):
                for k in range(6):
                    window[u, k] = shared[from_x + U(u * pitch + k)]
            for k in range(4):
                for f in range(FS):
                    for u in range(3):
                        for v in range(3):
                            total[f, u, v] += g[f, k] * window[u, k + v]

    for turn in range(WARPS):  # one warp after the other, so that the order is always the same
        cuda.syncthreads()
        if warp == turn:
            for f in range(FS):
                for u in range(3):
                    for v in range(3):
                        place = U(((f_lane + F_LANES * f) * C_LANES + c_lane) * 9 + u * 3 + v)
                        shared[place] = total[f, u, v] + (shared[place] if turn > 0 else np.float32(0))
    cuda.syncthreads()
    for at in range(cuda.threadIdx.x, F_TILE * C_LANES * 9, WARP * WARPS):
        f, c = first_f + at // (C_LANES * 9), first_c + at // 9 % C_LANES
        if f < F and c < C:
            sums[cuda.blockIdx.x, f, c * 9 + at % 9] = shared[U(at)]


@kept(cuda.jit)
def _add_up(pieces, total):
    """total[i] = sum of pieces[:,i]: thread y adds every TURNS-th from y on, then these are put together in their order"""
    i, y = cuda.blockIdx.x * SUMS + cuda.threadIdx.x, cuda.threadIdx.y
    shared = cuda.shared.array((TURNS, SUMS), np.float32)
    value = np.float32(0)
    if i < len(total):
        for piece in range(y, pieces.shape[0], TURNS):
            value += pieces[piece, i]
    shared[y, cuda.threadIdx.x] = value
    cuda.syncthreads()
    if y == 0 and i < len(total):
        for k in range(1, TURNS):
            value += shared[k, cuda.threadIdx.x]
        total[i] = value
