"""Where a layer's features speak for the class."""

from __future__ import annotations

from collections.abc import Callable

from minidl import ops
from minidl.analysis import watch
from minidl.array import Array, array_module, to_cpu
from minidl.core import Tensor, gradients, no_grad, walk
from minidl.explain.explanation import NAMES, Explanation, explainer
from minidl.inference.batches import Progress, batches, of_part
from minidl.inference.evaluation import evaluation_mode, logits_of
from minidl.inference.images import check_images
from minidl.inference.scores import Output, Target, score, targets
from minidl.nn import Module
from minidl.ops.shape import Concat


@explainer
def grad_cam(
    model: Module,
    x: Array,
    target: Target = None,
    layer: str | None = None,
    output: Output = "logit",
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
            one (`ops.unfused`); of one that is called several times, the last output. None: the last one with spatial extent
            that leads to the score: not one of another head.
        target, output, batch_size, progress: as in `saliency`.

    Raises:
        ValueError: no layer of that name has spatial extent; the message lists those that have.
        TypeError, ValueError, MemoryError: as in `saliency`.
    """
    return class_activation(_weighted, "grad_cam", model, x, target, layer, output, batch_size, progress)


def _weighted(A: Array, gA: Array) -> Array:
    alpha = gA.mean((2, 3), keepdims=True)  # (n,K,1,1)
    return (alpha * A).sum(1, keepdims=True)


def class_activation(
    combine: Callable[[Array, Array], Array],
    method: str,
    model: Module,
    x: Array,
    target: Target,
    layer: str | None,
    output: Output,
    batch_size: int,
    progress: Progress,
) -> Explanation:
    """raw = combine(A, gA) (N,1,h,w) of what the layer returns and the gradient of the score there, both (N,K,h,w), and
    map = max(raw, 0), resized to the image."""
    check_images(model, x, target)
    parts, chosen = [], dict[str, int]()
    for part in batches(len(x), batch_size, progress, NAMES[method]):
        with evaluation_mode(model, batch_size), ops.unfused():
            name, A, classes, scores = at_layer(model, x[part], of_part(target, part), layer, output, chosen)
            (gA,) = gradients(scores, [A], array_module(x).ones_like(scores.data))
            parts.append((combine(A.data, gA), classes, scores.data))
    raw, classes, scores = (array_module(x).concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Explanation(enlarged(raw, x), raw, classes, scores, params={"method": method, "layer": name, "output": output})


def at_layer(
    model: Module, x: Array, target: Target, layer: str | None, output: Output, chosen: dict[str, int]
) -> tuple[str, Tensor, Array, Tensor]:
    """The name of the layer, what it returns (N,K,h,w), classes and scores (N,) of one batch.

    chosen: the layers of the batches before, each with a class that it leads to; that of this one is added.
    """
    outputs, logits = spatial_outputs(model, Tensor(x, requires_grad=True))
    classes = targets(logits.data, target)
    scores = score(logits, classes, output)
    if layer is None:
        for name, c in last_layers(scores, classes, outputs).items():
            chosen.setdefault(name, c)
    name = _only(chosen) if layer is None else _choose(layer, outputs)
    return name, outputs[name], classes, scores


def enlarged(raw: Array, x: Array) -> Array:
    """max(raw, 0) of (N,1,h,w), resized to the images x (N,C,H,W): (N,H,W)"""
    with no_grad():
        return ops.resize(ops.relu(Tensor(raw)), x.shape[2:]).data[:, 0]


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


def last_layers(scores: Tensor, classes: Array, outputs: dict[str, Tensor]) -> dict[str, int]:
    """The last of the layers that leads to the scores (N,), with a class that it leads to; of several heads, those of each.

    Raises ValueError where no layer does.
    """
    xp = array_module(classes)
    name, joined = last_layer(scores, xp.ones_like(scores.data), outputs)
    if not joined:
        return {name: int(classes[0])}
    found = dict[str, int]()
    for c in sorted({*to_cpu(classes).tolist()}):
        found.setdefault(last_layer(scores, (classes == c).astype(scores.dtype), outputs)[0], c)
    return found


def last_layer(scores: Tensor, gy: Array, outputs: dict[str, Tensor]) -> tuple[str, bool]:
    """The first layer on the way back from the scores with gradient gy (N,), and whether something was joined behind it.

    The way leads into no part of a `concat` that has no gradient: it belongs to another head, whose logits stand beside.
    """
    names = {y.op: name for name, y in outputs.items() if y.op is not None}
    joined = False
    for step in walk(scores, gy, leaves={}):
        if step.op in names:
            return names[step.op], joined
        if isinstance(step.op, Concat):
            joined = True
            if any(g is not None and g.any() for g in step.gxs):
                step.gxs = [g if g is not None and g.any() else None for g in step.gxs]
    if unchanged := [name for name, y in outputs.items() if y.op is None and y.requires_grad]:
        return unchanged[-1], joined  # it returned the image itself, as a dropout does
    raise ValueError(
        "layer: no layer of this model that leads to the score has an output with spatial extent, (N,K,h,w) with h w > 1"
    )


def _only(chosen: dict[str, int]) -> str:
    if len(chosen) > 1:
        ways = ", ".join(f"class {c} by {name!r}" for name, c in chosen.items())
        raise ValueError(f"layer: one layer was expected to lead to all classes asked for, got {ways}; name one, or ask apart")
    return next(iter(chosen))


def _choose(layer: str, outputs: dict[str, Tensor]) -> str:
    if layer not in outputs:
        names = ", ".join(f"{name} {y.shape[1:]}" for name, y in outputs.items())
        raise ValueError(f"layer: {layer!r} is none of those with spatial extent, which are {names}")
    return layer
