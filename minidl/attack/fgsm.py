"""One step to the corner of the box around the image at which a linear model would be most wrong."""

from __future__ import annotations

from collections.abc import Iterator

from minidl.arguments import number
from minidl.array import Array, array_module
from minidl.attack.ball import Bounds, project
from minidl.attack.common import PerChannel, attacked, check_bounds, on_images
from minidl.attack.result import AttackResult
from minidl.contexts import contained
from minidl.inference.batches import Progress
from minidl.inference.gradients import input_gradient
from minidl.inference.scores import Target
from minidl.nn import Module


@contained
def fgsm(
    model: Module,
    x: Array,
    y: Target = None,
    eps: float = 8 / 255,
    bounds: Bounds = (0, 1),
    targeted: bool = False,
    output: str = "logprob",
    mean: PerChannel = None,
    std: PerChannel = None,
    batch_size: int = 32,
    progress: Progress = False,
    keep_path: bool = False,
) -> AttackResult:
    """x' = x - eps sign(d score_y / dx), and for a targeted attack x + eps sign(...), clipped to the bounds.

    The fast gradient sign method: Goodfellow, Shlens and Szegedy 2015, "Explaining and harnessing adversarial examples",
    section 4. With the score log p_y this is the paper's step up the cross-entropy.

    Args:
        x: images (N,C,H,W) in bounds; the model is given (x - mean) / std.
        y: the class to leave, or with `targeted` the one to reach, one for all or one for each image; None: the one that
            the model predicts.
        eps: the largest change of a value, in the units of x: never more, by no rounding (`AttackResult.norms`).
        bounds: the smallest and the largest value of an image; what at most 4 roundings have put outside is put back first.
        output: the score, as in `explain.saliency`. In float32 the gradient of "logprob" loses its larger part where
            1 - p_y rounds to 0, above a margin of about 17; "margin" does not.
        mean, std: (C,) each, of the images that the model was trained on; None: it was trained on x as it is.
        batch_size: images in memory at a time.
        progress: False, True (a bar), or a function of (done, total).
        keep_path: keep the images before and after.

    Raises:
        TypeError, ValueError: an argument that cannot be, named with what came and what was expected.
        MemoryError: `batch_size` images at a time do not fit into memory; the message says what would.
    """
    eps, bounds = number(eps, "eps", "[0, inf)"), check_bounds(bounds)
    net, towards = on_images(model, x, mean, std), 1 if targeted else -1

    def core(x: Array, classes: Array, part: slice) -> Iterator[Array]:
        gx, _, _ = input_gradient(net, x, classes, output)
        yield project(x, towards * eps * array_module(x).sign(gx), eps, "linf", bounds)

    params = {"method": "fgsm", "eps": eps, "bounds": bounds, "targeted": targeted, "output": output}
    return attacked(net, x, y, core, 1, bounds, targeted, batch_size, progress, keep_path, params)
