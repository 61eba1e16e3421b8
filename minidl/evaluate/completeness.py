"""Do contributions that promise it add up to what the model says?"""

from __future__ import annotations

from minidl.array import Array, device_of, is_array, to_device
from minidl.contexts import contained
from minidl.inference.evaluation import classes_and_scores
from minidl.inference.images import as_images, check_images
from minidl.inference.scores import Target
from minidl.nn import Module


@contained
def completeness(
    model: Module,
    x: Array,
    raw: Array,
    baseline: float | Array = 0.0,
    target: Target = None,
    output: str = "logit",
    batch_size: int = 32,
) -> Array:
    """y = sum of the contributions raw - (score_c(x) - score_c(baseline)), (N,): 0 for a method that keeps the promise.

    Sundararajan, Taly and Yan 2017, "Axiomatic attribution for deep networks", section 3.

    Args:
        x: images (N,C,H,W) as in training.
        raw: (N,...), the contributions, such as `Explanation.raw` of integrated gradients or gradient x input.
        baseline: the image in which nothing is there: a number, or what broadcasts to x.
        target: the class c, one for all or one for each; None: the one that the model predicts for x.
        output: the score, as in `explain.saliency`.

    Raises TypeError and ValueError for an argument that cannot be, MemoryError where a batch does not fit into memory.
    """
    check_images(model, x, target)
    if not is_array(raw) or raw.ndim < 2 or len(raw) != len(x):
        got = raw.shape if is_array(raw) else type(raw).__name__
        raise ValueError(f"raw: expected contributions (N,...) to the {len(x)} scores, got {got}")
    classes, here = classes_and_scores(model, x, target, output, batch_size)
    _, there = classes_and_scores(model, as_images(baseline, x, "baseline"), classes, output, batch_size)
    return to_device(raw.reshape(len(raw), -1).sum(1), device_of(x)) - (here - there)
