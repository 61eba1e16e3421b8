"""A linear model of the score in what of the image is in sight, true near the whole image."""

from __future__ import annotations

import numpy as np

from minidl.arguments import Pair, count, number, pair
from minidl.array import Array, device_of, to_device
from minidl.explain.cells import cells_of, least_squares, scores_in_sight
from minidl.explain.explanation import Explanation, explainer
from minidl.inference.batches import Progress
from minidl.inference.evaluation import classes_and_scores
from minidl.inference.images import as_images, check_images, number_or_array
from minidl.inference.scores import Output, Target
from minidl.nn import Module


@explainer
def lime(
    model: Module,
    x: Array,
    target: Target = None,
    output: Output = "logit",
    grid: int | Pair = 7,
    segments: Array | None = None,
    baseline: float | Array = 0.0,
    samples: int = 1000,
    kernel_width: float = 0.25,
    ridge: float = 1.0,
    batch_size: int = 32,
    seed: int = 0,
    progress: Progress = False,
) -> Explanation:
    """map_ij = w of the cell of pixel ij, (w, b) = argmin sum_k pi_k (v(z_k) - b - <w, z_k>)^2 + ridge |w|^2

    v(z) is the score with the cells where z = 1 in sight and the baseline elsewhere, pi = exp(-D^2 / kernel_width^2), and
    D = 1 - sqrt(|z| / M) is the cosine distance of z, with |z| of M cells in sight, from the whole image. The first z is the
    whole image; of the others each cell is in sight with probability 1/2. Ribeiro, Singh and Guestrin 2016, "Why should I
    trust you?: explaining the predictions of any classifier", section 3, with ridge regression on all cells, as in the
    authors' code, in place of a choice of few. The model is a black box: no gradients.

    map: (N,H,W), raw: the same, (N,1,H,W). params["segments"]: (N,H,W) on the CPU, each pixel's cell, from 0.
    params["r2"]: (N,), which share of the variance of v, weighed by pi, the linear model has; where it is small the map tells
    little.

    Args:
        samples: z for each image. Images with as many cells share them.
        kernel_width: how near is near. ridge: how much w is drawn to 0; with 0, as for an exact linear model, and too few
            samples to tell, w is the shortest.
        grid, segments, baseline, seed: as in `kernel_shap`. target, output, batch_size, progress: as in `saliency`.

    Raises TypeError and ValueError for an argument that cannot be, and MemoryError, as `kernel_shap` does.
    """
    check_images(model, x, target)
    samples, seed = count(samples, "samples"), count(seed, "seed", 0)
    kernel_width, ridge = number(kernel_width, "kernel_width", "(0, inf)"), number(ridge, "ridge", "[0, inf)")
    grid, baseline = pair(grid, "grid", 1), number_or_array(baseline, "baseline")
    hidden = as_images(baseline, x, "baseline")
    cells = cells_of(x, grid, segments)
    classes, scores = classes_and_scores(model, x, target, output, batch_size)

    sizes = [int(own.max()) + 1 for own in cells]
    drawn = {M: neighbours(M, samples, seed) for M in sorted({*sizes})}
    subsets = [drawn[M] for M in sizes]
    values = scores_in_sight(model, x, hidden, cells, subsets, classes, output, batch_size, progress, "LIME")
    raw, r2 = np.empty((len(x), 1, *cells.shape[1:])), np.empty(len(x))
    for i, (z, v) in enumerate(zip(subsets, values, strict=True)):
        pi = np.exp(-((1 - np.sqrt(z.mean(1))) ** 2) / kernel_width**2)
        z, v = z - np.average(z, 0, pi), v - np.average(v, 0, pi)  # the best b of any w
        w = least_squares(z, v, pi, ridge)
        raw[i] = w[cells[i]]
        variance = (pi * v**2).sum()
        r2[i] = 1 - (pi * (v - z @ w) ** 2).sum() / variance if variance > 0 else 1.0
    raw, r2 = (to_device(a.astype(x.dtype), device_of(x)) for a in (raw, r2))
    settings = {
        "method": "lime",
        "output": output,
        "grid": None if segments is not None else grid,
        "segments": cells,
        "baseline": baseline,
        "samples": samples,
    }
    params = settings | {"kernel_width": kernel_width, "ridge": ridge, "seed": seed, "r2": r2}
    return Explanation(raw[:, 0], raw, classes, scores, params=params)


def neighbours(cells: int, samples: int, seed: int) -> Array:
    """(samples,M) bool: all M cells in sight, then each with probability 1/2."""
    z = np.random.default_rng((seed, cells)).random((samples, cells)) < 0.5
    z[0] = True
    return z
