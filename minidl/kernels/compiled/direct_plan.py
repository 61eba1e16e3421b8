"""Where everything lies in a convolution by `direct`: planes, offsets, tasks. The cut depends on shapes alone."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from minidl.array import Array
from minidl.kernels.compiled.tiles import COLUMNS, ROWS
from minidl.kernels.compiled.vectors import VECTOR
from minidl.kernels.shapes import Pair, Shape, conv_size

SCRATCH = 256 * 1024  # bytes of planes and results that a task should keep in the second-level cache
TASKS = 8  # a convolution is cut into at least so many tasks, where it is large enough


class Plan(NamedTuple):
    """The geometry of one convolution, all a kernel needs beside the arrays. Positions (i, j) count on the output's grid."""

    groups: int
    channels: int  # into the product, of one group
    rows: int  # channels out of the product, of one group
    padded: int  # the same, with those that fill up the last tile
    sh: int  # of the planes: plane (c, a, b) holds x[c, i sh + a - top, j sw + b - left] at (i, j)
    sw: int
    top: int  # padding; negative where the image is cropped
    left: int
    phases: Array  # (P, 2): the (a, b) that some tap uses
    QH: int  # rows of output positions
    QW: int  # and columns
    S: int  # row stride
    image_stride: int  # stride from image to image, a multiple of S
    images: int  # in a task
    halo: int  # the largest shift of a tap, in rows
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


class Tap(NamedTuple):
    number: int  # u kw + v
    phase: Pair  # of the pixels that it meets
    shift: Pair  # in positions


@lru_cache(1024)
def forward_plan(
    x_shape: Shape, w_shape: Shape, stride: Pair, padding: Pair, dilation: Pair, groups: int, itemsize: int
) -> Plan:
    """Tap (u, v) finds its pixel in plane (u d mod s, v d mod s), shifted by (u d div s, v d div s)."""
    (N, _, H, W), (F, C, kh, kw) = x_shape, w_shape
    OH, OW = (conv_size(*a) for a in zip((H, W), (kh, kw), stride, padding, dilation, strict=True))
    taps = [Tap(*tap) for tap in _taps((kh, kw), stride, dilation)]
    sizes = N, C, F // groups, groups, (H, W), (OH, OW)
    return _plan(*sizes, stride, padding, [taps], (1, 1), [(0, 0)], itemsize)


@lru_cache(1024)
def grad_x_plan(
    gy_shape: Shape, w_shape: Shape, x_shape: Shape, stride: Pair, padding: Pair, dilation: Pair, groups: int, itemsize: int
) -> Plan:
    """gx[y] with y + p = q s + r gets w[u] gy[q - (u d - r) / s] from the taps with u d mod s = r."""
    (N, F, OH, OW), (_, C, kh, kw), (H, W) = gy_shape, w_shape, x_shape[2:]
    halo, first, size = [], [], []
    for n, k, s, p, d in zip((H, W), (kh, kw), stride, padding, dilation, strict=True):
        halo.append(d * (k - 1) // s)  # the largest shift
        first.append(p // s)  # the smallest q of any pixel
        size.append((n - 1 + p) // s - p // s + 1)
    all_taps, taps_of_phases, y_first = _taps((kh, kw), stride, dilation), [], []
    for r in range(stride[0]):
        for c in range(stride[1]):
            taps = [(number, shift) for number, phase, shift in all_taps if phase == (r, c)]
            taps_of_phases.append([Tap(number, (0, 0), (halo[0] - i, halo[1] - j)) for number, (i, j) in taps])
            y_first.append((first[0] * stride[0] + r - padding[0], first[1] * stride[1] + c - padding[1]))
    cropped = halo[0] - first[0], halo[1] - first[1]
    sizes = N, F // groups, C, groups, (OH, OW), (size[0], size[1])
    return _plan(*sizes, (1, 1), cropped, taps_of_phases, stride, y_first, itemsize)


def _taps(kernel_size: Pair, stride: Pair, dilation: Pair) -> list[tuple[int, Pair, Pair]]:
    """u kw + v, (u d mod s, v d mod s), (u d div s, v d div s) of each tap (u, v)"""
    found = []
    for u in range(kernel_size[0]):
        for v in range(kernel_size[1]):
            (i, a), (j, b) = divmod(u * dilation[0], stride[0]), divmod(v * dilation[1], stride[1])
            found.append((u * kernel_size[1] + v, (a, b), (i, j)))
    return found


def _plan(
    N: int,
    channels: int,
    rows: int,
    groups: int,
    x_size: Pair,
    size: Pair,
    stride: Pair,
    padding: Pair,
    taps_of_phases: list[list[Tap]],  # of each phase of the output
    y_stride: Pair,
    y_first: list[Pair],
    itemsize: int,
) -> Plan:
    taps = [tap for of_phase in taps_of_phases for tap in of_phase]
    phases = sorted({tap.phase for tap in taps}) or [(0, 0)]
    halo = [max((tap.shift[axis] for tap in taps), default=0) for axis in (0, 1)]
    down, S = (
        _span(x_size[axis], size[axis], stride[axis], padding[axis], [phase[axis] for phase in phases], halo[axis])
        for axis in (0, 1)
    )
    image_stride, width = down * S, COLUMNS * (VECTOR // itemsize)  # of a tile
    wanted = max(8 * width, SCRATCH // ((channels * len(phases) + rows) * itemsize))  # positions in a task
    images, band = _cut(N, size[0], S, image_stride, wanted, width)
    bands, tiles = -(-size[0] // band), -(-rows // ROWS)
    chunks = min(tiles, max(1, TASKS // (-(-N // images) * bands))) if channels * rows >= 4096 else 1
    chunk = -(-tiles // chunks) * ROWS
    length = -(-((images - 1) * image_stride + (band - 1) * S + size[1]) // width) * width
    seen = max(length, (images - 1) * image_stride + (band + halo[0]) * S) + halo[0] * S + halo[1]
    plane = -(-seen // 16) * 16
    offsets = [
        (c * len(phases) + phases.index(tap.phase)) * plane + tap.shift[0] * S + tap.shift[1]
        for of_phase in taps_of_phases
        for c in range(channels)
        for tap in of_phase
    ]
    offsets += [0] * (-len(offsets) % COLUMNS)
    starts = np.cumsum([0] + [len(of_phase) for of_phase in taps_of_phases])
    return Plan(
        groups, channels, rows, -(-rows // (ROWS // 2)) * (ROWS // 2), *stride, *padding, np.array(phases, np.int64), *size,
        S, image_stride, images, halo[0], band, bands, chunk, -(-tiles * ROWS // chunk), length, plane,
        np.array(offsets, np.int64), np.array([tap.number for tap in taps], np.int64), starts.astype(np.int64),
        *y_stride, np.array(y_first, np.int64),
    )  # fmt: skip


def _span(x_size: int, size: int, stride: int, padding: int, phases: list[int], halo: int) -> int:
    """Positions from one row (image) to the next, so that only zeros are shared between neighbours"""
    first = min(max(0, -((a - padding) // stride)) for a in phases)  # position of the first pixel: ceil((p - a) / s)
    end = max((x_size - 1 + padding - a) // stride + 1 for a in phases)  # behind the last pixel
    needed = size + halo
    return max(size, min(end, needed), needed - first)


def _cut(N: int, QH: int, S: int, image_stride: int, wanted: int, width: int) -> Pair:
    """Images in a task, and rows of output: whole images of about `wanted` positions, or a band of one"""
    if image_stride <= wanted:
        enough = -(-4 * width // image_stride)  # images for at least a few tiles
        images, band = max(1, min(wanted // image_stride, max(enough, N // TASKS), N)), QH
    else:
        bands = -(-QH // max(1, wanted // S))
        images, band = 1, -(-QH // bands)
    if N * QH * S >= TASKS * 4 * width:  # few large images: narrower bands
        while images == 1 and band > 1 and N * -(-QH // band) < TASKS and band * S > 8 * width:
            band = -(-band // 2)
    return images, band
