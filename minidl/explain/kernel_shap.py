"""What each cell of an image adds to the score, on average over the orders in which the cells come into sight."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np

from minidl.arguments import Pair, count, pair
from minidl.array import Array, device_of, to_cpu, to_device
from minidl.explain.cells import cells_of, least_squares, scores_in_sight
from minidl.explain.explanation import Explanation, explainer
from minidl.inference.batches import Progress
from minidl.inference.evaluation import predict
from minidl.inference.images import as_images, check_images, number_or_array
from minidl.inference.scores import Output, Target, exact_score, targets
from minidl.nn import Module


@explainer
def kernel_shap(
    model: Module,
    x: Array,
    target: Target = None,
    output: Output = "logit",
    grid: int | Pair = 7,
    segments: Array | None = None,
    baseline: float | Array = 0.0,
    samples: int = 1000,
    batch_size: int = 32,
    seed: int = 0,
    progress: Progress = False,
) -> Explanation:
    """map_ij = phi of the cell of pixel ij, phi = argmin sum_S w(S) (v(S) - v({}) - sum_{c in S} phi_c)^2

    subject to sum_c phi_c = v(all) - v({}), where v(S) is the score with the cells S in sight and the baseline elsewhere, and
    w(S) = (M - 1) / (C(M,|S|) |S| (M - |S|)) for M cells. Over all S that is the Shapley value, the mean over all orders of
    the cells of how much the score grows when c comes. Lundberg and Lee 2017, "A unified approach to interpreting model
    predictions", theorem 2. With 2^M - 2 or more samples all S are asked once, and phi is exact. With fewer, all S of few or of
    nearly all cells are, as far as that goes, and the rest is drawn with probability ~ w, each S followed by its complement,
    which varies less: Covert and Lee 2021, "Improving KernelSHAP: practical Shapley value estimation using linear regression".
    The sum holds for any number of samples; where these leave phi open, as fewer than M do, it is the one nearest to equal
    shares. The model is a black box: no gradients.

    map: (N,H,W). raw: (N,1,H,W), phi shared by the pixels of its cell, so that raw adds up to score(x) - score(baseline);
    `delta` is what is missing from that, 0 but for rounding. params["segments"]: (N,H,W) on the CPU, each pixel's cell, from 0.

    Args:
        grid: rows and columns of cells.
        segments: (N,H,W) integers in place of the grid, the number of each pixel's segment. With scikit-image, of images of
            shape (C,H,W) in [0, 1]: `np.stack([slic(image, n_segments=50, channel_axis=0) for image in images])`.
        baseline: what hides a cell, a number or what broadcasts to x. The default 0 is the mean colour of normalised images.
        samples: subsets for each image. Images with as many cells share them.
        seed: the same subsets on every device and for every batch_size.
        target, output, batch_size, progress: as in `saliency`.

    Raises:
        TypeError, ValueError: as in `saliency`; segments that are no integers (N,H,W), and more cells than pixels.
        MemoryError: as in `saliency`.
    """
    check_images(model, x, target)
    samples, seed = count(samples, "samples"), count(seed, "seed", 0)
    grid, baseline = pair(grid, "grid", 1), number_or_array(baseline, "baseline")
    hidden = as_images(baseline, x, "baseline")
    cells = cells_of(x, grid, segments)
    logits = predict(model, x, batch_size)
    classes = targets(logits, target)
    scores = exact_score(logits, classes, output)

    sizes = [int(own.max()) + 1 for own in cells]
    drawn = {M: coalitions(M, samples, seed) for M in sorted({*sizes})}
    subsets = [np.concatenate([np.zeros((1, M), bool), drawn[M][0]]) for M in sizes]
    values = scores_in_sight(model, x, hidden, cells, subsets, classes, output, batch_size, progress, "KernelSHAP")
    map, raw, delta = np.empty(cells.shape), np.empty(cells.shape), np.empty(len(x))
    for i, (M, v, whole) in enumerate(zip(sizes, values, to_cpu(scores), strict=True)):
        phi = shapley_values(*drawn[M], v[1:] - v[0], whole - v[0])
        map[i], raw[i] = phi[cells[i]], (phi / np.bincount(cells[i].ravel()))[cells[i]]
        delta[i] = whole - v[0] - raw[i].sum()
    map, raw, delta = (to_device(a.astype(x.dtype), device_of(x)) for a in (map, raw, delta))
    settings = {
        "method": "kernel_shap",
        "output": output,
        "grid": None if segments is not None else grid,
        "segments": cells,
        "baseline": baseline,
    }
    params = settings | {"samples": samples, "seed": seed}
    return Explanation(map, raw[:, None], classes, scores.astype(x.dtype), delta, params=params)


def coalitions(cells: int, samples: int, seed: int) -> tuple[Array, Array]:
    """Subsets (n,M) bool of M cells, neither none nor all of them, and how much each counts (n,).

    The w of all subsets of s cells add up to (M - 1) / (s (M - s)). The smallest and the largest subsets, which count most, are
    all taken, size by size, as long as at least as many would be drawn; then the rest is drawn.
    """
    mass = {s: (2 - (2 * s == cells)) * (cells - 1) / (s * (cells - s)) for s in range(1, cells // 2 + 1)}  # of s and M - s
    subsets, weights, left = [np.zeros((0, cells), bool)], [np.zeros(0)], samples
    for s in list(mass):
        chosen = comb(cells, s)
        both = chosen * (2 - (2 * s == cells))
        if left * mass[s] < both * sum(mass.values()) * (1 - 1e-9):
            break
        some = np.zeros((chosen, cells), bool)
        some[np.arange(chosen)[:, None], list(combinations(range(cells), s))] = True
        subsets += [some, ~some][: both // chosen]
        weights.append(np.full(both, mass.pop(s) / both))
        left -= both
    if mass and left:
        rng, share = np.random.default_rng((seed, cells)), np.array([*mass.values()])
        size = rng.choice([*mass], -(-left // 2), p=share / share.sum())
        one = rng.random((len(size), cells)).argsort(1).argsort(1) < size[:, None]
        subsets.append(np.stack([one, ~one], 1).reshape(-1, cells)[:left])
        weights.append(np.full(left, share.sum() / left))
    return np.concatenate(subsets), np.concatenate(weights)


def shapley_values(subsets: Array, weights: Array, gains: Array, whole: float) -> Array:
    """phi (M,) from v(S) - v({}) of the subsets (n,M), gains (n,), and of all cells, whole.

    With phi = whole / M + u the constraint is sum u = 0. To rows less their mean u and u + 1 are the same, so that the shortest
    u keeps the constraint.
    """
    M = subsets.shape[1]
    u = least_squares(subsets - subsets.mean(1, keepdims=True), gains - subsets.sum(1) * whole / M, weights)
    phi: Array = whole / M + u
    return phi
