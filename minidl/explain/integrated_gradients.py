"""Gradients along the line from a baseline to the image: contributions that add up to the change of the score."""

from __future__ import annotations

import numpy as np

from minidl.arguments import count
from minidl.array import Array, array_module
from minidl.explain.explanation import Explanation, explainer
from minidl.inference.batches import Progress
from minidl.inference.evaluation import classes_and_scores
from minidl.inference.gradients import gradients_at
from minidl.inference.images import as_images, check_images, check_reduce, number_or_array, over_channels
from minidl.inference.scores import Output, Target
from minidl.nn import Module


@explainer
def integrated_gradients(
    model: Module,
    x: Array,
    target: Target = None,
    output: Output = "logit",
    reduce: str = "sum",
    baseline: float | Array = 0.0,
    steps: int = 50,
    batch_size: int = 32,
    progress: Progress = False,
) -> Explanation:
    """raw = (x - x0) * integral from 0 to 1 of d score_c / d x at x0 + a (x - x0) da

    Sundararajan, Taly and Yan 2017, "Axiomatic attribution for deep networks", section 3. They sum to S(x) - S(x0), and what
    is missing from that, because the integral is a sum over so many points, is `delta`.

    Args:
        baseline: x0, a number or what broadcasts to x, such as (C,1,1). The default 0 is the mean colour of images that were
            normalised. A pixel that is as in the baseline gets 0.
        steps: of Gauss-Legendre quadrature, which is exact for polynomials in a up to degree 2 steps - 1.
        target, output, reduce, batch_size, progress: as in `saliency`; the class is that of x.

    Raises TypeError and ValueError for an argument that cannot be, and MemoryError, as `saliency` does.
    """
    check_images(model, x, target)
    check_reduce(reduce)
    baseline = number_or_array(baseline, "baseline")
    start = as_images(baseline, x, "baseline")
    steps = count(steps, "steps")
    a, w = quadrature(steps)
    classes, scores = classes_and_scores(model, x, target, output, batch_size)

    def point(part: slice, k: int) -> Array:
        way: Array = x[part] - start[part]
        way *= a[k]  # in place, for images may be large
        way += start[part]
        return way

    mean = array_module(x).zeros_like(x)
    for part, k, gx in gradients_at(model, point, steps, classes, output, batch_size, progress, "integrated gradients"):
        mean[part] += w[k] * gx
    raw = (x - start) * mean
    delta = scores - classes_and_scores(model, start, classes, output, batch_size)[1] - raw.sum((1, 2, 3))
    params = {"method": "integrated_gradients", "output": output, "reduce": reduce, "baseline": baseline, "steps": steps}
    return Explanation(over_channels(raw, reduce), raw, classes, scores, delta, params=params)


def quadrature(steps: int) -> tuple[list[float], list[float]]:
    """Places a_k in (0, 1) and weights w_k of Gauss and Legendre: integral_0^1 f(a) da = sum_k w_k f(a_k)."""
    a, w = np.polynomial.legendre.leggauss(steps)  # for -1 to 1
    return ((a + 1) / 2).tolist(), (w / 2).tolist()
