"""One perturbation for all images."""

from __future__ import annotations

import numpy as np

from minidl.arguments import count, flag, number
from minidl.array import Array, array_module
from minidl.attack.ball import Bounds, add, check_norm, clip_norm
from minidl.attack.common import PerChannel, check_bounds, check_target, inside, on_images, reached
from minidl.attack.deepfool import to_the_border
from minidl.attack.result import AttackResult
from minidl.contexts import contained
from minidl.inference.batches import Progress, reporting
from minidl.inference.evaluation import evaluation_mode, predict
from minidl.inference.images import check_images
from minidl.inference.scores import Target, targets
from minidl.nn import Module


@contained
def universal(
    model: Module,
    x: Array,
    y: Target = None,
    eps: float = 10 / 255,
    bounds: Bounds = (0, 1),
    targeted: bool = False,
    norm: str = "linf",
    fooling_rate: float = 0.8,
    epochs: int = 10,
    overshoot: float = 0.02,
    steps: int = 50,
    candidates: int = 10,
    mean: PerChannel = None,
    std: PerChannel = None,
    batch_size: int = 32,
    seed: int = 0,
    progress: Progress = False,
    keep_path: bool = False,
) -> AttackResult:
    """v such that the model, on most images, answers differently to x + v than to x:

        for every x_i that x_i + v does not fool:    v <- clip_norm(v + deepfool(x_i + v))

    pass after pass, until `fooling_rate` of the images are fooled. Moosavi-Dezfooli, Fawzi, Fawzi and Frossard 2017, "Universal
    adversarial perturbations", algorithm 1.

    Returns the images clip(x + v), and v itself as `delta` (1,C,H,W); `path` holds v at the start and after every pass,
    (T+1,1,C,H,W), and `steps` the passes that it took. Try v on other images too, to learn how universal it is.

    Args:
        y: None: the classes that the model predicts; v is to change them. With `targeted`, the class to reach.
        eps: how large v may be, in the units of x, as `norm` ("linf" or "l2") measures it.
        fooling_rate: the share of fooled images that is enough.
        epochs: at most so many over all images, each in another order.
        overshoot, steps, candidates: of `deepfool`.
        batch_size: images in memory at a time, where v is tried; it is made one image at a time, as in the paper.
        seed: of the orders.

    The other arguments, and what is raised, are those of `fgsm`.
    """
    check_norm(norm)
    eps, overshoot, fooling_rate = (
        number(value, name, "[0, inf)")
        for name, value in (("eps", eps), ("overshoot", overshoot), ("fooling_rate", fooling_rate))
    )
    epochs, steps = count(epochs, "epochs", 0), count(steps, "steps", 0)
    candidates, seed, bounds = count(candidates, "candidates"), count(seed, "seed", 0), check_bounds(bounds)
    net = on_images(model, x, mean, std)
    check_images(net, x, y, "y")
    check_target(y, targeted)
    keep_path = flag(keep_path, "keep_path")
    x = inside(x, bounds)
    xp, rng, N = array_module(x), np.random.default_rng(seed), len(x)
    v = xp.zeros_like(x[:1])
    path = [v]
    with reporting(N * epochs, progress, "universal") as advance:
        before = logits = predict(net, x, batch_size)
        classes = targets(before, y, "y")
        while len(path) <= epochs and float(reached(logits, classes, targeted).mean()) < fooling_rate:
            for i in rng.permutation(N).tolist():
                start = now = xp.clip(add(x[i : i + 1], v), *bounds)
                with evaluation_mode(net, batch_size):
                    for now in to_the_border(  # noqa: B007 - the last one is wanted
                        net, start, classes[i : i + 1], targeted, overshoot, steps, candidates, bounds
                    ):
                        pass
                v = clip_norm(v + now - start, eps, norm)
                advance(1)
            path.append(v)
            logits = predict(net, xp.clip(add(x, v), *bounds), batch_size)
    params = {
        "method": "universal",
        "eps": eps,
        "bounds": bounds,
        "targeted": targeted,
        "norm": norm,
        "fooling_rate": fooling_rate,
        "epochs": epochs,
        "overshoot": overshoot,
        "steps": steps,
        "candidates": candidates,
        "seed": seed,
    }
    took = xp.full((N,), len(path) - 1, dtype="int64")
    fooled = reached(logits, classes, targeted)
    kept = xp.stack(path) if keep_path else None
    return AttackResult(xp.clip(add(x, v), *bounds), v, fooled, classes, before, logits, took, kept, params)
