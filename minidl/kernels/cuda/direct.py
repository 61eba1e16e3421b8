"""3x3 convolution of stride 1 without columns: a block of threads keeps a piece of the images at hand, to read it nine times.

im2col writes every pixel nine times to memory and reads it nine times again. Here a block copies the pixels that its results
need, with a border of one, to shared memory, and the sums of products stay in registers. What limits it then is arithmetic. For
one block and one image, and three rows of pixels to a thread:

    def example(x, w):  # x (C,H,W), w (F,C,3,3), padding 1 -> y (F,H,W)
        (C, H, W), F, rows = x.shape, len(w), 3
        shared = np.pad(x, ((0, 0), (1, rows), (1, 1)))
        y = np.zeros((F, H, W))
        for i, j in np.ndindex(-(-H // rows), W):  # the threads
            first, sums = i * rows, np.zeros((F, rows))
            for c, v in np.ndindex(C, 3):
                column = shared[c, first : first + rows + 2, j + v]
                for u in range(3):
                    sums += w[:, c, u, v, None] * column[u : u + rows]
            y[:, first : first + rows, j] = sums[:, : H - first]
        return y

The pixels of a tile of 4x4 results a ... p, as they lie in shared memory:

    . . . . . .       pitch 6: the corner of a is at 0, that of b at 1, that of e at 6
    . a b c d .       a thread reads a column of rows + 2 of them, such as . a e i m, for the results a, e and i
    . e f g h .       lanes of a warp are a, b, c and d: neighbours, so that each reads another bank
    . i j k l .
    . m n o p .       where a place comes from is looked up in a table: its image, row and column in 10 bits each
    . . . . . .

    forward    a thread sums ROWS pixels, one below the other, of PER features: ROWS + 2 pixels and PER weights read from shared
               memory serve ROWS * PER products
    gx         is the forward pass of gy, with the weights turned round, see conv.py
    gw         a thread sums FS * 9 weights over the pixels of its warp; warps and blocks are put together in their order, so
               that the same call gives the same bits

Many loads have to be on their way at once. So whoever copies reads something in any case, where nothing is meant to be read the
first pixel, and puts a 0 in its place: no branch waits for a load. To divide takes longer than to load, hence the table;
indices are unsigned, since Numba asks others whether they are below 0.

Halves are copied to shared memory as float32. Float64 takes the columns of windows.py, since shared memory would not hold it.
The kernels are in direct_loops.py.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from minidl.array import Array, array_module, sum_type
from minidl.kernels.cuda import direct_loops as loops
from minidl.kernels.cuda.direct_loops import Form
from minidl.kernels.cuda.launch import launch_blocks
from minidl.kernels.shapes import Pair, Shape

MOST = 128  # channels
MANY, ENOUGH = 64, 100 * (loops.LANES * loops.ROWS * 16)  # with so many channels a block takes long, and 100 blocks are too few
PIECES = 264  # blocks that share the images, twice as many as a large GPU has multiprocessors


def serves(x: Array, w_shape: Shape, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> bool:
    """Whether the kernels below compute this convolution: 3x3, stride 1, one group, where that is sooner than by columns

    It is for images that are not tiny, up to MOST channels, and where there is work for the whole device.
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
    columns = min(loops.LANES, 32, _cover(OW))
    stacks = min(loops.LANES // columns, _cover(-(-OH // loops.ROWS)))  # of ROWS rows, that a block has of an image
    images = loops.LANES // columns // stacks
    size = (stacks * loops.ROWS + 2) * (columns + 2)
    size += (columns - size) % 32  # the next image begins in the bank behind the one that this one's row ends in
    per = _features_of_a_thread(F)
    down, across = -(-OH // (stacks * loops.ROWS)), -(-OW // columns)
    grid = -(-N // images), down * across, -(-F // (2 * per))
    places = _places(array_module(x), images, stacks * loops.ROWS + 2, columns + 2, size, loops.PLANE)
    sizes = x.shape[2], x.shape[3], padding[0], padding[1], OH, OW
    form = Form(*sizes, _log(columns), _log(stacks), images, size, grid[0], down, across)
    launch_blocks(loops.FORWARD[per], grid, (loops.THREADS,), flat(x), w.reshape(F, -1), places, form, flat(out))


def conv3x3_grad_w(gy: Array, x: Array, padding: Pair) -> Array:
    """gw[f,c,u,v] = sum_{n,i,j} gy[n,f,i,j] x[n,c, i + u - p, j + v - p], float32"""
    xp, (N, F, OH, OW), C = array_module(gy), gy.shape, x.shape[1]
    columns = min(32, _cover(OW))
    rows = min(loops.WARPS * loops.PIXELS // columns, _cover(OH))  # of an image
    images = loops.WARPS * loops.PIXELS // columns // rows
    size = (rows + 2) * (columns + 2)
    tiles = -(-N // images), -(-OH // rows), -(-OW // columns)
    f_tiles, c_tiles = -(-F // loops.F_TILE), -(-C // loops.C_LANES)
    pieces = max(1, min(tiles[0] * tiles[1] * tiles[2], PIECES // (f_tiles * c_tiles)))
    sums = xp.empty((pieces, F, C * 9), np.float32)
    to_gy = _places(xp, images, rows, columns, rows * columns, loops.WARP * loops.GY_TURNS)
    to_x = _places(xp, images, rows + 2, columns + 2, size, loops.WARP * loops.X_TURNS)
    sizes = x.shape[2], x.shape[3], padding[0], padding[1], OH, OW
    form = Form(*sizes, _log(columns), _log(rows), images, size, *tiles)
    grid, block = (pieces, f_tiles, c_tiles), (loops.WARP * loops.WARPS,)
    launch_blocks(loops.weights, grid, block, flat(gy), flat(x), to_gy, to_x, form, sums)
    gw = xp.empty((F, C, 3, 3), np.float32)
    sums = sums.reshape(pieces, -1)
    launch_blocks(loops.add_up, (-(-F * C * 9 // loops.SUMS),), (loops.SUMS, loops.TURNS), sums, gw.reshape(-1))
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
    return min(loops.FORWARD, key=lambda per: -(-F // (2 * per)) * per)


def _places(xp: Any, images: int, rows: int, pitch: int, size: int, count: int) -> Array:
    """For each of `count` places of shared memory, the image, row and column that it is for, in 10 bits each, or -1: int32"""
    return _table(xp, xp.cuda.runtime.getDevice(), images, rows, pitch, size, count)


@cache
def _table(xp: Any, device: int, images: int, rows: int, pitch: int, size: int, count: int) -> Array:
    """`_places` on one device"""
    n, rest = np.divmod(np.arange(count), size)
    row, column = np.divmod(rest, pitch)
    return xp.asarray(np.where((n < images) & (row < rows), loops.coded(n, row, column), -1).astype(np.int32))
