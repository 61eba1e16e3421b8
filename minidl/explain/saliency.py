"""The gradient of the score in the image: which pixels, changed a little, change it most."""

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
def saliency(
    model: Module,
    x: Array,
    target: Target = None,
    output: str = "logit",
    reduce: str = "maxabs",
    batch_size: int = 32,
    progress: Progress = False,
) -> Explanation:
    """raw = d score_c / d x, and map_ij = max_k |raw_kij|, the largest over the channels.

    Simonyan, Vedaldi and Zisserman 2014, "Deep inside convolutional networks", section 3: the image is x (N,C,H,W),
    normalised as in training; no weight gradient is computed, and batch norm uses its running statistics.

    Args:
        target: the class c, one for all or one for each image; None: the one that the model predicts.
        output: the score: "logit" S_c, "prob" p_c, "logprob" log p_c or "margin" S_c - max S_k of the others. The gradient of
            p_c = p_c (dS_c - sum_k p_k dS_k) vanishes where the model is sure, and no longer tells why it is.
        reduce: over the channels: "maxabs", "sumabs", or "sum", which keeps the sign.
        batch_size: images in memory at a time.
        progress: False, True (a bar), or a function of (done, total).

    Raises:
        TypeError, ValueError: an argument that cannot be, named with what came and what was expected.
        MemoryError: `batch_size` images at a time do not fit into memory; the message says what would.
    """
    check_images(model, x, target)
    check_reduce(reduce)
    raw, classes, scores = input_gradients(model, x, target, output, batch_size, progress, "saliency")
    params = {"method": "saliency", "output": output, "reduce": reduce}
    return Explanation(over_channels(raw, reduce), raw, classes, scores, params=params)
