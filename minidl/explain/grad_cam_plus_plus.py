"""Grad-CAM with weights for which several places of one feature count as much as a single one."""

from __future__ import annotations

from minidl.array import Array
from minidl.explain.explanation import Explanation, explainer
from minidl.explain.grad_cam import class_activation
from minidl.inference.batches import Progress
from minidl.inference.scores import Output, Target
from minidl.nn import Module


@explainer
def grad_cam_plus_plus(
    model: Module,
    x: Array,
    target: Target = None,
    layer: str | None = None,
    output: Output = "logit",
    batch_size: int = 32,
    progress: Progress = False,
) -> Explanation:
    """raw = sum_k w_k A_k, w_k = sum_ij max(g_kij, 0) / (2 + g_kij sum_ab A_kab), g = d score_c / d A

    map = max(raw, 0), resized to the image; raw is (N,1,h,w).
    Chattopadhyay, Sarkar, Howlader and Balasubramanian 2018, "Grad-CAM++: generalized gradient-based visual explanations for
    deep convolutional networks", section 3. Their alpha = g^2 / (2 g^2 + sum A g^3) is 1 / (2 + g sum A). Of
    their score exp(S_c) the factor exp(S_c), one for the whole map, is left out. A is what a ReLU returns, not below 0.

    Raises:
        ValueError: a layer with 2 + g sum A <= 0 where g > 0, which takes features far below 0.
        TypeError, ValueError, MemoryError: as in `grad_cam`, whose arguments these are.
    """
    return class_activation(_plus_plus, "grad_cam_plus_plus", model, x, target, layer, output, batch_size, progress)


def _plus_plus(A: Array, gA: Array) -> Array:
    rising = gA > 0
    below = 2 + gA * A.sum((2, 3), keepdims=True)
    if bool((rising & (below <= 0)).any()):
        raise ValueError(
            "layer: Grad-CAM++ is defined for features that are not below 0, and divides by 2 + g sum A, which is "
            f"{float(below[rising].min()):.3g} here; expected a layer behind a ReLU"
        )
    w = (gA * rising / (below * rising + ~rising)).sum((2, 3), keepdims=True)  # (n,K,1,1)
    return (w * A).sum(1, keepdims=True)
