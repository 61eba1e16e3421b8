"""Gradients of the image under noise: their mean."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from minidl.arguments import count, number
from minidl.array import Array, array_module
from minidl.contexts import contained
from minidl.explain.explanation import Explanation
from minidl.inference.batches import Progress
from minidl.inference.evaluation import classes_and_scores
from minidl.inference.gradients import gradients_at
from minidl.inference.images import check_images, check_reduce, over_channels
from minidl.inference.scores import Target
from minidl.nn import Module


@contained
def smoothgrad(
    model: Module,
    x: Array,
    target: Target = None,
    output: str = "logit",
    reduce: str = "maxabs",
    samples: int = 50,
    noise: float = 0.15,
    batch_size: int = 32,
    seed: int = 0,
    progress: Progress = False,
) -> Explanation:
    """raw = 1/n sum_k d score_c / d x at x + e_k, e_k ~ N(0, sigma^2), sigma = noise * (max x - min x) of each image.

    Smilkov, Thorat, Kim, Viegas and Wattenberg 2017, "SmoothGrad: removing noise by adding noise". The class is that of the
    image without noise. All images share the n draws, so that an image's map does not depend on those beside it.

    Args:
        samples: n. noise: the share of the range. seed: the same numbers on every device and for every batch_size.
        target, output, reduce, batch_size, progress: as in `saliency`.

    Raises TypeError and ValueError for an argument that cannot be, and MemoryError, as `saliency` does.
    """
    check_reduce(reduce)
    samples, noise, seed = settings(samples, noise, seed)
    classes, scores, gradients = noisy_gradients(
        model, x, target, output, samples, noise, batch_size, seed, progress, "SmoothGrad"
    )
    raw = array_module(x).zeros_like(x)
    for part, _, gx in gradients:
        raw[part] += gx / samples
    params = {"method": "smoothgrad", "output": output, "reduce": reduce, "samples": samples, "noise": noise, "seed": seed}
    return Explanation(over_channels(raw, reduce), raw, classes, scores, params=params)


def settings(samples: int, noise: float, seed: int) -> tuple[int, float, int]:
    """The three of them, checked."""
    return count(samples, "samples"), number(noise, "noise", "[0, inf)"), count(seed, "seed", 0)


def noisy_gradients(
    model: Module,
    x: Array,
    target: Target,
    output: str,
    samples: int,
    noise: float,
    batch_size: int,
    seed: int,
    progress: Progress,
    name: str,
) -> tuple[Array, Array, Iterator[tuple[slice, int, Array]]]:
    """Classes and scores of the images x, and (part, k, gradients of these images under the k-th draw of the noise)."""
    check_images(model, x, target)
    xp = array_module(x)
    classes, scores = classes_and_scores(model, x, target, output, batch_size)
    sigma = noise * (x.max((1, 2, 3), keepdims=True) - x.min((1, 2, 3), keepdims=True))  # (N,1,1,1)

    def point(part: slice, k: int) -> Array:
        e = np.random.default_rng((seed, k)).standard_normal(x.shape[1:]).astype(x.dtype)
        return x[part] + sigma[part] * xp.asarray(e)

    return classes, scores, gradients_at(model, point, samples, classes, output, batch_size, progress, name)
