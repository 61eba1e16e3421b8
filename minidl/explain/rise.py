"""The mean of random masks, each weighed by what the model still sees through it."""

from __future__ import annotations

import numpy as np

from minidl import ops
from minidl.arguments import count, number
from minidl.array import Array, array_module
from minidl.contexts import contained
from minidl.core import Tensor, no_grad
from minidl.explain.explanation import Explanation
from minidl.inference.batches import Progress, gather_runs, runs_in_batches, split_runs
from minidl.inference.evaluation import classes_and_scores, evaluation_mode, logits_of
from minidl.inference.images import as_images, check_images, number_or_array
from minidl.inference.scores import Target, exact_score
from minidl.nn import Module


@contained
def rise(
    model: Module,
    x: Array,
    target: Target = None,
    output: str = "prob",
    samples: int = 2000,
    grid: int = 7,
    p: float = 0.5,
    baseline: float | Array = 0.0,
    batch_size: int = 32,
    seed: int = 0,
    progress: Progress = False,
) -> Explanation:
    """map_ij = 1/(n p) sum_k (s_k - mean s) m_kij, s_k = score(m_k x + (1 - m_k) baseline); raw, (N,1,H,W): that of s_k itself

    Petsiuk, Das and Saenko 2018, "RISE: randomized input sampling for explanation of black-box models", section 3; there, n is
    4000 to 8000. raw, which is what they define, is the mean score with pixel ij in sight; map compares that with the mean of
    all scores, is positive where seeing a pixel helps, and does not show which pixels happened to be in sight more often. It
    is raw less mean s times 1/(n p) sum_k m_kij, which is about 1: in expectation, the paper's map less a constant. Of a model
    that is very sure raw is that constant to most of its digits; so map is summed from the differences, in float64. The masks m
    are `random_mask`; all images share them. The model is a black box: no gradients.

    Args:
        samples: n. grid: cells along each side of a mask. p: the share of cells that let the image through.
        baseline: what is seen elsewhere, a number or what broadcasts to x. The default 0 is the mean colour of normalised
        images.
        seed: the same masks on every device and for every batch_size.
        target, output, batch_size, progress: as in `saliency`.

    Raises TypeError and ValueError for an argument that cannot be, and MemoryError, as `saliency` does.
    """
    check_images(model, x, target)
    samples, grid, seed = count(samples, "samples"), count(grid, "grid"), count(seed, "seed", 0)
    p = number(p, "p", "(0, 1)")
    xp, (N, _, H, W) = array_module(x), x.shape
    baseline = number_or_array(baseline, "baseline")
    cover = as_images(baseline, x, "baseline")
    classes, scores = classes_and_scores(model, x, target, output, batch_size)
    raw, covariance, mean_mask = (xp.zeros(shape) for shape in ((N, 1, H, W), (N, H, W), (H, W)))  # float64
    mean = xp.zeros((N, 1, 1))
    for runs in runs_in_batches(N, samples, batch_size, progress, "RISE"):
        with evaluation_mode(model, batch_size), no_grad():
            masks = xp.asarray(np.stack([random_mask((H, W), grid, p, (seed, k)) for _, k in runs]), x.dtype)
            images = [mask * x[part] + (1 - mask) * cover[part] for mask, (part, _) in zip(masks, runs, strict=True)]
            seen = exact_score(logits_of(model, xp.concatenate(images)).data, gather_runs(classes, runs), output)
            for mask, shares, (part, k) in zip(masks, split_runs(seen[:, None, None], runs), runs, strict=True):
                raw[part, 0] += shares / (samples * p) * mask
                if part.start == 0:  # all images meet mask k before the next
                    mean_mask += (mask - mean_mask) / (k + 1)
                step = shares - mean[part]
                covariance[part] += step * (mask - mean_mask)  # sum_k (s_k - mean s) m_k so far (Welford 1962)
                mean[part] += step / (k + 1)
    params = {"method": "rise", "output": output, "samples": samples, "grid": grid, "p": p, "baseline": baseline, "seed": seed}
    map = (covariance / (samples * p)).astype(x.dtype)
    return Explanation(map, raw.astype(x.dtype), classes, scores, params=params)


def random_mask(size: tuple[int, int], grid: int, p: float, seed: int | tuple[int, ...]) -> Array:
    """(H,W) float64 in [0, 1], p in the mean: grid x grid cells, each open with probability p, enlarged and shifted.

    The cells become ceil(H/grid) by ceil(W/grid) pixels, which is one cell more than the image in each direction, bilinear;
    the image is a window of that, anywhere.
    """
    rng, (H, W) = np.random.default_rng(seed), size
    h, w = -(-H // grid), -(-W // grid)  # of a cell
    cells = (rng.random((1, 1, grid, grid)) < p).astype(np.float64)
    top, left = rng.integers(0, h), rng.integers(0, w)
    with no_grad():
        large = ops.resize(Tensor(cells), ((grid + 1) * h, (grid + 1) * w)).data[0, 0]
    return large[top : top + H, left : left + W]
