"""Gradients of the image under noise: their variance."""

from __future__ import annotations

from minidl.array import Array, array_module
from minidl.contexts import contained
from minidl.explain.explanation import Explanation
from minidl.explain.smoothgrad import noisy_gradients, settings
from minidl.inference.batches import Progress
from minidl.inference.images import check_reduce, over_channels
from minidl.inference.scores import Target
from minidl.nn import Module


@contained
def vargrad(
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
    """raw = 1/n sum_k (g_k - mean g)^2, g_k the gradients whose mean `smoothgrad` takes: where they depend on the noise.

    Adebayo, Gilmer, Goodfellow and Kim 2018, "Local explanation methods for deep neural networks lack sensitivity to parameter
    values". Not below 0, and 0 for a linear model. The arguments, and what is raised, are those of `smoothgrad`.
    """
    check_reduce(reduce)
    samples, noise, seed = settings(samples, noise, seed)
    classes, scores, gradients = noisy_gradients(
        model, x, target, output, samples, noise, batch_size, seed, progress, "VarGrad"
    )
    mean, squares = array_module(x).zeros_like(x), array_module(x).zeros_like(x)
    for part, k, gx in gradients:  # Welford 1962: no difference of large numbers
        step = gx - mean[part]
        mean[part] += step / (k + 1)
        squares[part] += step * (gx - mean[part])
    raw = squares / samples
    params = {"method": "vargrad", "output": output, "reduce": reduce, "samples": samples, "noise": noise, "seed": seed}
    return Explanation(over_channels(raw, reduce), raw, classes, scores, params=params)
