"""Grad-CAM without the mean over the layer: each place weighs with its own gradient."""

from __future__ import annotations

from minidl.array import Array
from minidl.explain.explanation import Explanation, explainer
from minidl.explain.grad_cam import class_activation
from minidl.inference.batches import Progress
from minidl.inference.scores import Output, Target
from minidl.nn import Module


@explainer
def hires_cam(
    model: Module,
    x: Array,
    target: Target = None,
    layer: str | None = None,
    output: Output = "logit",
    batch_size: int = 32,
    progress: Progress = False,
) -> Explanation:
    """raw = sum_k A_k d score_c / d A_k, place by place, and map = max(raw, 0), resized to the image

    Draelos and Carin 2020, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks". raw
    (N,1,h,w) sums to the score but for the biases behind the layer, where the net from there on is piecewise linear. Where A
    goes through global average pooling into a linear layer, it is Grad-CAM. The arguments, and what is raised, are those of
    `grad_cam`.
    """
    return class_activation(_by_place, "hires_cam", model, x, target, layer, output, batch_size, progress)


def _by_place(A: Array, gA: Array) -> Array:
    return (gA * A).sum(1, keepdims=True)
