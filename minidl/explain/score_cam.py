"""The features of a layer, each weighed with the score of the image seen through it."""

from __future__ import annotations

from minidl import ops
from minidl.array import Array, array_module
from minidl.core import Tensor, no_grad
from minidl.explain.explanation import Explanation, explainer
from minidl.explain.grad_cam import at_layer, enlarged
from minidl.inference.batches import Progress, batches, gather_runs, of_part, runs_in_batches, split_runs
from minidl.inference.evaluation import evaluation_mode, logits_of
from minidl.inference.images import check_images
from minidl.inference.scores import Output, Target, exact_score
from minidl.nn import Module


@explainer
def score_cam(
    model: Module,
    x: Array,
    target: Target = None,
    layer: str | None = None,
    output: Output = "logit",
    batch_size: int = 32,
    progress: Progress = False,
) -> Explanation:
    """raw = sum_k alpha_k A_k, alpha = softmax_k score_c(x H_k), and map = max(raw, 0), resized to the image

    H_k (H,W) is feature k of the layer, resized to the image and brought to [0, 1] by its own least and largest value; one
    that is the same everywhere hides nothing, and has alpha 0. raw is (N,1,h,w). Wang et al. 2020, "Score-CAM: score-weighted
    visual explanations for convolutional neural networks", section 3.2; the score of their baseline cancels in the softmax. No
    gradients, but one forward pass for each of the K features of an image.

    The arguments, and what is raised, are those of `grad_cam`. With output="prob" all alpha are nearly the same.
    """
    check_images(model, x, target)
    xp, (H, W) = array_module(x), x.shape[2:]
    parts, chosen = [], dict[str, int]()
    for part in batches(len(x), batch_size):
        with evaluation_mode(model, batch_size), ops.unfused():
            name, features, asked, score = at_layer(model, x[part], of_part(target, part), layer, output, chosen)
            parts.append((features.data, asked, score.data))
    A, classes, scores = (xp.concatenate(arrays) for arrays in zip(*parts, strict=True))
    N, K = A.shape[:2]
    low, high = (bound((2, 3), keepdims=True) for bound in (A.min, A.max))
    through = xp.zeros((N, K))  # the scores, float64
    for runs in runs_in_batches(N, K, batch_size, progress, "Score-CAM"):
        with evaluation_mode(model, batch_size), no_grad():
            masks = xp.concatenate([_mask(A[part, k : k + 1], (H, W)) for part, k in runs])
            seen = exact_score(logits_of(model, masks * gather_runs(x, runs)).data, gather_runs(classes, runs), output)
            for share, (part, k) in zip(split_runs(seen, runs), runs, strict=True):
                through[part, k] = share
    varies = (high > low)[:, :, 0, 0]
    top = xp.where(varies, through, through.min(1, keepdims=True)).max(1, keepdims=True)
    alpha = varies * xp.exp(xp.minimum(through - top, 0))
    alpha /= xp.maximum(alpha.sum(1, keepdims=True), 1)  # at least 1, that of the largest, where any varies
    raw = (alpha.astype(A.dtype)[:, :, None, None] * A).sum(1, keepdims=True)
    return Explanation(enlarged(raw, x), raw, classes, scores, params={"method": "score_cam", "layer": name, "output": output})


def _mask(A: Array, size: tuple[int, int]) -> Array:
    """(n,1,h,w) -> (n,1,H,W) in [0, 1]; 0 where all of a feature is the same"""
    large = ops.resize(Tensor(A), size).data
    low, high = large.min((2, 3), keepdims=True), large.max((2, 3), keepdims=True)
    return (large - low) / (high - low + (high == low))
