"""The gradient times the image: what each pixel contributes, were the model linear."""

from __future__ import annotations

from minidl.array import Array
from minidl.contexts import contained
from minidl.explain.explanation import Explanation
from minidl.inference.batches import Progress
from minidl.inference.gradients import input_gradients
from minidl.inference.images import check_images, check_reduce, over_channels
from minidl.inference.scores import Target
from minidl.nn import Module


@contained
def grad_times_input(
    model: Module,
    x: Array,
    target: Target = None,
    output: str = "logit",
    reduce: str = "sum",
    batch_size: int = 32,
    progress: Progress = False,
) -> Explanation:
    """raw = x * d score_c / d x, and map_ij = sum_k raw_kij.

    Shrikumar, Greenside, Shcherbina and Kundaje 2016, "Not just a black box". For a model without biases whose other parts are
    linear, ReLUs or max pools, raw sums to the score. A pixel whose value is 0, which after normalising is the mean colour,
    gets 0 whatever it means. The arguments, and what is raised, are those of `saliency`.
    """
    check_images(model, x, target)
    check_reduce(reduce)
    gx, classes, scores = input_gradients(model, x, target, output, batch_size, progress, "gradient x input")
    params = {"method": "grad_times_input", "output": output, "reduce": reduce}
    raw = x * gx
    return Explanation(over_channels(raw, reduce), raw, classes, scores, params=params)
