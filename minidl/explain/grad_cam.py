"""Where a layer's features speak for the class."""

from __future__ import annotations

from minidl import ops
from minidl.analysis import watch
from minidl.array import Array, array_module
from minidl.contexts import contained
from minidl.core import Tensor, gradients, no_grad
from minidl.explain.explanation import Explanation
from minidl.inference.batches import Progress, batches, of_part
from minidl.inference.evaluation import evaluation_mode, logits_of
from minidl.inference.images import check_images
from minidl.inference.scores import Target, score, targets
from minidl.nn import Module


@contained
def grad_cam(
    model: Module,
    x: Array,
    target: Target = None,
    layer: str | None = None,
    output: str = "logit",
    batch_size: int = 32,
    progress: Progress = False,
) -> Explanation:
    """raw = sum_k alpha_k A_k, alpha_k = 1/(h w) sum_ij d score_c / d A_kij, and map = max(raw, 0), resized to the image

    A (N,K,h,w) is what the layer returns; raw is (N,1,h,w), and the resizing is bilinear. Selvaraju et al. 2017, "Grad-CAM:
    visual explanations from deep networks", section 3. Where A goes through global average pooling into a linear layer, raw
    is its predecessor CAM (Zhou et al. 2016, "Learning deep features for discriminative localization"), but for the factor
    1/(h w).

    Args:
        x: the images (N,C,H,W), as in training.
        layer: its dotted name, such as "layer3.0". Every layer that is called with its name counts, while the ops run one by
            one (`ops.unfused`); of one that is called several times, the last output. None: the last one with spatial extent.
        target, output, batch_size, progress: as in `saliency`.

    Raises:
        ValueError: no layer of that name has spatial extent; the message lists those that have.
        TypeError, ValueError, MemoryError: as in `saliency`.
    """
    check_images(model, x, target)
    parts = []
    for part in batches(len(x), batch_size, progress, "Grad-CAM"):
        with evaluation_mode(model, batch_size), ops.unfused():
            image = Tensor(x[part], requires_grad=True)
            outputs, logits = spatial_outputs(model, image)
            name = _choose(layer, outputs)
            classes = targets(logits.data, of_part(target, part))
            scores = score(logits, classes, output)
            A = outputs[name]
            (gA,) = gradients(scores, [A], array_module(x).ones_like(scores.data))
            alpha = gA.mean((2, 3), keepdims=True)  # (n,K,1,1)
            parts.append(((alpha * A.data).sum(1, keepdims=True), classes, scores.data))
    raw, classes, scores = (array_module(x).concatenate(arrays) for arrays in zip(*parts, strict=True))
    with no_grad():
        maps = ops.resize(ops.relu(Tensor(raw)), x.shape[2:]).data[:, 0]
    return Explanation(maps, raw, classes, scores, params={"method": "grad_cam", "layer": name, "output": output})


def spatial_outputs(model: Module, image: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """The outputs of layers that have spatial extent, (N,K,h,w) with h w > 1, by name, last call last; and the logits."""
    outputs: dict[str, Tensor] = {}

    def after(name: str, y: Tensor) -> None:
        if name and isinstance(y, Tensor) and y.ndim == 4 and y.shape[2] * y.shape[3] > 1:
            outputs.pop(name, None)  # a layer that is called again goes to the end
            outputs[name] = y

    with watch(model, after=after):
        logits = logits_of(model, image)
    return outputs, logits


def _choose(layer: str | None, outputs: dict[str, Tensor]) -> str:
    if not outputs:
        raise ValueError("layer: no layer of this model has an output with spatial extent, (N,K,h,w) with h w > 1")
    if layer is None:
        return list(outputs)[-1]
    if layer not in outputs:
        names = ", ".join(f"{name} {y.shape[1:]}" for name, y in outputs.items())
        raise ValueError(f"layer: {layer!r} is none of those with spatial extent, which are {names}")
    return layer
