"""Maps of images (N,C,H,W) that know nothing of any model: what an explanation has to beat. (N,H,W), none below 0."""

from __future__ import annotations

import numpy as np

from minidl.arguments import count
from minidl.array import Array, is_array, to_cpu


def random(x: Array, seed: int = 0) -> Array:
    """Each pixel uniform in [0, 1): images x (N,C,H,W) -> (N,H,W).

    Raises ValueError for what are no images, TypeError or ValueError for a seed that is no integer of at least 0.
    """
    N, _, H, W = _images(x).shape
    return np.random.default_rng(count(seed, "seed", 0)).random((N, H, W))


def centre(x: Array) -> Array:
    """exp(-d^2 / 2), d the distance from the image's centre, in quarters of its height and width: photographers aim.

    Images x (N,C,H,W) -> (N,H,W). Raises ValueError for what are none.
    """
    N, _, H, W = _images(x).shape
    y, x_ = (np.arange(S) + 0.5 - S / 2 for S in (H, W))
    bell = np.exp(-0.5 * ((y[:, None] / (H / 4)) ** 2 + (x_ / (W / 4)) ** 2))
    return np.broadcast_to(bell, (N, H, W)).copy()


def sobel(x: Array) -> Array:
    """sqrt(gh^2 + gv^2), the size of the gradient of the image, the largest over its channels: an edge detector.

    Images x (N,C,H,W) -> (N,H,W). Raises ValueError for what are none. Gradients gh, gv by the operator of Sobel and Feldman
    1968, "A 3x3 isotropic gradient operator for image processing".
    """
    p = np.pad(_images(x), ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    vertical = p[:, :, :, :-2] + 2 * p[:, :, :, 1:-1] + p[:, :, :, 2:]  # smoothed along the rows
    horizontal = p[:, :, :-2] + 2 * p[:, :, 1:-1] + p[:, :, 2:]
    edges: Array = np.hypot(vertical[:, :, 2:] - vertical[:, :, :-2], horizontal[..., 2:] - horizontal[..., :-2]).max(1)
    return edges


def intensity(x: Array) -> Array:
    """|grey - median grey|, grey the mean over the channels: how much darker or brighter a pixel is than its image's median.

    Images x (N,C,H,W) -> (N,H,W). Raises ValueError for what are none.
    """
    grey = _images(x).mean(1)
    unusual: Array = np.abs(grey - np.median(grey, axis=(1, 2), keepdims=True))
    return unusual


def _images(x: Array) -> Array:
    if not is_array(x) or x.dtype.kind not in "fiu" or x.ndim != 4 or 0 in x.shape:
        got = f"{x.dtype} {x.shape}" if is_array(x) else type(x).__name__
        raise ValueError(f"x: expected images (N,C,H,W), none of these 0, got {got}")
    return to_cpu(x).astype(np.float64)
