"""The score, shared out over the pixels: each layer gives its inputs what they contributed."""

from __future__ import annotations

from typing import Any

from minidl import ops
from minidl.arguments import wrong
from minidl.array import Array, array_module, is_array
from minidl.core import Tensor, walk
from minidl.explain.explanation import Explanation, explainer
from minidl.flow.relevance import Bounds, Relevance, settings
from minidl.inference.batches import Progress, batches, of_part
from minidl.inference.evaluation import evaluation_mode, logits_of
from minidl.inference.images import as_images, check_images, check_reduce, number_or_array, over_channels
from minidl.inference.scores import Output, Target, score, targets
from minidl.nn import Module


@explainer
def lrp(
    model: Module,
    x: Array,
    target: Target = None,
    output: Output = "logit",
    reduce: str = "sum",
    rule: str = "composite",
    gamma: float = 0.25,
    epsilon: float = 1e-6,
    bounds: Bounds | None = None,
    batch_size: int = 32,
    progress: Progress = False,
) -> Explanation:
    """raw: R at x, where score_c is R at the score and each layer passes on R_j = sum_k c_jk R_k / (sum_j c_jk + d_k + e)

    c_jk is what input j contributes to output k, d_k what the bias does. Bach et al. 2015, "On pixel-wise explanations for
    non-linear classifier decisions by layer-wise relevance propagation"; Montavon et al. 2019, "Layer-wise relevance
    propagation: an overview". The rules, and what happens at batch norms, joins, poolings and activations, are told at
    `minidl.flow.relevance`. raw sums to the score, but for what biases and e took, which is `delta`.

    Args:
        rule: "composite" is by depth: in the layers nearest the image the z-box where `bounds` are given, else flat, which
            spreads evenly over the window; gamma in the convolutions above; epsilon in linear layers. "epsilon", "gamma" and
            "zplus" (alpha 1, beta 0) are the same in all layers.
        gamma: how much more contributions count that have the sign of the sum. epsilon: e, which gets the sign of the sum.
        bounds: (low, high) of the pixels as x has them, so normalised where x is; numbers or what broadcasts to x, such as
            (C,1,1).
        output: "logit" or "margin": a softmax has no rule. target, reduce, batch_size, progress: as in `saliency`.

    Raises:
        ValueError: an op of the model or of the output has no rule, such as a sigmoid or an attention; the message names it.
            Pixels beyond `bounds`, or a layer before the first that they cannot be carried through.
        TypeError, ValueError, MemoryError: as in `saliency`.
    """
    check_images(model, x, target)
    check_reduce(reduce)
    rule, gamma, epsilon = settings(rule, gamma, epsilon)
    bounds, ends = (None, None) if bounds is None else _checked(bounds, x)
    xp, parts = array_module(x), []
    for part in batches(len(x), batch_size, progress, "LRP"):
        with evaluation_mode(model, batch_size), ops.unfused():  # rules meet single ops
            image = Tensor(x[part], requires_grad=True)
            logits = logits_of(model, image)
            classes = targets(logits.data, of_part(target, part))
            scores = score(logits, classes, output)
            relevance = Relevance(scores, rule, gamma, epsilon, None if ends is None else (ends[0][part], ends[1][part]))
            leaves = dict[Tensor, Array]()
            for step in walk(scores, scores.data, leaves=leaves, keep_graph=False, apart=False):
                relevance(step)
                del step  # or its arrays would live on through the next step
            parts.append((leaves[image], classes, scores.data))
    raw, classes, scores = (xp.concatenate(arrays) for arrays in zip(*parts, strict=True))
    params = {"method": "lrp", "output": output, "reduce": reduce, "rule": rule, "gamma": gamma, "epsilon": epsilon}
    delta = scores - raw.sum((1, 2, 3))
    return Explanation(over_channels(raw, reduce), raw, classes, scores, delta, params=params | {"bounds": bounds})


def _checked(bounds: Any, x: Array) -> tuple[Bounds, tuple[Array, Array]]:
    """Both ends as numbers or arrays, and in the form of the images."""
    expected = "None, or (low, high), the lowest and the highest value of a pixel"
    if not isinstance(bounds, tuple | list) and not (is_array(bounds) and bounds.ndim):
        wrong(TypeError, "bounds", expected, bounds)
    if len(bounds) != 2:
        wrong(ValueError, "bounds", expected, bounds)
    low, high = (number_or_array(end, f"bounds[{i}]") for i, end in enumerate(bounds))
    lows, highs = as_images(low, x, "bounds[0]"), as_images(high, x, "bounds[1]")
    if bool((x < lows).any() or (x > highs).any()):
        wrong(ValueError, "bounds", f"{expected}; x holds values from {float(x.min()):g} to {float(x.max()):g}", (low, high))
    return (low, high), (lows, highs)
