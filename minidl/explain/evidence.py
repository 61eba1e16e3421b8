"""Evidence for each of several answers: one map for every output head of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from minidl import ops
from minidl.arguments import mapping, number
from minidl.array import Array
from minidl.contexts import contained
from minidl.core import Tensor, no_grad
from minidl.explain.explanation import Explanation
from minidl.explain.saliency import saliency
from minidl.inference.batches import Progress
from minidl.inference.evaluation import evaluation_mode
from minidl.inference.heads import Head, heads_of
from minidl.inference.images import check_images
from minidl.inference.scores import Output, Target
from minidl.nn import Module


@contained
def evidence_maps(
    model: Module,
    x: Array,
    target: Mapping[str, Target] | None = None,
    output: Output = "logit",
    sigma: float | None = None,
    batch_size: int = 32,
    progress: Progress = False,
) -> dict[str, Explanation]:
    """For each head of the model, map = max_k |d score_c / d x_k|, smoothed by a Gaussian, c the class that the head predicts.

    In the style of the evidence hotspots of Jamaludin, Kadir and Zisserman 2017, "SpineNet: automated classification and
    evidence visualization in spinal MRIs": a style, not a reproduction. Draw them over the image with `Explanation.plot`.
    raw is the gradient, not smoothed.

    Args:
        x: the images (N,C,H,W), as in training.
        target: classes by the name of the head, each as in `saliency`; heads that are not there, and None: what they predict.
        sigma: of the Gaussian, in pixels; by default a sixteenth of the shorter side.
        output, batch_size, progress: as in `saliency`.

    Raises:
        ValueError: the model returns something that has no heads (see `Head`), or `target` names a head that it has not.
        TypeError, ValueError, MemoryError: as in `saliency`.
    """
    check_images(model, x)
    asked = {} if target is None else dict(mapping(target, "target", "head -> class"))
    with evaluation_mode(model, 1), no_grad():
        names = list(heads_of(model(x[:1])))
    if unknown := sorted(asked.keys() - set(names)):
        raise ValueError(f"target: the model has the heads {names}, got {unknown}")
    sigma = min(x.shape[2:]) / 16 if sigma is None else number(sigma, "sigma", "(0, inf)")
    found = {}
    for name in names:
        plain = saliency(Head(model, name), x, asked.get(name), output, "maxabs", batch_size, progress)
        with no_grad():
            smooth = ops.gaussian_blur(Tensor(plain.map[:, None]), sigma).data[:, 0]
        params = {"method": "evidence_maps", "head": name, "output": output, "sigma": sigma}
        found[name] = replace(plain, map=smooth, params=params)
    return found
