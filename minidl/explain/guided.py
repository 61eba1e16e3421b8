"""Guided backprop and the deconvnet: sharp images of what excites a net, by other rules for the way back through a ReLU."""

from __future__ import annotations

import warnings

from minidl.array import Array
from minidl.contexts import contained
from minidl.core import Step
from minidl.explain.explanation import Explanation
from minidl.flow import relu_rules
from minidl.inference.batches import Progress
from minidl.inference.gradients import input_gradients
from minidl.inference.images import check_images, check_reduce, over_channels
from minidl.inference.scores import Target
from minidl.nn import Module


@contained
def guided_backprop(
    model: Module,
    x: Array,
    target: Target = None,
    output: str = "logit",
    reduce: str = "maxabs",
    batch_size: int = 32,
    progress: Progress = False,
) -> Explanation:
    """raw: what arrives at x when each ReLU sends back gx = gy * (gy > 0) * (x > 0); map_ij = max_k |raw_kij|.

    Springenberg, Dosovitskiy, Brox and Riedmiller 2015, "Striving for simplicity: the all convolutional net", section 3.4.
    It shows edges that excite the net, and hardly depends on the class or on the weights of the last layers (Adebayo et al.
    2018, "Sanity checks for saliency maps"): an image of the net's filters rather than of its reasons. Every ReLU of the
    walk counts, a function's or a layer's; ops with a ReLU inside are taken apart. The arguments, and
    what is raised, are those of `saliency`.
    """
    return _by_rule(relu_rules.guided, "guided_backprop", model, x, target, output, reduce, batch_size, progress)


@contained
def deconvnet(
    model: Module,
    x: Array,
    target: Target = None,
    output: str = "logit",
    reduce: str = "maxabs",
    batch_size: int = 32,
    progress: Progress = False,
) -> Explanation:
    """raw: what arrives at x when each ReLU sends back gx = gy * (gy > 0); map_ij = max_k |raw_kij|.

    Zeiler and Fergus 2014, "Visualizing and understanding convolutional networks", section 2.1. The backward pass no longer
    knows which ReLUs were open; of the image it knows the choices of the max pools alone. The arguments, and what
    is raised, are those of `saliency`, and what is said at `guided_backprop` is true of it, too.
    """
    return _by_rule(relu_rules.deconvnet, "deconvnet", model, x, target, output, reduce, batch_size, progress)


def _by_rule(
    rule: relu_rules.Rule,
    method: str,
    model: Module,
    x: Array,
    target: Target,
    output: str,
    reduce: str,
    batch_size: int,
    progress: Progress,
) -> Explanation:
    check_images(model, x, target)
    check_reduce(reduce)
    met = list[bool]()

    def noting(step: Step) -> None:
        met.append(relu_rules.is_relu(step))
        rule(step)

    raw, classes, scores = input_gradients(model, x, target, output, batch_size, progress, method, noting)
    if not any(met):
        warnings.warn(f"{method}: the model has no ReLU for the rule to act on: this is the plain gradient", stacklevel=4)
    params = {"method": method, "output": output, "reduce": reduce}
    return Explanation(over_channels(raw, reduce), raw, classes, scores, params=params)
