"""Any method under noise: the mean of its maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from minidl.arguments import function
from minidl.array import Array, array_module
from minidl.explain.explanation import Explanation, explainer
from minidl.explain.saliency import saliency
from minidl.explain.smoothgrad import noise_of, settings
from minidl.inference.batches import Progress, gather_runs, runs_in_batches, split_runs
from minidl.inference.images import check_images
from minidl.inference.scores import Target
from minidl.nn import Module

Method = Callable[..., Explanation]  # (model, x, target=, batch_size=)


@explainer
def smooth(
    model: Module,
    x: Array,
    target: Target = None,
    method: Method = saliency,
    samples: int = 50,
    noise: float = 0.15,
    batch_size: int = 32,
    seed: int = 0,
    progress: Progress = False,
) -> Explanation:
    """raw, map = 1/n sum_k raw_k, map_k, those of the method at x + e_k, e_k ~ N(0, sigma^2), sigma = noise * (max x - min x)

    The averaging of Smilkov et al. 2017, "SmoothGrad: removing noise by adding noise", around any method. Class, score and
    settings are those of the method for the images x (N,C,H,W) without noise; raw has the shape that it has there. The
    map is the mean of maps, after each took the sizes of its channels: for gradients `smoothgrad`, which takes them of the
    mean, is the published method. The noise is the same.

    Args:
        method: a function of (model, x, target=, batch_size=) that returns an `Explanation`; with settings of its own it is
            `functools.partial(explain.grad_cam, layer="layer2")`.
        samples: n. noise: the share of the range. seed: the same numbers on every device and for every batch_size.
        target, batch_size, progress: as in `saliency`.

    Raises TypeError and ValueError for an argument that cannot be, and what the method raises.
    """
    check_images(model, x, target)
    samples, noise, seed = settings(samples, noise, seed)
    plain = ask(method, model, x, target, batch_size)
    xp, draw = array_module(x), noise_of(x, noise, seed)
    map, raw = xp.zeros_like(plain.map), xp.zeros_like(plain.raw)
    for runs in runs_in_batches(len(x), samples, batch_size, progress, "smoothing"):
        noisy = xp.concatenate([x[part] + draw(part, k) for part, k in runs])
        e = ask(method, model, noisy, gather_runs(plain.target, runs), batch_size)
        for (part, _), some_map, some_raw in zip(runs, split_runs(e.map, runs), split_runs(e.raw, runs), strict=True):
            map[part] += some_map / samples
            raw[part] += some_raw / samples
    params = around(plain, "smooth") | {"samples": samples, "noise": noise, "seed": seed}
    return replace(plain, map=map, raw=raw, delta=None, history=[], params=params)


def ask(method: Method, model: Module, x: Array, target: Target, batch_size: int) -> Explanation:
    """What the method says, if it is one."""
    of = "(model, x, target=, batch_size=) that returns an Explanation, such as explain.saliency"
    function(method, "method", of)
    e = method(model, x, target=target, batch_size=batch_size)
    if not isinstance(e, Explanation):
        raise TypeError(f"method: expected a function {of}; this one returned {type(e).__name__}")
    return e


def around(plain: Explanation, method: str) -> dict[str, Any]:
    """The settings of `method` around another one, whose own stand under "of"."""
    output = {key: value for key, value in plain.params.items() if key == "output"}
    return output | {"method": method, "of": plain.params}
