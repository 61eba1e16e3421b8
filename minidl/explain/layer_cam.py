"""The features of a layer where more of them would raise the score."""

from __future__ import annotations

from minidl.array import Array
from minidl.explain.explanation import Explanation, explainer
from minidl.explain.grad_cam import class_activation
from minidl.inference.batches import Progress
from minidl.inference.scores import Output, Target
from minidl.nn import Module


@explainer
def layer_cam(
    model: Module,
    x: Array,
    target: Target = None,
    layer: str | None = None,
    output: Output = "logit",
    batch_size: int = 32,
    progress: Progress = False,
) -> Explanation:
    """raw = sum_k max(d score_c / d A_k, 0) A_k, place by place, and map = max(raw, 0), resized to the image

    Jiang, Zhang, Hou, Cheng and Wei 2021, "LayerCAM: exploring hierarchical class activation maps for localization". raw is
    (N,1,h,w). As each place has its own weight, it is of use in early layers, too, whose gradients differ from place to place.
    The arguments, and what is raised, are those of `grad_cam`.
    """
    return class_activation(_positive, "layer_cam", model, x, target, layer, output, batch_size, progress)


def _positive(A: Array, gA: Array) -> Array:
    return (gA * (gA > 0) * A).sum(1, keepdims=True)
