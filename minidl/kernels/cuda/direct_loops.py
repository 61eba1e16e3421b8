"""The kernels of `direct`: a block sums its tile of y, or its share of the gradients of the weights."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import cuda

from minidl.kernels.cache import kept
from minidl.kernels.cuda.launch import U, jit, quotient

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


class Form(NamedTuple):
    """Sizes of images and of the tiles that a block computes: `images` times 2^rows times 2^columns

    In `forward` each of these rows is ROWS rows of pixels.
    """

    H: int  # of x
    W: int
    top: int  # padding
    left: int
    OH: int  # of y
    OW: int
    columns: int
    rows: int
    images: int
    size: int  # of the pixels that a tile needs of an image in shared memory, border and all
    along: int  # tiles: over the images,
    down: int  # the rows
    across: int  # and the columns


# ---- where in the images a place of shared memory comes from: the image, row and column of a tile, in 10 bits each


def coded(image: Any, row: Any, column: Any) -> Any:
    return image << 20 | row << 10 | column


@cuda.jit(device=True)
def image_of(code):
    return code >> 20


@cuda.jit(device=True)
def row_of(code):
    return code >> 10 & 1023


@cuda.jit(device=True)
def column_of(code):
    return code & 1023


# ---- the kernels


def _forward(per: int) -> Any:
    """The kernel in which a thread sums `per` features, a number that the compiler has to know"""
    features, seen_rows, shared_pixels, shared_weights = 2 * per, ROWS + 2, CHANNELS * PLANE, CHANNELS * 9 * 2 * per
    lines = THREADS // features  # of weights, copied at a time
    weight_turns = -(-CHANNELS * 9 // lines)

    def forward(x, w, places, form, y):
        """y[n,f,i,j] for `images` n, 2 * per f, 2^rows * ROWS i and 2^columns j"""
        N, C, F, t = x.shape[0], x.shape[1], y.shape[1], cuda.threadIdx.x
        pitch = (1 << form.columns) + 2
        first_n, first_f = cuda.blockIdx.x * form.images, cuda.blockIdx.z * features
        tile_i = quotient(cuda.blockIdx.y, form.across)
        first_i, first_j = (tile_i * ROWS) << form.rows, (cuda.blockIdx.y - tile_i * form.across) << form.columns
        pixels = cuda.shared.array(shared_pixels, np.float32)
        weights = cuda.shared.array(shared_weights, np.float32)

        inside = cuda.local.array(PLACES, np.bool_)
        image = cuda.local.array(PLACES, np.uint64)
        place = cuda.local.array(PLACES, np.uint64)
        for k in range(PLACES):
            at = places[U(t + k * THREADS)]
            n, i, j = first_n + image_of(at), first_i + row_of(at) - form.top, first_j + column_of(at) - form.left
            inside[k] = (at >= 0) & (n < N) & (0 <= i) & (i < form.H) & (0 <= j) & (j < form.W)
            image[k] = n if inside[k] else 0
            place[k] = i * form.W + j if inside[k] else 0

        half, lane = t // LANES, t % LANES  # of the features, and which ROWS pixels this thread has
        stack, j = lane >> form.columns, lane & (1 << form.columns) - 1
        n, above = stack >> form.rows, (stack & (1 << form.rows) - 1) * ROWS
        corner = n * form.size + above * pitch + j  # of the pixels under this thread's
        line, f = t // features, first_f + t % features  # of the weights that it copies
        sums = cuda.local.array((per, ROWS), np.float32)
        for g in range(per):
            for r in range(ROWS):
                sums[g, r] = np.float32(0)
        column = cuda.local.array(seen_rows, np.float32)
        fresh = cuda.local.array(weight_turns, np.float32)

        for first_c in range(0, C, CHANNELS):
            cuda.syncthreads()
            for k in range(PLACES):
                for c in range(CHANNELS):
                    value = np.float32(x[image[k], U(min(first_c + c, C - 1)), place[k]])
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
                    for r in range(seen_rows):
                        column[r] = pixels[below + U(r * pitch)]
                    for u in range(3):
                        for g in range(per):
                            weight = weights[first_weight + U(u * 3 * features + g)]
                            for r in range(ROWS):
                                sums[g, r] += weight * column[r + u]

        n, i, j = first_n + n, first_i + above, first_j + j
        if n < N and j < form.OW:
            for g in range(per):
                for r in range(ROWS):
                    if first_f + half * per + g < F and i + r < form.OH:
                        y[U(n), U(first_f + half * per + g), U((i + r) * form.OW + j)] = sums[g, r]

    forward.__qualname__ = f"forward_{per}"
    return jit(THREADS, 4)(forward)


FORWARD = {per: _forward(per) for per in (8, 6, 4)}


@jit(WARP * WARPS, 2)
def weights(gy, x, to_gy, to_x, form, sums):
    """sums[piece,f,c*9+u*3+v]: the sum of gy[n,f,i,j] x[n,c, i + u - ph, j + v - pw] over this block's share of n, i and j

    The block goes from tile to tile, each of `images` n, 2^rows i and 2^columns j.
    """
    N, F, C, pitch = gy.shape[0], gy.shape[1], x.shape[1], (1 << form.columns) + 2
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

    for tile in range(cuda.blockIdx.x, form.along * form.down * form.across, cuda.gridDim.x):
        line = quotient(tile, form.across)
        tile_n = quotient(line, form.down)
        tile_i, tile_j = line - tile_n * form.down, tile - line * form.across
        first_n, first_i, first_j = tile_n * form.images, tile_i << form.rows, tile_j << form.columns
        cuda.syncthreads()
        for k in range(GY_TURNS):
            at = to_gy[U(lane + k * WARP)]
            n, i, j = first_n + image_of(at), first_i + row_of(at), first_j + column_of(at)
            inside = (at >= 0) & (n < N) & (i < form.OH) & (j < form.OW)
            image, place = U(n if inside else 0), U(i * form.OW + j if inside else 0)
            for turn in range(F_TILE // WARPS):
                f = warp + turn * WARPS
                value = np.float32(gy[image, U(min(first_f + f, F - 1)), place])
                shared[U(f * GY_PLANE + lane + k * WARP)] = value if inside & (first_f + f < F) else np.float32(0)
        for k in range(X_TURNS):
            at = to_x[U(lane + k * WARP)]
            n, i, j = first_n + image_of(at), first_i + row_of(at) - form.top, first_j + column_of(at) - form.left
            inside = (at >= 0) & (n < N) & (0 <= i) & (i < form.H) & (0 <= j) & (j < form.W)
            image, place = U(n if inside else 0), U(i * form.W + j if inside else 0)
            for turn in range(C_LANES // WARPS):
                c = warp + turn * WARPS
                value = np.float32(x[image, U(min(first_c + c, C - 1)), place])
                shared[U(F_TILE * GY_PLANE + c * X_PLANE + lane + k * WARP)] = value if inside else np.float32(0)
        cuda.syncthreads()
        for p in range(warp * PIXELS, (warp + 1) * PIXELS, 4):  # four neighbours in a row
            line, j = p >> form.columns, p & (1 << form.columns) - 1
            n, i = line >> form.rows, line & (1 << form.rows) - 1
            corner = n * form.size + i * pitch + j
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
def add_up(pieces, total):
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
