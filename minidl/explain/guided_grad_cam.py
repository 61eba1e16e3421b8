"""The fine lines of guided backprop, where Grad-CAM finds the class."""

from __future__ import annotations

from dataclasses import replace

from minidl.array import Array
from minidl.explain.explanation import Explanation, explainer
from minidl.explain.grad_cam import grad_cam
from minidl.explain.guided import guided_backprop
from minidl.inference.batches import Progress
from minidl.inference.images import check_images, check_reduce, over_channels
from minidl.inference.scores import Output, Target
from minidl.nn import Module


@explainer
def guided_grad_cam(
    model: Module,
    x: Array,
    target: Target = None,
    layer: str | None = None,
    output: Output = "logit",
    reduce: str = "maxabs",
    batch_size: int = 32,
    progress: Progress = False,
) -> Explanation:
    """raw_kij = guided_kij cam_ij, of `guided_backprop` and the map of `grad_cam` for x (N,C,H,W); map_ij = max_k |raw_kij|

    Selvaraju et al. 2017, "Grad-CAM: visual explanations from deep networks", section 3.1. Guided backprop hardly knows the
    class (see there): which pixels are shown comes from Grad-CAM, what they look like from the net's first filters.

    Args:
        layer: as in `grad_cam`. target, output, reduce, batch_size, progress: as in `saliency`.

    Raises TypeError, ValueError and MemoryError as `grad_cam` and `saliency` do.
    """
    check_images(model, x, target)
    check_reduce(reduce)
    cam = grad_cam(model, x, target, layer, output, batch_size)
    guided = guided_backprop(model, x, cam.target, output, batch_size=batch_size, progress=progress)
    raw = guided.raw * cam.map[:, None]
    params = {"method": "guided_grad_cam", "layer": cam.params["layer"], "output": output, "reduce": reduce}
    return replace(cam, map=over_channels(raw, reduce), raw=raw, params=params)
