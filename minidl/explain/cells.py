"""Images in cells that are in sight or hidden together, and what a model says where only some of them are in sight."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minidl.arguments import Pair
from minidl.array import Array, array_module, device_of, is_array, to_cpu, to_device
from minidl.core import no_grad
from minidl.inference.batches import Progress, batches
from minidl.inference.evaluation import evaluation_mode, logits_of
from minidl.inference.scores import Output, exact_score
from minidl.nn import Module


def cells_of(x: Array, grid: Pair, segments: Array | None) -> Array:
    """(N,H,W) int64 on the CPU: the cell of each pixel, in each image from 0 to M-1 without a gap.

    A grid of (rows, columns) of as equal cells as whole pixels allow, or the segments (N,H,W), any integers.
    """
    N, _, H, W = x.shape
    if segments is None:
        rows, columns = grid
        if rows > H or columns > W:
            raise ValueError(f"grid: {rows}x{columns} cells are more than the pixels of the images, which are {H}x{W}")
        numbered = np.arange(H)[:, None] * rows // H * columns + np.arange(W) * columns // W
        return np.repeat(numbered[None], N, 0)
    if not is_array(segments) or segments.dtype.kind not in "iu":
        got = segments.dtype if is_array(segments) else type(segments).__name__
        raise TypeError(f"segments: expected an array of integers, the number of each pixel's segment, got {got}")
    if segments.shape != (N, H, W):
        raise ValueError(f"segments: expected {(N, H, W)}, one number a pixel, got shape {segments.shape}")
    return np.stack([np.unique(own, return_inverse=True)[1].reshape(H, W) for own in to_cpu(segments)]).astype(np.int64)


def scores_in_sight(
    model: Module,
    x: Array,
    baseline: Array,
    cells: Array,
    subsets: Sequence[Array],
    classes: Array,
    output: Output,
    batch_size: int,
    progress: Progress,
    name: str,
) -> list[Array]:
    """For each image i and each row z of subsets[i] (n_i,M_i) bool: score(x where z of the pixel's cell, else baseline).

    Returns (n_i,) for each image, float64, on the CPU.
    """
    xp, counts = array_module(x), [len(own) for own in subsets]
    image, row = np.repeat(np.arange(len(x)), counts), np.concatenate([np.arange(n) for n in counts])
    scores = np.empty(len(image))
    for part in batches(len(image), batch_size, progress, name):
        shown = np.stack([subsets[i][k][cells[i]] for i, k in zip(image[part], row[part], strict=True)])[:, None]
        pick, shown = (to_device(a, device_of(x)) for a in (image[part], shown))
        with evaluation_mode(model, batch_size), no_grad():
            logits = logits_of(model, xp.where(shown, x[pick], baseline[pick])).data
            scores[part] = to_cpu(exact_score(logits, classes[pick], output))
    return np.split(scores, np.cumsum(counts)[:-1])


def least_squares(A: Array, y: Array, weights: Array, ridge: float = 0.0) -> Array:
    """argmin_u sum_k weights_k (y_k - (A u)_k)^2 + ridge |u|^2, for A (n,M); of several the shortest u."""
    root = np.sqrt(weights)
    rows = np.concatenate([root[:, None] * A, np.sqrt(ridge) * np.eye(A.shape[1])])
    return np.linalg.lstsq(rows, np.concatenate([root * y, np.zeros(A.shape[1])]))[0]
